"""What is computed. Everything that others need of this room, under one name."""

from reprolib.paper.plan.amounts import JUDGED, OWN, PROFILES, PUBLISHED, Amounts, Profile, load_profile
from reprolib.paper.plan.attacks import Attack, attacks_of
from reprolib.paper.plan.cells import Cell
from reprolib.paper.plan.jobs import AnyNetwork, Evaluation, Job, Plan, epoch_of, label, ladder_attacks
from reprolib.paper.plan.load import all_pages, amounts_of, load_plan, used
from reprolib.paper.plan.networks import Changed, Pretrained, Trained, Voted, read_network, trainings
from reprolib.paper.plan.records import LOSSES, PARAMS, Decision, Record, SpecError, parse_yaml, read_yaml
from reprolib.paper.plan.tables import Answer, Column, Page, Row, known_claims, load_table, table_names

__all__ = [
    "JUDGED",
    "LOSSES",
    "OWN",
    "PARAMS",
    "PROFILES",
    "PUBLISHED",
    "Amounts",
    "Answer",
    "AnyNetwork",
    "Attack",
    "Cell",
    "Changed",
    "Column",
    "Decision",
    "Evaluation",
    "Job",
    "Page",
    "Plan",
    "Pretrained",
    "Profile",
    "Record",
    "Row",
    "SpecError",
    "Trained",
    "Voted",
    "all_pages",
    "amounts_of",
    "attacks_of",
    "epoch_of",
    "known_claims",
    "label",
    "ladder_attacks",
    "load_plan",
    "load_profile",
    "load_table",
    "parse_yaml",
    "read_network",
    "read_yaml",
    "table_names",
    "trainings",
    "used",
]


def __dir__() -> list[str]:
    return __all__
