"""Pages say what was run, what was reduced and where their numbers come from."""

import errno
import os

import matplotlib.pyplot as plt
import pytest
import torch
from paper.made import amounts, table_6

from reprolib import networks
from reprolib.paper import files, plan, run, show

MADE = {"data": {"name": "n", "source": "s", "variant": "v"}, "pretraining": [], "device": ["some CPU"], "seconds": {},
        "torch": ["2.0"], "commit": ["0" * 40], "published": []}  # fmt: skip


def test_a_page_says_where_its_numbers_come_from(cells, table_6, results):
    text = show.page_text(cells, table_6.plan, run.provenance(table_6))
    for said in ("# Table 6", "made by the tests", "some GPU", "seed 3", "20 epochs of fine-tuning", "20.00 [",
                 "training 315 s", "torch 2.0, commit 0000000000"):  # fmt: skip
        assert said in text, said
    assert torch.__version__ not in text
    path = show.save_page("table06", "custom", text)
    assert path == results / "custom" / "table06.md"
    assert path.read_text(encoding="utf-8").startswith(show.banner("custom"))


def test_a_page_takes_the_form_of_what_it_measures(given_cells, table_9, epoch_cells, table_11):
    nine = show.page_text(given_cells, table_9.plan, run.provenance(table_9))
    eleven = show.page_text(epoch_cells, table_11.plan, run.provenance(table_11))
    for text, said in (
        (nine, ["59.00 [", "broken by Square", "cut short, to 10 steps"]),
        (eleven, ["50.00 [", "paper: PGD-v2"]),
    ):
        assert all(some in text for some in [*said, "seed 3", "made by the tests", "100 test images"])
    whole = plan.Plan(table_9.plan.page, amounts(steps=100), "cpu")
    assert "cut short" not in show.page_text(given_cells, whole, run.provenance(table_9))


@pytest.mark.parametrize(
    "last, said", [({"clean": 88.15}, "missed: it came to 88.15 %"), ({"clean": 91.5, "rests": True}, None)]
)
def test_a_page_says_when_the_pretraining_missed_its_target(last, said):
    line = show.source_line(plan.load_plan("table03", "resnet20", "cpu"), MADE | {"pretraining": [last]})
    assert "pre-training to 91.81 %" in line and ("missed" in line) == (said is not None) and (said or "") in line


def test_a_page_says_what_was_read_as_published():
    planned = table_6()
    assert "published" not in show.source_line(planned, MADE)
    assert "2 of its networks were read as published" in show.source_line(planned, MADE | {"published": ["a", "b"]})


def test_a_run_of_ones_own_says_so():
    planned = plan.load_plan("table06_fashion_mnist", "fmnistconv", "quick", run_name="mine", eps=0.1)
    own = "**Attacks other than printed: eps 0.1, steps at most 10, restarts at most 2.**"
    assert show.scale(planned).startswith(f"{show.banner('custom')}\n\n{own}\n\nRun **mine**: fmnistconv on")


def test_a_run_of_ones_own_says_how_far_its_attacks_were_cut():
    planned = plan.load_plan("table06_fashion_mnist", "fmnistconv", "quick", run_name="mine", eps=0.1, steps=20)
    assert "**Attacks other than printed: eps 0.1, steps at most 20, restarts at most 2.**" in show.scale(planned)


def test_a_page_says_that_its_attacks_are_not_the_papers(cells, table_6):
    own = plan.Plan(table_6.plan.page, amounts(loss="logits", alpha=0.02), "custom")
    made, said = run.provenance(table_6), "**Attacks other than printed: alpha 0.02, loss logits, steps at most 10.**"
    assert said in show.page_text(cells, own, made) and said not in show.page_text(cells, table_6.plan, made)


def test_banners(results):
    assert "No verdict" in show.banner("quick") and "No verdict" in show.banner("custom")
    assert show.banner("cpu") == show.banner("paper") == ""
    for folder, text in (("quick", f"{show.banner('quick')}\n\nbody\n"), ("cpu", "body\n")):
        assert show.save_page("page", folder, "body").read_text(encoding="utf-8") == text


@pytest.mark.parametrize("profile", plan.PROFILES)
@pytest.mark.parametrize("page", plan.all_pages(), ids=lambda page: page.record)
def test_every_page_says_what_was_reduced(page, profile):
    """Width, images and epochs; a narrower network's name says so wherever it stands."""
    planned = plan.load_plan(page.table, page.network, profile)
    text, used = show.scale(planned), planned.amounts
    assert text.startswith(show.banner("quick")) == (profile == "quick") and f"Profile **{profile}**" in text
    narrow = used.width != 1 and networks.scalable(page.network or page.architecture)
    assert (f"(width {used.width:g})" in text) == narrow
    assert f" {planned.size:,} test images" in text
    read = used.networks == "published"
    finetune = 40 if read else used.finetune
    assert f" {finetune} epoch{'s' * (finetune > 1)} of fine-tuning" in text
    assert (f" {min(used.train, planned.info.train):,} training" in text) == (not read)
    assert (", as published" in text) == read and ("which was published" in text) == (used.networks == "finetuned")
    line = show.source_line(planned, MADE)
    assert ("of the network's channels**" in line) == narrow


def test_a_failed_write_is_one_sentence(monkeypatch, results):
    def refused(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.tempfile, "mkstemp", refused)
    for write in (
        lambda: show.save_page("table", "cpu", "text"),
        lambda: show.picture(plt.figure(), "a picture of nothing at all", "cpu", "picture"),
    ):
        with pytest.raises(run.StoreError) as caught:
            write()
        assert "results" in str(caught.value) and "\n" not in str(caught.value)
