"""What is known before any training, and the scoreboard, as tables for people."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
from torch import nn

from reprolib import networks
from reprolib.paper.plan import PARAMS, Cell, attacks_of, read_yaml
from reprolib.paper.show.selection import interval


def layer_table(names: Iterable[str]) -> pd.DataFrame:
    """The layers with weights of some networks: kernel, stride, output channels, number of parameters."""
    rows = []
    for name in names:
        for layer, module in networks.build(name).named_children():
            count = networks.parameter_count(module)
            place = {"network": name, "layer": layer}
            if isinstance(module, nn.Conv2d):
                shape = {"kernel": "x".join(map(str, module.kernel_size)), "stride": str(module.stride[0])}
                rows.append(place | shape | {"outputs": str(module.out_channels), "parameters": f"{count:,}"})
            elif isinstance(module, nn.Linear):
                shape = {"kernel": "", "stride": ""}
                rows.append(place | shape | {"outputs": str(module.out_features), "parameters": f"{count:,}"})
    return pd.DataFrame(rows)


def attack_table() -> pd.DataFrame:
    """Table 2: every attack with its numbers, and the model calls that one unbreakable image costs."""
    rows = []
    for dataset in read_yaml(PARAMS / "attacks.yaml"):
        for name, attack in attacks_of(dataset).items():
            loop = attack.build(nn.Identity(), "logits", "last", 0)
            rows.append(
                {
                    "data set": dataset,
                    "attack": name,
                    "eps": f"{loop.eps:g}",
                    "alpha": f"{loop.alpha:g}",
                    "iterations": str(loop.steps),
                    "restarts": str(loop.restarts),
                    "calls": str(max(loop.restarts, 1) * (loop.steps + 1)),
                }
            )
    return pd.DataFrame(rows)


def operations_table(cells: list[Cell]) -> pd.DataFrame:
    """Figure 2's operations: the mean change of a pixel, its interval, the number of images."""
    rows = []
    for cell in cells:
        value, low, high = interval([cell])
        numbers = {"change": f"{value:.4f}", "low": f"{low:.4f}", "high": f"{high:.4f}"}
        rows.append({"operation": cell.row.replace("_", " "), **numbers, "images": str(cell.n)})
    return pd.DataFrame(rows)


def board_table(board: pd.DataFrame) -> pd.DataFrame:
    """The scoreboard for people: one row per claim and protocol that was measured, linked to the page that has it; for
    what is not reproduced, also which readings of params/readings.yaml come within tolerance.
    """
    board = board[board["record"] != ""]
    return pd.DataFrame(
        {
            "where": board["where"],
            "claim": board["claim"],
            "printed": board["printed"].astype(str),
            "protocol": board["protocol"],
            "measured": [f"{row.measured:.2f} [{row.low:.2f}, {row.high:.2f}]" for row in board.itertuples()],
            "images": board["n"].astype(int).astype(str),
            "verdict": board["verdict"],
            "reading that comes near": board["reading"],
            "page": [f"[{row.record}](../results/{row.profile}/{row.record}.ipynb)" for row in board.itertuples()],
        }
    )


def missing_table(board: pd.DataFrame) -> pd.DataFrame:
    """Claims that nothing has measured yet, counted per place in the paper."""
    missing = board[board["record"] == ""]
    return missing.groupby("where", sort=False).size().rename("not yet run").reset_index()
