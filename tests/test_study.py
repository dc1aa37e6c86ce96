"""The study's numbers over seeds, its pictures, and who survives image by image."""

import matplotlib

matplotlib.use("Agg")
import pytest  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402

from reprolib import evaluation, models, report, specs, study, training  # noqa: E402
from reprolib.store import Store  # noqa: E402

SETTINGS = specs.Settings(profile="cpu", train_size=200, test_size=128, pretrain_epochs=5,
                          study_epochs=20, epoch_interval=10, seeds=3, seed=4)
PLAN = specs.Plan(specs.load_grid("saturation"), SETTINGS)


def cell(row: str, column: str, epoch: int, protocol: str, decision: str | None, value: float) -> dict:
    return report.cell(row, column, epoch, protocol, decision, {"value": value, "low": value, "high": value, "n": 9}, 0)


def made_cells() -> list[dict]:
    """Values that tell column, epoch and seed: saturated 10 + epoch + seed, attacks the same minus 1, 2, 3, sound 0."""
    cells = []
    for column in PLAN.ablation_columns():
        seed = int(column[-1]) if ", seed" in column else 0
        for epoch in PLAN.ablation_epochs():
            cells.append(cell(study.SATURATED, column, epoch, "saturated", None, 10 + epoch + seed))
            for less, attack in enumerate(PLAN.grid.ablation_attacks, start=1):
                cells.append(cell(attack, column, epoch, "probabilities", "last", 10 + epoch + seed - less))
                cells.append(cell(attack, column, epoch, "logits", "any", 5.0))
                cells += [cell(attack, column, epoch, protocol, "any", 0.0) for protocol in ("margin", "sound")]
    return cells


def test_the_study_holds_what_the_question_needs():
    trainings = {name: spec for name, (spec, _) in PLAN.networks.items()}
    usual = trainings["7-P1"]
    assert trainings["no patches"].copies == "unmodified" and trainings["7-P1, Adam"].optimizer == "adam"
    assert trainings["7-P1, label smoothing"].label_smoothing > 0
    for seed in (1, 2):
        other = trainings[f"7-P1, seed {seed}"]
        assert (other.seed, other.parent.seed) == (4 + seed, 4 + seed)
        assert other.parent == trainings[f"undefended, seed {seed}"]
        assert other.model_copy(update={"seed": 4, "parent": trainings["undefended"]}) == usual
    assert {epoch for _, epoch in list(PLAN.networks.values())} == {5, 20} and usual.parent == trainings["undefended"]


@pytest.mark.parametrize("seeds, columns", [(1, 5), (2, 7), (3, 9), (9, 9)])
def test_fewer_seeds_leave_their_columns_out(seeds, columns):
    plan = specs.Plan(specs.load_grid("saturation"), SETTINGS.model_copy(update={"seeds": seeds}))
    assert len(plan.networks) == columns and len(plan.trainings) == columns
    assert {job.column for job in plan.epoch_jobs} <= set(plan.networks)


def test_the_step_grows_with_the_radius():
    found = {job.attack: job.evaluation.attack for job in PLAN.sweep_jobs}
    assert len(found) == 5
    assert {round(attack.alpha / attack.eps, 4) for attack in found.values()} == {round(0.075 / 0.3, 4)}
    full = specs.Plan(PLAN.grid, SETTINGS.model_copy(update={"steps": 100})).sweep_jobs
    assert {(job.evaluation.attack.eps, job.evaluation.attack.alpha) for job in full if job.attack.endswith("0.3")} \
        == {(0.3, 0.01)}


@pytest.mark.parametrize("column, name", [("7-P1", "7-P1"), ("7-P1, seed 2", "7-P1"), ("7-P1, Adam", "7-P1, Adam")])
def test_a_seed_is_no_part_of_a_columns_name(column, name):
    assert study.base(column) == name


def test_over_seeds():
    found = study.over_seeds(made_cells(), "FGSM", "7-P1", "probabilities", "last")
    assert found.to_dict("list") == {"epoch": [10, 20], "mean": [20.0, 30.0], "min": [19.0, 29.0], "max": [21.0, 31.0],
                                     "seeds": [3, 3]}
    assert study.over_seeds(made_cells(), "FGSM", "7-P1, Adam", "probabilities", "last")["seeds"].tolist() == [1, 1]
    assert study.over_seeds(made_cells(), "no such row", "7-P1", "sound", "any").empty


def test_headline():
    table = study.headline(made_cells(), PLAN)
    rows = {(row["column"], row["epochs"]): row for row in table.to_dict("records")}
    assert len(rows) == len(table) == 4 * 2
    assert rows["7-P1", "20"]["saturated"] == "31.0 (30.0 to 32.0)" and rows["7-P1", "20"]["seeds"] == "3"
    assert rows["7-P1", "20"]["PGD-v2 probabilities"] == "28.0 (27.0 to 29.0)"
    assert rows["7-P1, label smoothing", "10"]["saturated"] == "20.0" and rows["7-P1", "10"]["PGD-v2 sound"] == "0.0"


def test_pictures_draw_what_was_measured():
    lines = {line.get_label(): line for line in study.plot_saturation(made_cells(), PLAN).axes[0].lines}
    assert list(lines["7-P1 (3 seeds)"].get_ydata()) == [21, 31] and "no patches (1 seed)" in lines
    panels = {axis.get_title(): axis for axis in study.plot_losses(made_cells(), PLAN).axes}
    drawn = {line.get_label(): list(line.get_ydata()) for line in panels["IFGSM"].lines}
    assert drawn["7-P1: probabilities, last iterate"] == [19, 29] and drawn["no patches: margin, any iterate"] == [0, 0]
    printed = {line.get_label(): list(line.get_ydata()) for line in panels["PGD-v2"].lines}["Table 11, printed"]
    assert printed == [21.6, 35.1]  # as far as the study's epochs go


def test_sweep_is_drawn_by_radius():
    sweep = PLAN.grid.sweep
    cells = [cell(f"IFGSM, eps {eps:g}", column, 20, "margin", "any", 100 * eps)
             for eps in sweep.eps for column in sweep.columns]
    axes = study.plot_sweep(cells, PLAN).axes
    line = next(drawn for drawn in axes[1].lines if drawn.get_label() == "margin, any iterate")
    assert axes[1].get_title() == "7-P1" and list(line.get_xdata()) == sweep.eps
    assert list(line.get_ydata()) == [100 * eps for eps in sweep.eps]


def even(images: torch.Tensor) -> torch.Tensor:
    return images.long().flatten(1).sum(1) % 2 == 0


class Sure(nn.Module):
    """Class 0, surely where an image's pixels add up to an even number, and barely elsewhere."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        margin = torch.where(even((images * 255).round().long()), 30.0, 3.0)
        return torch.stack([margin, *[torch.zeros_like(margin)] * 9], 1)


def test_contingency_counts_image_by_image(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(models.BUILDERS, "fmnistconv", Sure)
    store = Store(tmp_path / "store")
    spec, epoch = PLAN.networks["7-P1"]
    store.save(f"{training.artefact(spec, tiny)}/epoch-{epoch:04d}", Sure().state_dict(),
               {"history": [], "seconds": 1.0, "device": "some CPU"})
    (job,) = [job for job in PLAN.jobs if (job.column, job.attack) == ("7-P1", "IFGSM")
              and job.evaluation.attack.loss == "probabilities"]
    correct = tiny.test.labels == 0
    sure = even(tiny.test.images)
    stands = torch.arange(128) % 3 > 0
    last = torch.where(stands, -1, 0).to(torch.int16)
    store.save(evaluation.artefact(job.evaluation, tiny), {"correct": correct, "any_run": last.clone(), "last_run": last},
               {"calls": 1, "seconds": 1.0, "device": "some CPU"})
    cells = {c["row"]: c for c in study.measure_contingency(PLAN, "7-P1", "IFGSM", tiny, store)}
    assert {c["n"] for c in cells.values()} == {int(correct.sum())} and 0 < sure[correct].sum() < correct.sum()
    for row, mask in (("saturated, survives", sure & stands), ("saturated, falls", sure & ~stands),
                      ("not saturated, survives", ~sure & stands), ("not saturated, falls", ~sure & ~stands)):
        assert cells[row]["value"] == pytest.approx(100 * float(mask[correct].double().mean()), abs=0.005), row
    (row,) = study.contingency_table(list(cells.values())).to_dict("records")
    agree = cells["saturated, survives"]["value"] + cells["not saturated, falls"]["value"]
    assert float(row["one predicts the other"]) == pytest.approx(agree, abs=0.006)


def test_numbers_say_which_seed_their_network_has(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(models.BUILDERS, "fmnistconv", Sure)
    store, columns = Store(tmp_path / "store"), {"7-P1": 4, "7-P1, seed 2": 6}
    jobs = [job for job in PLAN.jobs if job.column in columns and job.attack == "FGSM"]
    nobody = torch.full((128,), -1, dtype=torch.int16)
    for job in jobs:
        spec, epoch = PLAN.networks[job.column]
        store.save(f"{training.artefact(spec, tiny)}/epoch-{epoch:04d}", Sure().state_dict(),
                   {"history": [{"saturated": 50.0}], "seconds": 1.0, "device": "some CPU"})
        store.save(evaluation.artefact(job.evaluation, tiny),
                   {"correct": nobody < 0, "any_run": nobody, "last_run": nobody.clone()},
                   {"calls": 1, "seconds": 1.0, "device": "some CPU"})
    cells = report.measure(PLAN, tiny, store, jobs)
    assert {c["column"]: c["seeds"] for c in cells} == {column: [seed] for column, seed in columns.items()}
    assert all(c["seeds"] == [columns[c["column"]]] for c in cells)
    assert report.provenance(SETTINGS, PLAN, tiny, store, jobs)["seeds"] == [4, 6]


def optimizer_cells(plan: specs.Plan, values: dict[str, float], spread: tuple[float, float]) -> list[dict]:
    """Every bar of Figure 3 at the column's value, with an interval that reaches so far down and up."""
    rows = [(attack, *seen) for attack in plan.grid.attacks for seen in study.SEEN] + [(study.SATURATED, "saturated", None)]
    return [report.cell(row, column, 1, protocol, decision,
                        {"value": value, "low": value - spread[0], "high": value + spread[1], "n": 100}, 0)
            for row, protocol, decision in rows for column, value in values.items()]


def spans(axis) -> list[list[float]]:
    return [path.vertices[:, 1].tolist() for lines in axis.collections for path in lines.get_paths()]


def test_figure_3_shows_means_and_spans_over_the_seeds():
    plan = specs.Plan(specs.load_grid("figure03_optimizer"), specs.Settings(seeds=2))
    values = {"Adam": 10.0, "Adam, seed 1": 30.0, "RMSprop": 50.0, "RMSprop, seed 1": 50.0}
    axes = study.plot_optimizers(optimizer_cells(plan, values, (1, 1)), plan).axes
    assert [axis.get_title() for axis in axes] == plan.grid.attacks
    assert [label.get_text() for label in axes[0].get_xticklabels()] == ["RMSprop", "Adam"]
    assert sorted(bar.get_height() for bar in axes[0].patches) == [20.0] * 4 + [50.0] * 4
    assert spans(axes[0]).count([10.0, 30.0]) == 4 and spans(axes[0]).count([50.0, 50.0]) == 4


def test_figure_3_with_one_seed_shows_the_interval_over_the_images():
    plan = specs.Plan(specs.load_grid("figure03_optimizer"), specs.Settings(seeds=1))
    axes = study.plot_optimizers(optimizer_cells(plan, {"Adam": 40.0, "RMSprop": 40.0}, (5, 6)), plan).axes
    assert spans(axes[0]) == [[35.0, 46.0]] * 8
