"""Every printed number beside what was measured, with a verdict; and the README's status, made from it."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from reprolib import claims, costs, files, ladder, specs
from reprolib.measures import JUDGED, PROTOCOLS
from reprolib.pictures import PALETTE
from reprolib.records import RecordError, records
from reprolib.specs import Plan
from reprolib.tables import ensemble_table, number, summary, title


def scoreboard(found: dict[tuple[str, str], dict] | None = None) -> pd.DataFrame:
    """One row per claim and protocol that was measured, and one per claim that was not: printed, measured, verdict.

    A protocol whose attack fails its sanity ladder in a record earns no verdict there (ladder.py). Of several records that
    answer a claim the paper profile's counts, and within a profile the first reading's.
    """
    ledger, found = claims.load_claims(), records() if found is None else found
    measured: dict[tuple[str, str], tuple[str, str, dict]] = {}
    for (profile, notebook), record in sorted(found.items(), key=lambda item: _rank(*item[0])):
        for entry in record["cells"]:
            judged = JUDGED.get(entry["protocol"], "never") == entry["decision"] or entry["row"] == "AutoAttack"
            if entry["claim"] and judged:
                measured.setdefault((entry["claim"], entry["protocol"]), (profile, notebook, entry))
    rows = []
    for name, claim in ledger.items():
        protocols = [p for p in PROTOCOLS if (name, p) in measured]
        for protocol in protocols or [""]:
            profile, notebook, entry = measured.get((name, protocol), ("cpu", "", None))
            base_profile, _, base = measured.get((claim.baseline, protocol), (None, None, None))
            base = base if base_profile == profile else None  # a gain is judged within one run
            verdict = claims.judge(claim, _measured(entry), profile=profile, baseline=_measured(base))
            if entry and (fault := ladder.fault(found[profile, notebook]["cells"], protocol)):
                verdict = claims.Verdict(verdict="not run", difference=None, reason=fault)
            rows.append(
                {
                    "claim": name,
                    "where": claim.where,
                    "printed": claim.printed,
                    "protocol": protocol,
                    "measured": entry["value"] if entry else None,
                    "low": entry["low"] if entry else None,
                    "high": entry["high"] if entry else None,
                    "n": entry["n"] if entry else None,
                    "verdict": verdict.verdict,
                    "reason": verdict.reason,
                    "profile": profile if entry else "",
                    "notebook": notebook,
                }
            )
    return pd.DataFrame(rows)


def _rank(profile: str, notebook: str) -> tuple[bool, bool]:
    return profile != "paper", notebook in specs.grid_names() and specs.load_grid(notebook).second_reading


def _measured(entry: dict | None) -> claims.Measured | None:
    return None if entry is None else claims.Measured(**{k: entry[k] for k in ("value", "low", "high", "n")})


def verdict_counts(board: pd.DataFrame) -> pd.DataFrame:
    """Number of claims per verdict (rows) and protocol (columns); claims that nothing measured stand under "all"."""
    board = board.assign(protocol=board["protocol"].replace("", "all"))
    counts = board.groupby(["verdict", "protocol"]).size().unstack(fill_value=0)
    columns = [p for p in [*PROTOCOLS, "all"] if p in counts.columns]
    return counts.reindex(index=[v for v in claims.VERDICTS if v in counts.index], columns=columns, fill_value=0)


def board_table(board: pd.DataFrame) -> pd.DataFrame:
    """The scoreboard for people: one row per claim and protocol, linked to the notebook that measured it."""
    return pd.DataFrame(
        {
            "where": board["where"],
            "claim": board["claim"],
            "printed": board["printed"].astype(str),
            "protocol": board["protocol"],
            "measured": [number(row | {"value": row["measured"]}) for row in board.to_dict("records")],
            "images": board["n"].astype(int).astype(str),
            "verdict": board["verdict"],
            "notebook": [
                f"[{n}](../results/{p}/{n}.ipynb)" for p, n in zip(board["profile"], board["notebook"], strict=True)
            ],
        }
    )


def missing_table(board: pd.DataFrame) -> pd.DataFrame:
    """Claims that nothing has measured yet, counted per place in the paper."""
    missing = board[board["notebook"] == ""]
    return missing.groupby("where", sort=False).size().rename("not yet run").reset_index()


def plot_scoreboard(board: pd.DataFrame) -> Figure:
    """Every measured claim in percent: what the paper prints against what was measured, coloured by protocol."""
    figure, axis = plt.subplots(figsize=(7, 6.5), layout="constrained")
    shown = board[board["measured"].notna() & board["protocol"].isin(["clean", "sound", "logits", "probabilities"])]
    shown = shown.loc[[isinstance(p, (int, float)) for p in shown["printed"]]]
    markers = {"clean": "s", "sound": "o", "logits": "^", "probabilities": "D"}
    colours = PALETTE | {"clean": "#009E73"}
    axis.plot([0, 100], [0, 100], color="grey", linewidth=1, linestyle="--", label="measured = printed")
    for protocol, marker in markers.items():
        part = shown[shown["protocol"] == protocol]
        axis.scatter(
            part["printed"].astype(float),
            part["measured"].astype(float),
            marker=marker,
            color=colours[protocol],
            edgecolor="black",
            linewidth=0.5,
            s=45,
            label=f"{protocol} ({len(part)})",
            alpha=0.85,
        )
    axis.set(
        xlabel="printed in the paper (%)", ylabel="measured here (%)", xlim=(-2, 102), ylim=(-2, 102), aspect="equal"
    )
    axis.legend(loc="upper left", fontsize="small")
    return figure


README = files.ROOT / "README.md"
START, END = "<!-- status: generated by `make readme` from results/ -->", "<!-- end of status -->"


def readme_status() -> str:
    """The README's status block in Markdown: verdicts so far, and every table's summary. Generated from the records."""
    board = scoreboard()
    measured = board[board["notebook"] != ""]
    parts = [
        f"{measured['claim'].nunique()} of {board['claim'].nunique()} printed numbers have been measured. "
        "Number of claims per verdict, by protocol:",
        verdict_counts(measured).reset_index().to_markdown(index=False)
        if len(measured)
        else "Nothing is measured yet.",
    ]
    for (profile, notebook), record in records().items():
        if notebook in specs.grid_names() and record["cells"]:
            plan = specs.Plan(specs.load_grid(notebook), specs.load_profile(profile))
            if not plan.grid.study:
                parts += _table_status(profile, notebook, plan, record["cells"])
        elif notebook in specs.view_names() and specs.load_view(notebook).shows == "ensemble":
            plans = specs.load_view(notebook).plans(specs.load_profile(profile))
            networks = ", ".join(plan.model_name for plan in plans.values())
            parts += [
                f"**Table 9, {networks}** ([{profile} profile](results/{profile}/{notebook}.md), accuracy in %, "
                "standard AutoAttack):",
                ensemble_table(record["cells"], plans).to_markdown(index=False, disable_numparse=True),
            ]
    parts += ["**What the `paper` profile would take.** " + costs.page("paper")]
    return "\n\n".join(parts)


def _table_status(profile: str, notebook: str, plan: Plan, cells: list[dict]) -> list[str]:
    epochs = {column: epoch for column, (_, epoch) in plan.networks.items()}
    short = summary(cells, list(plan.networks), epochs, plan.grid.rows(), plan.grid.table)
    return [
        f"**{title(plan)}, {plan.model_name}** ([{profile} profile](results/{profile}/{notebook}.md), "
        f"accuracy in %, {plan.test_size:,} test images, {plan.settings.finetune_epochs} epochs of fine-tuning):",
        short.to_markdown(index=False, disable_numparse=True),
    ]


def readme_text() -> str:
    """The whole README with a fresh status block."""
    text = README.read_text(encoding="utf-8")
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not end:
        lacks, place = (END, "ends") if start else (START, "begins")
        raise RecordError(f"{files.shown(README)} lacks the line '{lacks}'; put it back where the status {place}")
    return f"{before}{START}\n\n{readme_status()}\n\n{END}{after}"


def write_readme() -> None:
    files.write_atomically(README, readme_text().encode())
