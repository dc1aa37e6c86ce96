"""Other people's ways of running an attack: what the orders of clip and soft-max do to a sure network and to others."""

import pytest
import torch
from torch import nn

from reprolib import attacks
from reprolib.paper import plan, run
from reprolib.paper.plan import Attack, SpecError, jobs
from reprolib.paper.run import evaluate, pipelines

FGSM = Attack(name="fgsm", eps=0.1)
FIELDS = {"data": "fashion-mnist", "size": 2, "decision": "last", "loss": "probabilities"}


class Sum(nn.Module):
    """Two classes; the margin of class 0 is `scale` times the image's mean, half of it in each logit."""

    def __init__(self, scale: float):
        super().__init__()
        self.scale = scale

    def forward(self, images):
        half = self.scale * images.flatten(1).mean(1) / 2
        return torch.stack([half, -half], 1)


def refuse(*_, **__):
    raise pipelines.Refused("it wants logits")


def network() -> plan.Trained:
    return plan.load_plan("table06_fashion_mnist", "fmnistconv", "cpu").networks["undefended", 0]


def asked(**fields) -> plan.Evaluation:
    return plan.Evaluation(network=network(), attack=FGSM, **FIELDS | fields)


def moved(order: str, scale: float) -> torch.Tensor:
    """How far FGSM moves the pixels of an even grey image of class 0."""
    images, labels = torch.full((2, 1, 4, 4), 128, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)
    result = pipelines.in_order(Sum(scale), asked(order=order), images, labels)
    return (result.adversarial - images.float() / 255).unique()


@pytest.mark.parametrize("order", pipelines.ORDERS)
def test_where_the_network_is_not_sure_every_order_attacks(order):
    assert moved(order, scale=4.0).tolist() == pytest.approx([-0.1], abs=1e-6)


@pytest.mark.parametrize("order, moves", [
    ("unclipped", True), ("renormalised, then clipped", False), ("clipped, then renormalised", False),
    ("soft-max twice", True),
])  # fmt: skip
def test_where_it_is_sure_only_a_clip_stands_still(order, moves):
    """At a margin of 40 the true class's probability is 1 in float32; the other's, 4e-18, still has a gradient."""
    assert moved(order, scale=80.0).tolist() == pytest.approx([-0.1 if moves else 0.0], abs=1e-6)


def test_without_a_clip_a_probability_of_zero_leaves_the_image_where_it_is():
    """Its logarithm's gradient is not a number."""
    images, labels = torch.full((1, 1, 4, 4), 255, dtype=torch.uint8), torch.tensor([1])
    attack = Attack(name="pgd", eps=0.1, alpha=0.1, steps=2, restarts=0)
    evaluation = plan.Evaluation(network=network(), attack=attack, **FIELDS | {"order": "unclipped"})
    steps = pipelines.OrderedSteps(attack.build(Sum(300.0), "probabilities", "last", 0), "unclipped")
    rows = {"clean": images / 255, "label": labels, "id": torch.tensor([0]), "run": torch.tensor([0])}
    steps.begin(rows)
    steps.advance(rows)
    assert torch.equal(rows["x"], rows["clean"])
    assert not pipelines.in_order(Sum(300.0), evaluation, images, labels).correct.any()


def test_clipped_probabilities_of_keras_are_those_of_the_attacks():
    logits = torch.randn(50, 10, generator=torch.Generator().manual_seed(0)) * 20
    labels = torch.arange(50) % 10
    usual = attacks.loss_per_image(logits, labels, "probabilities")
    assert torch.allclose(pipelines._ClippedLoss()(logits.softmax(1), labels), usual.sum())
    renormalised = pipelines.ORDERS["renormalised, then clipped"](logits.softmax(1), labels)
    assert torch.allclose(renormalised, usual, atol=3e-7)


def test_torchattacks_autoattack_finds_what_ours_finds_on_a_network_that_nothing_protects():
    generator = torch.Generator().manual_seed(3)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    net[1].weight.data = torch.randn(10, 64, generator=generator)
    images = torch.randint(0, 256, (8, 1, 8, 8), generator=generator, dtype=torch.uint8)
    labels = net(images / 255).argmax(1)
    attack = Attack(name="autoattack", eps=0.3)
    fields = FIELDS | {"loss": "logits", "decision": "any", "engine": "torchattacks"}
    evaluation = plan.Evaluation(network=network(), attack=attack, **fields)
    before = torch.get_rng_state()
    result = pipelines.by_torchattacks(net, evaluation, images, labels)
    assert torch.equal(torch.get_rng_state(), before)
    assert (result.adversarial - images / 255).abs().max() <= 0.3 + 1e-6
    assert result.correct.all() and not result.robust().any()
    assert not attacks.autoattack(net, 0.3).run(images.float() / 255, labels).robust().any()


def test_images_come_back_from_a_file_with_8_bits():
    images = torch.tensor([0.0, 0.5, 1.0, 0.1234]).view(1, 1, 2, 2)
    saved = (images * 255).round().to(torch.uint8)
    assert torch.equal(evaluate.rounded(images), saved.float() / 255)


@pytest.mark.parametrize("fields, words", [
    ({"bits": 8}, "bits are 8 without a source"),
    ({"order": "unclipped", "loss": "logits"}, "order is 'unclipped' with loss 'logits'"),
])  # fmt: skip
def test_an_evaluation_that_cannot_be(fields, words):
    with pytest.raises(SpecError, match=words):
        asked(**fields)


def test_readings_are_computed_apart_and_old_evaluations_keep_their_content():
    assert not {"order", "bits", "engine"} & asked().content().keys()
    crafted = asked(bits=8, source=network()).crafting()
    assert crafted == asked(), "images are saved after they were made"


def test_without_art_its_rows_are_skipped_and_the_plan_says_so(monkeypatch):
    found = {}
    for has in (True, False):
        monkeypatch.setattr(jobs, "_has_art", lambda has=has: has)
        planned = plan.load_plan("pipelines", "fmnistconv", "quick")
        found[has] = planned.skipped.keys(), {job.row for job in planned.jobs}
    rows = set(plan.load_table("pipelines")["fmnistconv"].rows)
    by_art = {name for name in rows if "ART" in name}
    assert len(by_art) == 8 and found == {True: (set(), rows), False: (by_art, rows - by_art)}


def test_what_a_library_refuses_is_said_and_has_no_number(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(pipelines, "by_torchattacks", refuse)
    page = plan.load_table("pipelines")["fmnistconv"]
    rows = {name: page.rows[name] for name in ("FGSM", "torchattacks' AutoAttack")}
    amounts = plan.load_plan("pipelines", "fmnistconv", "quick").amounts
    planned = plan.Plan(page.model_copy(update={"rows": rows, "shown": ["7-P1"]}), amounts, "quick")
    made = run.Page(planned, store=run.Store(tmp_path), dataset=tiny)
    made.compute(progress=False)
    assert run.provenance(made)["refused"] == {"torchattacks' AutoAttack": "it wants logits"}
    assert {cell.row for cell in run.measure(made) if cell.quantity == "accuracy"} == {"Clean", "FGSM", "All attacks"}
