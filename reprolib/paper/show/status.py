"""docs/status.md: what is measured so far, generated from the records."""

from __future__ import annotations

from reprolib.paper import files
from reprolib.paper.judge import scoreboard, verdict_counts
from reprolib.paper.plan import Page, all_pages
from reprolib.paper.run import Stored, records
from reprolib.paper.show.pages import tuned
from reprolib.paper.show.recorded import plan_of, short_table
from reprolib.paper.show.selection import page_network

STATUS = files.ROOT / "docs" / "status.md"
HEAD = """# Status

*Written by `make status` from [`results/`](../results); do not edit.*

How to read it: each attack was run with three losses. `probabilities` takes its gradient from clipped soft-max outputs,
as Keras' string loss does, and judges the last iterate; `logits` is what most libraries do; **sound** counts an image
as robust only if it survives attacks on `margin` and on `logits`, at any iterate; `predicted labels` (Table 4) goes
away from the predicted class, as EMPIR's code does. Verdicts compare with a tolerance that stands, with its reason, in
[`params/claims.yaml`](../params/claims.yaml) and was written down before the runs. *above the paper* is a flag, not a
success (of minutes: faster, on narrower networks and in fewer epochs); nor is *trend only*: more than the undefended
network keeps, however far below the printed number (0.74 for 87.85, say)."""


def status_text() -> str:
    """The page in Markdown: verdicts so far, and every table's summary."""
    found = records()
    board = scoreboard(found)
    measured = board[board["record"] != ""]
    parts = [
        HEAD,
        f"{measured['claim'].nunique()} of {board['claim'].nunique()} printed numbers have been measured, "
        "with one seed each. Number of claims per verdict, by protocol:",
        verdict_counts(measured).reset_index().to_markdown(index=False)
        if len(measured)
        else "Nothing is measured yet.",
    ]
    pages = {page.record: page for page in all_pages() if page.in_status}
    for (profile, name), record in found.items():
        if name in pages and record.cells:
            parts += _page_status(profile, pages[name], record)
    parts.append("What the `paper` profile would take, `make tables PROFILE=paper DRY_RUN=1` estimates.")
    return "\n\n".join(parts) + "\n"


def _page_status(profile: str, page: Page, record: Stored) -> list[str]:
    plan = plan_of(page, profile, record)
    return [
        f"**{page.title}** ({page_network(plan)}, [{profile} profile](../results/{profile}/{page.record}.md), "
        f"accuracy in %, {', '.join(filter(None, [f'{plan.size:,} test images', tuned(plan)]))}):",
        short_table(record, plan).to_markdown(index=False, disable_numparse=True),
    ]


def write_status() -> None:
    """Bring docs/status.md up to the records."""
    files.write_atomically(STATUS, status_text().encode())
