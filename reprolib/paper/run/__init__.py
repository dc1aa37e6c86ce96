"""Computing it once. Everything that notebooks and the batch need of this room, under one name."""

from reprolib.paper.files import RecordError, StoreError
from reprolib.paper.run.evaluate import Outcome
from reprolib.paper.run.measure import PROTOCOLS, RUNGS, answered, measure, measure_contingency
from reprolib.paper.run.networks import load_published
from reprolib.paper.run.page import Page, open_page, parameters
from reprolib.paper.run.plain import changed_patch, measure_operations, measure_parameters
from reprolib.paper.run.records import (
    Stored,
    plain_provenance,
    provenance,
    publish_networks,
    read_record,
    records,
    write_record,
)
from reprolib.paper.run.store import Store
from reprolib.paper.run.timing import measure_times, measure_training

__all__ = [
    "PROTOCOLS",
    "RUNGS",
    "Outcome",
    "Page",
    "RecordError",
    "Store",
    "StoreError",
    "Stored",
    "answered",
    "changed_patch",
    "load_published",
    "measure",
    "measure_contingency",
    "measure_operations",
    "measure_parameters",
    "measure_times",
    "measure_training",
    "open_page",
    "parameters",
    "plain_provenance",
    "provenance",
    "publish_networks",
    "read_record",
    "records",
    "write_record",
]


def __dir__() -> list[str]:
    return __all__
