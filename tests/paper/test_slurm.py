"""The quick batch through a real Slurm of one node: its numbers are those of this machine's own run.

It starts daemons and writes /etc/slurm/slurm.conf, so it is asked for: REPROLIB_SLURM=1 takes one page and some
minutes, REPROLIB_SLURM=all every page and an hour.
"""

import os

import pytest
from paper import checkouts, one_node_slurm

from reprolib.paper import notebooks

ASKED = os.environ.get("REPROLIB_SLURM", "")
PAGES = "" if ASKED == "all" else "table11_epochs"
WHY_NOT = one_node_slurm.why_not() or ("" if ASKED else "not asked for: REPROLIB_SLURM=1, or all")


@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
def test_the_numbers_of_a_cluster_are_those_of_one_machine(tmp_path):
    here, there = (checkouts.copy_to(tmp_path / name) for name in ("here", "there"))
    code, said = checkouts.run(here, tmp_path / "store here", "--jobs", "2", pages=PAGES)
    assert code == 0, said
    engine = one_node_slurm.write_engine(there)
    with one_node_slurm.slurm():
        code, said = checkouts.run(there, tmp_path / "store_there", "--engine", engine, pages=PAGES)
        jobs = one_node_slurm.completed_jobs()
    assert code == 0, said
    assert checkouts.numbers(there) == checkouts.numbers(here)
    assert len(checkouts.numbers(here)) == len({sheet.record for sheet in notebooks.wanted(PAGES)})
    assert checkouts.same_tensors(tmp_path / "store here", tmp_path / "store_there")
    assert jobs >= 2, "trainings, attacks and the notebook ran as Slurm's jobs"
