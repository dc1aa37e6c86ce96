"""Manifold Mixup, Random Erasing, Hidden Space and L2L-DA: what each does, worked out by other means."""

import random
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from conftest import toy_task
from defenses.small import EPS, Linear, batch_of, started, two_classes
from small_networks import Small, Spy, new, same
from torch import nn

from reprolib import defenses, networks
from reprolib.defenses import l2l_da, manifold_mixup, random_erasing
from reprolib.training import Batch, Run

# --- Manifold Mixup ---------------------------------------------------------------------------------------------------


class Recorder(nn.Module):
    """Passes on what it gets, and keeps it."""

    def forward(self, x):
        self.last = x.detach().clone()
        return x


def three_stages(between: Callable[[], nn.Module]) -> nn.Module:
    """What is mixed is the input of one of the recorders, which stand at the beginning of stages."""
    stage = [between(), nn.AvgPool2d(2), Recorder()]
    layers = [Recorder(), nn.Conv2d(1, 4, 5), *stage, nn.Conv2d(4, 4, 3), between(), nn.AvgPool2d(2), Recorder()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * 25, 10))


def losses(tiny, defence, between, steps: int) -> list[float]:
    run = started(new(lambda: three_stages(between)), defence, tiny.train.images, tiny.train.labels)
    images, labels, found = tiny.train.images[:30].float() / 255, tiny.train.labels[:30], []
    for run.batch in range(steps):
        found.append(float(run.defence.loss(run, images, labels).detach()))
    return found


def test_where_a_network_is_linear_mixing_hidden_states_is_mixing_images(tiny):
    """Up to the mixed layer; so Manifold Mixup's loss is Mixup's, whichever layer is drawn, and else it is not."""
    for between, equal in ((nn.Identity, 24), (nn.ReLU, None)):
        hidden, plain = (
            np.array(losses(tiny, defence, between, 24)) for defence in (defenses.ManifoldMixup(), defenses.Mixup(2.0))
        )
        close = np.isclose(hidden, plain, rtol=1e-4)
        assert close.sum() == equal if equal else 0 < close.sum() < 24, "the images themselves are mixed now and then"


def test_manifold_mixup_mixes_in_one_of_three_places_at_even_odds(tiny):
    run = started(new(lambda: three_stages(nn.ReLU)), defenses.ManifoldMixup(0.7), tiny.train.images, tiny.train.labels)
    images, labels = tiny.train.images[:30].float() / 255, tiny.train.labels[:30]
    recorders = [module for module in run.model if isinstance(module, Recorder)]
    run.model(images)
    clean = [recorder.last for recorder in recorders]
    places, shares = [], []
    for run.batch in range(300):
        loss, drawn = run.defence.loss(run, images, labels).detach(), run.step_random()
        share, other = drawn.beta(0.7, 0.7), torch.from_numpy(drawn.permutation(30))
        mixed = [share * c + (1 - share) * c[other] for c in clean]
        found = [torch.allclose(r.last, m, atol=1e-5) for r, m in zip(recorders, mixed, strict=True)]
        place = found.index(True)
        assert all(torch.equal(r.last, c) for r, c in zip(recorders[:place], clean[:place], strict=True))
        places.append(place)
        shares.append(share)
        log = run.model[-2:](recorders[-1].last).log_softmax(1)
        expected = share * F.nll_loss(log, labels) + (1 - share) * F.nll_loss(log, labels[other])
        assert float(loss) == pytest.approx(float(expected.detach()), abs=1e-5)
    assert scipy.stats.chisquare(np.bincount(places, minlength=3)).pvalue > 0.01
    assert scipy.stats.kstest(shares, "beta", args=(0.7, 0.7)).pvalue > 0.01


@pytest.mark.parametrize("name, width, second, third", [
    ("vgg16", 0.25, (16, 16, 16), (32, 8, 8)),  # after the first and the second pooling layer
    ("cifarconv", 1.0, (32, 15, 15), (64, 7, 7)),
    ("fmnistconv", 1.0, (64, 14, 14), (128, 5, 5)),  # which has no pooling layer
    ("resnet20", 1.0, (16, 32, 32), (32, 16, 16)),
    ("resnet50", 0.25, (64, 32, 32), (128, 16, 16)),
    ("wide-resnet-16-4", 0.25, (16, 32, 32), (32, 16, 16)),
])  # fmt: skip
def test_stages_of_the_papers_networks(name, width, second, third):
    model = networks.build(name, width=width)
    shapes = []
    for module in manifold_mixup.stages(model):
        module.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape[1:])))
    with torch.no_grad():
        model(torch.zeros(1, 1, 28, 28) if name == "fmnistconv" else torch.zeros(1, 3, 32, 32))
    assert shapes == [second, third]


def test_manifold_mixup_of_a_network_without_stages(tiny):
    with pytest.raises(ValueError, match="Spy has no second stage .*; use Mixup"):
        started(new(Spy), defenses.ManifoldMixup(), tiny.train.images, tiny.train.labels)


# --- Random Erasing ---------------------------------------------------------------------------------------------------


def published_rectangle(height: int, width: int, source: random.Random) -> tuple[int, int, int, int]:
    """Top, left, height and width by the paper's Algorithm 1, with as many tries as it takes."""
    while True:
        area, aspect = source.uniform(0.02, 0.4) * height * width, source.uniform(0.3, 1 / 0.3)
        tall, wide = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if tall < height and wide < width:
            return source.randint(0, height - tall), source.randint(0, width - wide), tall, wide


@pytest.mark.parametrize("height, width", [(32, 32), (28, 40)])
def test_random_erasings_rectangles_are_distributed_as_published(height, width):
    inside = random_erasing.rectangles(3, torch.arange(4000), height, width)
    erased = inside[inside.any((1, 2))]
    assert scipy.stats.binomtest(len(erased), 4000, 0.5).pvalue > 0.01
    rows, columns = erased.any(2), erased.any(1)
    tall, wide = rows.sum(1), columns.sum(1)
    assert torch.equal(erased.sum((1, 2)), tall * wide), "a rectangle, without holes"
    assert torch.equal(erased, rows[:, :, None] & columns[:, None])
    top, left = rows.int().argmax(1), columns.int().argmax(1)
    assert all(rows[i, t : t + h].all() for i, (t, h) in enumerate(zip(top, tall, strict=True)))
    source = random.Random(1)
    expected = np.array([published_rectangle(height, width, source) for _ in range(len(erased))]).T
    for found, other in zip((top, left, tall, wide), expected, strict=True):
        assert scipy.stats.ks_2samp(found.numpy(), other).pvalue > 0.01
    assert scipy.stats.ks_2samp((tall * wide).numpy(), expected[2] * expected[3]).pvalue > 0.01


def test_random_erasing_fills_with_the_training_sets_mean_colour_and_keeps_the_rest():
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (60, 3, 32, 32), generator=generator).to(torch.uint8)
    images[:, 1] //= 2
    images[40:] = 0  # the mean is the whole training set's, not the batch's
    run = started(new(lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))), defenses.RandomErasing(), images,
                  torch.zeros(60, dtype=torch.int64))  # fmt: skip
    batch = batch_of(run, list(range(40)))
    shown, clean = run.defence.images(run, batch), batch.images.float() / 255
    mean = images.double().mean((0, 2, 3)) / 255
    changed = (shown != clean).any(1)
    inside = random_erasing.rectangles(run.step_seed(), batch.rows, 32, 32)
    assert torch.equal(changed | inside, inside) and changed.sum() > 0.95 * inside.sum() > 0
    filled = shown.permute(0, 2, 3, 1)[inside]
    assert torch.allclose(filled.double(), mean.expand_as(filled), atol=1e-6)
    run.batch += 1
    assert not torch.equal(run.defence.images(run, batch), shown), "anew in each step"


# --- Hidden Space -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, width", [("vgg16", 0.25), ("fmnistconv", 1.0), ("cifarconv-empir", 1.0)])
def test_hidden_spaces_network_has_1024_units_more_and_answers_as_before(name, width):
    given = networks.build(name, seed=2, width=width)
    before = {k: v.clone() for k, v in given.state_dict().items()}
    network = defenses.HiddenSpace().network(given)
    images = torch.rand(8, *((1, 28, 28) if name == "fmnistconv" else (3, 32, 32)))
    with torch.no_grad():
        assert torch.allclose(network(images), given(images), atol=1e-5)
    *_, first, second = [module for module in network.modules() if isinstance(module, nn.Linear)]
    assert first.out_features == second.in_features == 1024 and second.out_features == 10
    assert same(given.state_dict(), before) and network is not given


def features_of(model: nn.Module, images: torch.Tensor) -> list[np.ndarray]:
    """What goes into the last two layers of a `Small`, float64."""
    with torch.no_grad():
        pooled = model.layers[:-1](images)
        return [pooled.double().numpy(), model.layers[-1][0](pooled).double().numpy()]


def hidden(tiny, **recipe) -> tuple[Run, Batch]:
    run = started(new(Small), defenses.HiddenSpace(), tiny.train.images, tiny.train.labels, **recipe)
    return run, batch_of(run, list(range(50)))


def test_hidden_spaces_loss_is_cross_entropy_and_distances_from_prototypes(tiny):
    run, batch = hidden(tiny)
    images, labels = batch.images.float() / 255, batch.labels.numpy()
    loss = run.defence.loss(run, images, batch.labels)
    expected = float(F.cross_entropy(run.model(images), batch.labels).detach())
    for number, found in enumerate(features_of(run.model, images)):
        own, other = (run.memory[f"{kind}.{number}"].double().numpy() for kind in ("own", "other"))
        assert own.shape == other.shape == (10, found.shape[1]) and not np.array_equal(own, other)
        near = [np.sum((f - own[label]) ** 2) for f, label in zip(found, labels, strict=True)]
        far = [
            np.sum((f - other[k]) ** 2)
            for f, label in zip(found, labels, strict=True) for k in range(10) if k != label
        ]  # fmt: skip
        expected += np.mean(near) - 1e-4 * np.mean(far)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)


def test_hidden_spaces_prototypes_move_by_their_own_rates(tiny):
    """Those of the class towards its features, the others away from the features of other classes."""
    run, batch = hidden(tiny)
    found, labels = features_of(run.model, batch.images.float() / 255), batch.labels.numpy()
    before = {name: table.double().numpy().copy() for name, table in run.memory.items()}
    run.defence.step(run, batch)
    for number, f in enumerate(found):
        own, other = before[f"own.{number}"], before[f"other.{number}"]
        pull, push = np.zeros_like(own), np.zeros_like(other)
        for vector, label in zip(f, labels, strict=True):
            pull[label] += 2 * (own[label] - vector) / 50
            for k in set(range(10)) - {label}:
                push[k] += 2 * (other[k] - vector) / (50 * 9)
        after = {kind: run.memory[f"{kind}.{number}"].detach().double().numpy() for kind in ("own", "other")}
        np.testing.assert_allclose(after["own"], own - 0.5 * pull, atol=1e-5)
        # a step is small beside float32's rounding of a prototype, but not the sum of all steps in their direction
        moved = ((after["other"] - other) * np.sign(push)).sum(1)
        np.testing.assert_allclose(moved, 1e-4 * np.abs(push).sum(1), rtol=0.02)


def test_hidden_spaces_prototypes_become_the_means_of_their_classes(tiny):
    run, batch = hidden(tiny, lr=1e-12)  # the network stays as it is
    for _ in range(150):
        run.defence.step(run, batch)
    for number, found in enumerate(features_of(run.model, batch.images.float() / 255)):
        for label in set(batch.labels.tolist()):
            mean = found[batch.labels.numpy() == label].mean(0)
            np.testing.assert_allclose(run.memory[f"own.{number}"][label].detach().numpy(), mean, atol=1e-2)


def test_a_network_of_hidden_space_is_made_again_from_its_architecture_and_its_weights(tiny):
    run, batch = hidden(tiny)
    run.defence.step(run, batch)
    again = defenses.HiddenSpace().network(new(Small, seed=9))
    again.load_state_dict(run.model.state_dict())
    with torch.no_grad():
        assert torch.equal(again(batch.images.float() / 255), run.model(batch.images.float() / 255))


def test_hidden_space_of_a_network_without_a_linear_layer(tiny):
    network = nn.Sequential(nn.Conv2d(1, 10, 28), nn.Flatten())
    with pytest.raises(ValueError, match="Sequential has no linear layer"):
        started(network, defenses.HiddenSpace(), tiny.train.images, tiny.train.labels)


# --- L2L-DA -----------------------------------------------------------------------------------------------------------


def test_l2l_da_trains_on_images_and_two_perturbations_of_each_in_the_ball():
    run = started(new(Linear), defenses.L2LDA(EPS, steps=8, width=4), *two_classes())
    run.memory["weight.last.weight"] *= 1e4  # as a generator whose steps are as long as they can be
    batch = batch_of(run, list(range(20)))
    model = new(Linear)
    loss = run.defence.step(run, batch)
    (shown,) = run.model.shown
    clean, one, other = shown.split(20)
    assert torch.equal(clean, batch.images.float() / 255) and not torch.equal(one, other)
    for images in (one, other):
        assert (images - clean).abs().max() <= EPS + 1e-6 and images.min() >= 0 and images.max() <= 1
    assert (one - clean).abs().max() > 0.5 * EPS, "and in several steps of a quarter of the radius"
    expected = F.cross_entropy(model.fc(shown.flatten(1)), batch.labels.repeat(3))
    assert float(loss) == pytest.approx(float(expected.detach()), abs=1e-6) and not loss.requires_grad


def test_l2l_das_generator_sees_its_own_last_perturbation_and_the_gradient_there(monkeypatch):
    calls, forward = [], l2l_da.Generator.forward

    def spied(self, seen, labels, noise):
        made = forward(self, seen, labels, noise)
        calls.append((seen.detach(), labels, noise, made.detach()))
        return made

    monkeypatch.setattr(l2l_da.Generator, "forward", spied)
    run = started(new(Linear), defenses.L2LDA(EPS, steps=6, width=4), *two_classes())
    run.memory["weight.last.weight"] *= 1e4
    batch = batch_of(run, list(range(20)))
    weight = run.model.fc.weight.detach().clone()
    run.defence.step(run, batch)
    labels = batch.labels.repeat(2)
    # the loss of a linear network climbs towards the other class, whatever the image
    climb = F.normalize(weight[1 - labels] - weight[labels], dim=1).view(-1, 1, 1, 4, 4)
    delta = torch.zeros(40, 1, 4, 4)
    assert len(calls) == 6
    for seen, asked, noise, made in calls:
        assert torch.equal(seen[:, :1], batch.images.repeat(2, 1, 1, 1).float() / 255)
        assert torch.allclose(seen[:, 1:2], climb[:, 0], atol=1e-5)
        assert torch.allclose(seen[:, 2:], delta, atol=1e-6)
        assert torch.equal(asked, labels) and torch.equal(noise, calls[0][2]), "one noise for all steps"
        delta = (delta + 0.25 * EPS * made).clamp(-EPS, EPS)
    noise = torch.cat([call[2] for call in calls[:1]]).flatten()
    assert scipy.stats.kstest(noise.numpy(), "norm").pvalue > 0.01
    assert torch.equal(run.model.shown[0][20:], (calls[0][0][:, :1] + delta).clamp(0, 1))


class Frozen(nn.Module):
    """A trained network that stays as it is, and something that is trained instead."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network, self.unused = network, nn.Parameter(torch.zeros(()))

    def forward(self, images):
        return self.network(images) + 0 * self.unused


@pytest.fixture
def fixed(brittle):
    images, labels = toy_task(600, seed=4)
    for parameter in brittle.parameters():
        parameter.requires_grad_(False)
    yield Frozen(brittle), (images * 255).to(torch.uint8), labels
    for parameter in brittle.parameters():
        parameter.requires_grad_(True)


def trained_generator(fixed, steps: int) -> tuple[float, float]:
    """After so many steps: the loss of perturbed images, and how far two perturbations of an image are apart."""
    model, images, labels = fixed
    run = started(model, defenses.L2LDA(EPS, steps=3, width=8), images, labels)
    for run.batch in range(steps):
        run.defence.step(run, batch_of(run, [(60 * run.batch + i) % 600 for i in range(60)]))
    run.batch = 10**6
    batch = batch_of(run, list(range(200)))
    shown = run.defence._perturbed(run, batch, batch.images.float() / 255)
    one, other = shown.chunk(2)
    with torch.no_grad():
        return float(F.cross_entropy(model(shown), batch.labels.repeat(2))), float((one - other).abs().mean())


@pytest.mark.slow
def test_l2l_das_generator_learns_to_raise_the_loss(fixed):
    model, images, labels = fixed
    with torch.no_grad():
        clean = float(F.cross_entropy(model(images[:200].float() / 255), labels[:200]))
    (untrained, _), (trained, _) = (trained_generator(fixed, steps) for steps in (0, 60))
    assert trained - clean > 3 * max(untrained - clean, 0) and trained > 1.5 * clean


@pytest.mark.slow
def test_l2l_das_generator_learns_to_do_so_in_different_ways(fixed, monkeypatch):
    apart = []
    for weight in (0.0, 50.0):
        monkeypatch.setattr(l2l_da, "DIVERSITY", weight)
        apart.append(trained_generator(fixed, 40)[1])
    assert apart[1] > 2 * apart[0]


def test_l2l_das_generator_descends_as_torchs_optimiser():
    run = started(new(Linear), defenses.L2LDA(EPS, steps=1, width=4), *two_classes())
    weights = {name.removeprefix("weight."): run.memory[name] for name in run.memory if name.startswith("weight.")}
    theirs = {name: nn.Parameter(weight.clone()) for name, weight in weights.items()}
    optimizer = torch.optim.SGD(theirs.values(), lr=0.01, momentum=0.9, weight_decay=1e-5)
    generator = torch.Generator().manual_seed(0)
    for scale in (1e-3, 1.0, 1.0):  # the first gradient is not cut
        for name, weight in weights.items():
            theirs[name].grad = scale * torch.randn(weight.shape, generator=generator)
            weight.grad = theirs[name].grad.clone()
        l2l_da._descend(run, weights)
        nn.utils.clip_grad_norm_(theirs.values(), 1.0)
        optimizer.step()
    assert all(torch.allclose(weights[name], theirs[name].detach(), atol=1e-7) for name in weights)


def test_l2l_da_cuts_the_classifiers_gradient():
    """A step of Nesterov's descent from rest is 1.9 times the gradient."""
    images, labels = two_classes()
    model = new(Linear)
    with torch.no_grad():
        model.fc.weight *= 100  # so that it is wrong with certainty, and its gradient long
    run = started(model, defenses.L2LDA(EPS, steps=1, width=4), images, labels)
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    run.defence.step(run, batch_of(run, list(range(40))))
    moved = torch.cat([p.detach().flatten() for p in model.parameters()]) - before
    assert float(moved.norm()) == pytest.approx(0.01 * 1.9, rel=1e-3)


def test_l2l_da_of_images_that_cannot_be_halved_twice():
    images = torch.zeros(4, 1, 30, 30, dtype=torch.uint8)
    network = nn.Sequential(nn.Flatten(), nn.Linear(900, 10))
    with pytest.raises(ValueError, match="images have 30x30 pixels; expected multiples of 4"):
        started(network, defenses.L2LDA(EPS), images, torch.zeros(4, dtype=torch.int64))
