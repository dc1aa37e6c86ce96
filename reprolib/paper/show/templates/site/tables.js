// Cells that hold a number with its interval, or a name, stay in one line; prose is wrapped.
for (const cell of document.querySelectorAll("td, th")) cell.classList.toggle("short", cell.textContent.length < 32);

// A table with these columns (the scoreboard) can be filtered by them; without scripts it is shown whole.
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.querySelectorAll("thead th")].map((head) => head.textContent.trim());
  const columns = ["where", "protocol", "verdict"].map((name) => heads.indexOf(name));
  if (columns.includes(-1)) continue;
  const rows = [...table.tBodies[0].rows];
  const text = (row, column) => row.cells[column].textContent.trim();
  const form = document.createElement("form");
  const count = document.createElement("output");
  form.className = "filters";
  const selects = columns.map((column) => {
    const label = document.createElement("label");
    const select = document.createElement("select");
    select.name = heads[column];
    select.append(new Option("all", ""));
    for (const value of new Set(rows.map((row) => text(row, column)))) select.append(new Option(value, value));
    label.append(`${heads[column]} `, select);
    form.append(label);
    return select;
  });
  const filter = () => {
    for (const row of rows) {
      row.hidden = selects.some((select, i) => select.value && text(row, columns[i]) !== select.value);
    }
    count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
  };
  form.append(count);
  form.addEventListener("change", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  (table.closest(".jp-OutputArea-output") ?? table).before(form);
  filter();
}
