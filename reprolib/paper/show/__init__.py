"""What a reader sees: tables, pictures, pages, the status; and all that a notebook calls, under one name."""

from reprolib.paper.judge import scoreboard, verdict_counts
from reprolib.paper.show.bpda import bpda_beside_pgd
from reprolib.paper.show.compare import compare
from reprolib.paper.show.gallery import plot_adversarial, plot_operations, plot_pipeline
from reprolib.paper.show.lists import (
    attack_table,
    board_table,
    layer_table,
    missing_table,
    operations_table,
)
from reprolib.paper.show.methods import (
    budget_table,
    costs_table,
    methods_table,
    plot_along_epochs,
    plot_budget,
    plot_methods,
    plot_times,
    plot_worth,
    times_table,
)
from reprolib.paper.show.notebook import (
    ask_doctor,
    display,
    display_figure,
    full_run,
    heading,
    outline,
    picture,
    publish,
    show,
    under_attack,
)
from reprolib.paper.show.pages import banner, page_text, save_page, scale, source_line
from reprolib.paper.show.pictures import PALETTE, plot_attacks, plot_epochs, plot_given, plot_scoreboard, style
from reprolib.paper.show.readings import (
    best_readings,
    contradictions_table,
    explained_table,
    plot_readings,
    read,
    readings_table,
    unexplained_table,
)
from reprolib.paper.show.scaling import bytes_table, chain_table, estimates_table, plot_jobs, scaling_table
from reprolib.paper.show.sliders import explore
from reprolib.paper.show.start import gradients_table, losses_table, measure_losses, plot_by_loss, plot_steps
from reprolib.paper.show.status import status_text, write_status
from reprolib.paper.show.study import plot_losses, plot_over_seeds, plot_saturation, plot_sweep
from reprolib.paper.show.tables import (
    claims_table,
    contingency_table,
    epochs_table,
    given_table,
    ladder_table,
    markdown,
    parts_table,
    summary,
    table,
)

__all__ = [
    "PALETTE",
    "ask_doctor",
    "attack_table",
    "banner",
    "best_readings",
    "board_table",
    "bpda_beside_pgd",
    "budget_table",
    "bytes_table",
    "chain_table",
    "claims_table",
    "compare",
    "contingency_table",
    "contradictions_table",
    "costs_table",
    "display",
    "display_figure",
    "epochs_table",
    "estimates_table",
    "explained_table",
    "explore",
    "full_run",
    "given_table",
    "gradients_table",
    "heading",
    "ladder_table",
    "layer_table",
    "losses_table",
    "markdown",
    "measure_losses",
    "methods_table",
    "missing_table",
    "operations_table",
    "outline",
    "page_text",
    "parts_table",
    "picture",
    "plot_adversarial",
    "plot_along_epochs",
    "plot_attacks",
    "plot_budget",
    "plot_by_loss",
    "plot_epochs",
    "plot_given",
    "plot_jobs",
    "plot_losses",
    "plot_methods",
    "plot_operations",
    "plot_over_seeds",
    "plot_pipeline",
    "plot_readings",
    "plot_saturation",
    "plot_scoreboard",
    "plot_steps",
    "plot_sweep",
    "plot_times",
    "plot_worth",
    "publish",
    "read",
    "readings_table",
    "save_page",
    "scale",
    "scaling_table",
    "scoreboard",
    "show",
    "source_line",
    "status_text",
    "style",
    "summary",
    "table",
    "times_table",
    "under_attack",
    "unexplained_table",
    "verdict_counts",
    "write_status",
]


def __dir__() -> list[str]:
    return __all__
