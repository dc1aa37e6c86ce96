"""What distinguishes EMPIR-AT's members and Renofeation's student, shown where it can be worked out by other means."""

import pytest
import torch
import torch.nn.functional as F
from small_networks import Normalised, Small, new, same
from torch import nn

from reprolib import attacks, defenses, training
from reprolib.defenses.renofeat import Student, features, stages
from reprolib.networks.cpu.folding import folded
from reprolib.networks.layers import seeded
from reprolib.networks.quantized import quantized
from reprolib.training import Batch, Recipe, Run


def started(model: nn.Module, defence, split, **recipe) -> Run:
    usual = {"optimizer": "sgd", "lr": 0.05, "batch_size": 30}
    return Run(model, split.images[:70], split.labels[:70], defence, Recipe(**usual | recipe), 5, None)


def batch_of(run: Run, rows: list[int]) -> Batch:
    chosen = torch.tensor(rows)
    return Batch(run.images[chosen], run.labels[chosen], chosen, torch.zeros(len(rows), dtype=torch.bool))


def fit(model: nn.Module, defence, split, epochs: int = 3, **options) -> Run:
    recipe = Recipe(optimizer="sgd", lr=0.005, batch_size=30)
    return training.fit(
        model, split.images[:70], split.labels[:70], defence, recipe, epochs=epochs, progress=False, **options
    )


# --- Quantised AT -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [(4, 2), (32, 32)])
def test_half_of_the_loss_is_of_clean_images_and_half_of_pgds(bits, tiny):
    run = started(new(), defenses.QuantisedAT(*bits, eps=0.1, alpha=0.03, steps=3), tiny.train, label_smoothing=0.1)
    batch = batch_of(run, [9, 3, 20, 17, 5])
    clean = batch.images.float() / 255
    shown = defenses.PGDAT(0.1, 0.03, 3).images(run, batch)
    assert not torch.equal(shown, clean)
    network = quantized(new(), *bits)
    halves = [F.cross_entropy(network(some), batch.labels, label_smoothing=0.1) for some in (clean, shown)]
    expected = (halves[0] + halves[1]) / 2
    loss = run.defence.step(run, batch)
    torch.testing.assert_close(loss, expected.detach())
    assert halves[1] > halves[0]


def test_pgd_is_made_on_the_quantised_network(tiny):
    """What another network's gradient finds is other images."""
    run = started(new(), defenses.QuantisedAT(2, 2, eps=0.1, alpha=0.03, steps=3), tiny.train)
    batch = batch_of(run, list(range(20)))
    images = run.defence.images(run, batch)
    plain = started(new(), defenses.PGDAT(0.1, 0.03, 3), tiny.train)
    assert torch.equal(images[:20], batch.images.float() / 255)
    assert not torch.equal(images[20:], plain.defence.images(plain, batch))


def test_without_room_for_an_attack_it_is_the_member_of_empir(tiny):
    """Both halves are then the clean images."""
    member = fit(new(), defenses.Quantised(2, 2), tiny.train).model.state_dict()
    trained = fit(new(), defenses.QuantisedAT(2, 2, eps=0.0, alpha=0.0, steps=0), tiny.train).model.state_dict()
    assert all(torch.allclose(trained[name], member[name], atol=1e-5) for name in member)


def test_it_withstands_more_than_the_member_of_empir(tiny):
    images, labels = tiny.test.images.float() / 255, tiny.test.labels
    left = []
    for defence in (defenses.Quantised(4, 2), defenses.QuantisedAT(4, 2, eps=0.1, alpha=0.03, steps=4)):
        recipe = Recipe(lr=3e-3, batch_size=60)
        run = training.fit(new(), tiny.train.images, tiny.train.labels, defence, recipe, epochs=6, progress=False)
        attack = attacks.pgd(run.model, 0.1, 0.02, 10, restarts=1)
        left.append(int(attack.run(images, labels).robust().sum()))
    assert left[1] > left[0]


# --- Renofeation ------------------------------------------------------------------------------------------------------

TEACHER = 3


def teacher() -> nn.Module:
    return new(seed=TEACHER)


def test_the_student_has_weights_of_its_own_and_the_teacher_stays_as_it_was(tiny):
    given = teacher()
    run = started(given, defenses.Renofeat(average_from=1), tiny.train)
    first, wanted = run.model.network.state_dict(), teacher().state_dict()
    assert not any(torch.equal(first[name], wanted[name]) for name in wanted), "re-initialised"
    run.model.train()
    for _ in range(3):
        run.defence.step(run, batch_of(run, list(range(30))))
    assert same(run.model.teacher.state_dict(), wanted) and same(given.state_dict(), wanted), "frozen"
    assert not run.model.teacher.training and not any(p.requires_grad for p in run.model.teacher.parameters())
    assert not any("teacher" in name for name in run.model.state_dict()), "which is no part of the student"


def test_the_students_first_weights_are_the_seeds_and_not_the_teachers(tiny):
    def first(seed: int, of: int) -> dict:
        defence, split = defenses.Renofeat(average_from=1), tiny.train
        return Run(new(seed=of), split.images, split.labels, defence, Recipe(), seed, None).model.network.state_dict()

    assert same(first(5, 0), first(5, 1)) and not same(first(5, 0), first(6, 0))


def by_hand(run: Run, batch: Batch, weight: float) -> torch.Tensor:
    """The loss without dropout: cross-entropy, features of both convolutions, the last layer's weights."""
    student, images = run.model, batch.images.float() / 255
    layers, of_teacher = student.network.layers, student.teacher.layers
    expected = F.cross_entropy(layers(images), batch.labels) + 1e-2 * layers[5].weight.square().sum()
    for adapter, end in zip(student.adapters, (1, 3), strict=True):
        expected = expected + weight * (adapter(layers[:end](images)) - of_teacher[:end](images)).square().mean()
    return expected


@pytest.mark.parametrize("weight", [0.0, 5.0])
def test_the_loss_by_hand(weight, tiny, monkeypatch):
    run = started(teacher(), defenses.Renofeat(average_from=1, feature_weight=weight), tiny.train)
    run.model.train()
    batch = batch_of(run, list(range(20)))
    monkeypatch.setattr("reprolib.defenses.renofeat.DROPPED", 0.0)
    expected = by_hand(run, batch, weight)
    loss = run.defence.loss(run, batch.images.float() / 255, batch.labels)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    adapters = [parameter.grad for parameter in run.model.adapters.parameters()]
    assert all(gradient.any() for gradient in adapters) == (weight > 0)
    assert all(parameter.grad.any() for parameter in run.model.network.parameters())


def test_a_tenth_of_the_students_channels_is_dropped_whole_and_none_of_the_teachers():
    network, images = seeded(lambda: nn.Sequential(nn.Conv2d(1, 200, 3), nn.Identity()), 1), torch.rand(50, 1, 6, 6)
    with features(network) as found:
        whole = network(images)
    assert torch.equal(found[0], whole)
    with features(network, seed=7) as found:
        dropped = network(images)
    assert torch.equal(found[0], whole), "what is compared is before it"
    gone = (dropped == 0).flatten(2).all(2)
    assert 0.09 < float(gone.float().mean()) < 0.11  # 10 000 channels: three standard deviations
    torch.testing.assert_close(dropped[~gone], whole[~gone] / 0.9)
    with features(network, seed=8):
        assert not torch.equal(network(images), dropped)
    assert torch.equal(network(images), whole), "outside, nothing is"


@pytest.mark.parametrize("convolutions, ends", [(1, [1]), (3, [1, 2, 3]), (4, [1, 2, 3, 4]), (13, [4, 7, 10, 13])])
def test_stages_end_at_each_quarter_of_the_convolutions(convolutions, ends):
    layers = [nn.Conv2d(1, 1, 1) for _ in range(convolutions)]
    assert stages(nn.Sequential(*layers)) == [layers[end - 1] for end in ends]


def test_in_eval_mode_it_answers_with_the_average_of_the_last_epochs_weights(tiny):
    kept = []

    def keep(run: Run) -> None:
        if run.batch == 0:
            kept.append({name: value.clone() for name, value in run.model.network.state_dict().items()})

    run = fit(teacher(), defenses.Renofeat(average_from=2), tiny.train, epochs=5, save=keep)
    mean = {name: torch.stack([state[name] for state in kept[2:]]).mean(0) for name in kept[0]}
    network, images = new(), tiny.test.images[:30].float() / 255
    network.load_state_dict(mean)
    torch.testing.assert_close(run.model(images), network(images))
    network.load_state_dict(kept[-1])
    assert not torch.allclose(run.model(images), network(images), atol=1e-3)
    early = fit(teacher(), defenses.Renofeat(average_from=2), tiny.train, epochs=2).model
    network.load_state_dict(early.network.state_dict())
    assert torch.equal(early(images), network(images)), "before that it is the student itself"


def test_the_average_has_statistics_of_its_own_which_attacks_fold_away(tiny):
    run = fit(new(Normalised, seed=TEACHER), defenses.Renofeat(average_from=1), tiny.train, epochs=3)
    averaged = run.model.averaged.module
    shown = run.images.float() / 255
    with torch.no_grad():
        maps = averaged.features[0](averaged.normalize(shown))
    batches = [part.mean((0, 2, 3)) for part in maps.split(30)]
    torch.testing.assert_close(averaged.features[1].running_mean, torch.stack(batches).mean(0))
    other, images = folded(run.model), tiny.test.images[:20].float() / 255
    torch.testing.assert_close(other(images), run.model(images), atol=1e-4, rtol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in other.modules())


def test_an_attack_made_on_the_teacher_breaks_fewer_of_the_student_than_of_a_fine_tuned_copy(tiny):
    """The transfer that the method is made against, with PGD of 20 steps."""
    split, images, labels = tiny.train, tiny.test.images.float() / 255, tiny.test.labels
    recipe = Recipe(lr=3e-3, batch_size=60)

    def trained(model: nn.Module, defence, epochs: int, seed: int) -> nn.Module:
        return training.fit(
            model, split.images, split.labels, defence, recipe, epochs=epochs, seed=seed, progress=False
        ).model

    old = trained(new(), None, 8, 0)
    attack = attacks.pgd(old, 0.2, 0.02, 20, restarts=1, loss="logits", decision="last")
    left = {}
    for name, defence, epochs in (("student", defenses.Renofeat(average_from=12), 20), ("copy", None, 8)):
        model = new(Small)
        model.load_state_dict(old.state_dict())
        left[name] = int(attacks.transfer(trained(model, defence, epochs, 1), attack, images, labels).sum())
    assert left["student"] > left["copy"]


def test_a_student_can_be_loaded_without_its_teacher(tiny):
    run = fit(teacher(), defenses.Renofeat(average_from=1), tiny.train)
    other, images = Student(new(seed=9)), tiny.test.images[:10].float() / 255
    other.load_state_dict(run.model.state_dict())
    assert torch.equal(other.eval()(images), run.model(images))


def test_a_network_that_does_not_end_in_a_linear_layer():
    with pytest.raises(ValueError, match="Sequential has no linear layer; Renofeat takes networks with both"):
        Student(nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten()))
