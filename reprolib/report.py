"""What a notebook says about its results, under one name: numbers, records, tables, pictures and verdicts."""
# ruff: noqa: F401

from reprolib.measures import (
    cell,
    count_cell,
    gain,
    measure,
    measure_ensemble,
    measure_ladder,
    measure_operations,
    named,
    of,
    share,
)
from reprolib.pictures import (
    PALETTE,
    plot_attacks,
    plot_ensemble,
    plot_epochs,
    plot_operations,
    plot_pipeline,
    show,
    style,
)
from reprolib.records import (
    RecordError,
    commit,
    load_network,
    merged,
    provenance,
    read_record,
    records,
    save_networks,
    write_record,
)
from reprolib.scoreboard import (
    board_table,
    missing_table,
    plot_scoreboard,
    readme_text,
    scoreboard,
    verdict_counts,
    write_readme,
)
from reprolib.tables import (
    BANNER,
    CUSTOM,
    attack_table,
    banner,
    claims_table,
    contradictions_table,
    display_markdown,
    ensemble_page,
    ensemble_table,
    epochs_page,
    epochs_table,
    frame,
    ladder_table,
    layer_table,
    markdown,
    number,
    parts_table,
    save_markdown,
    summary,
    table,
    table_page,
    title,
)
