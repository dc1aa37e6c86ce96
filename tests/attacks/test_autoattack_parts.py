"""The algorithms inside AutoAttack, against torchattacks' and against their definitions."""

import math

import pytest
import torch
import torchattacks
from scipy.optimize import linprog
from torch import Tensor, nn

from reprolib import streams
from reprolib.attacks import Gradients
from reprolib.attacks.autoattack import FAB, AutoPGD, Square, ranked_targets, to_plane


@pytest.fixture(scope="module")
def ten_classes() -> tuple[nn.Module, Tensor, Tensor]:
    """A network of ten classes with small steps between them, and 40 images that it classifies correctly."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10)).eval()
        images = torch.rand(40, 1, 8, 8)
    return net.requires_grad_(False), images, net(images).argmax(1)


def started(method, images: Tensor, labels: Tensor, run: int = 0) -> dict[str, Tensor]:
    ids = torch.arange(len(images))
    rows = {"image": ids, "id": ids, "run": torch.full_like(ids, run), "label": labels, "clean": images}
    method.begin(rows)
    return rows


def peer(kind, net: nn.Module, **settings):
    made = kind(net, eps=0.03, n_restarts=1, seed=7, **settings)
    made.device = "cpu"
    return made


@pytest.mark.parametrize(
    "target, steps",
    [(None, 100), (None, 30), (2, 100), (5, 100)],
)
def test_auto_pgd_takes_torchattacks_steps_from_the_same_start(ten_classes, monkeypatch, target, steps):
    net, images, labels = ten_classes
    with torch.random.fork_rng():
        torch.manual_seed(7)
        start = torch.rand(images.shape)
        torch.manual_seed(7)
        if target is None:
            theirs = peer(torchattacks.APGD, net, steps=steps, loss="ce", rho=0.75)
        else:
            theirs = peer(torchattacks.APGDT, net, steps=steps, rho=0.75, n_classes=10)
            theirs.target_class = target
        best, survives, best_loss, _ = theirs.attack_single_run(images, labels)
    monkeypatch.setattr(streams, "uniform", lambda *_: start)
    method = AutoPGD(Gradients(net), 0.03, seed=0, steps=steps, targeted=target is not None)
    rows = started(method, images, labels, run=0 if target is None else target - 2)
    fallen = torch.zeros(len(images), dtype=torch.bool)
    for step in range(steps + 1):
        _, wrong, over = method.advance(rows)
        fallen |= wrong
        assert bool(over.all()) == (step == steps)
    assert torch.equal(fallen, ~survives) and 5 < int(fallen.sum()) < 40
    # on some CPUs a pixel or two, whose gradient is nothing but rounding, take another of the last, tiny steps
    assert ((rows["best"] - best).abs() <= 1e-4).double().mean() > 0.995
    assert torch.allclose(rows["best_loss"], best_loss, rtol=1e-3)


@pytest.mark.parametrize("target", [5])
def test_fab_finds_torchattacks_distances(ten_classes, target):
    net, images, labels = ten_classes
    fab = {"alpha_max": 0.1, "eta": 1.05, "beta": 0.9}
    theirs = peer(torchattacks.FAB, net, steps=100, multi_targeted=True, n_classes=10, **fab)
    theirs.target_class = target
    expected = (theirs.attack_single_run_targeted(images, labels) - images).abs().flatten(1).amax(1)
    method = FAB(Gradients(net), 0.03)
    rows, found = started(method, images, labels, run=target - 2), torch.full((40,), torch.inf)
    over = torch.tensor(False)
    while not over.all():
        on_the_way_back = rows["came_back"]  # these points torchattacks does not look at
        judged, wrong, over = method.advance(rows)
        distance = (judged - images).abs().flatten(1).amax(1)
        nearer = (net(judged).argmax(1) != labels) & (distance < found) & ~on_the_way_back
        found = torch.where(nearer, distance, found)
        assert torch.equal(wrong, (net(judged).argmax(1) != labels) & (distance <= 0.03))
    assert torch.allclose(found, expected, atol=1e-4)


def test_the_way_to_a_plane_is_the_shortest_in_the_box():
    generator = torch.Generator().manual_seed(0)
    points, normals = torch.rand(12, 1, 4, 4, generator=generator), torch.randn(12, 1, 4, 4, generator=generator)
    offsets = torch.randn(12, generator=generator)
    normals[0] = 0.0  # a vanished gradient leads nowhere
    offsets[1] = (normals[1] * points[1]).sum()  # already there
    offsets[2] = 100.0  # out of the box's reach: as far as it goes
    moves = to_plane(points, normals, offsets)
    assert not moves[0].any() and moves[1].abs().max() < 1e-6
    corner = torch.where(normals[2] > 0, 1.0, 0.0)
    assert torch.allclose(points[2] + moves[2], corner, atol=1e-6)
    for z, w, b, move in zip(points[3:], normals[3:], offsets[3:], moves[3:], strict=True):
        z, w = z.flatten().double(), w.flatten().double()
        rows = [[sign * (i == j) for i in range(16)] + [-1] for j in range(16) for sign in (1, -1)]
        least = linprog(
            [0] * 16 + [1],
            rows,
            [0] * 32,
            [[*w.tolist(), 0]],
            [float(b) - float(w @ z)],
            [(-float(p), 1 - float(p)) for p in z] + [(0, None)],
        )
        assert least.status == 0 and abs(least.fun - float(move.abs().max())) < 1e-5
        assert abs(float((w * (z + move.flatten())).sum() - b)) < 1e-4


@pytest.mark.parametrize("side", [8, 28, 32])
def test_squares_shrink_as_torchattacks_do(side):
    theirs = torchattacks.Square(nn.Identity(), n_queries=5000, p_init=0.8, resc_schedule=False)
    expected = [max(round(math.sqrt(theirs.p_selection(i) * side * side)), 1) for i in range(5000)]
    ours = Square(Gradients(nn.Identity()), 0.1, 0)._sides(torch.arange(5000), side, side)
    assert ours.tolist() == expected


def test_a_square_is_one_colour_in_one_place(ten_classes):
    net, images, labels = ten_classes
    method = Square(Gradients(net), 0.03, seed=3)
    rows = started(method, images, labels)
    corners = (rows["x"] - images).abs()
    assert torch.all(((corners - 0.03).abs() < 1e-6) | (rows["x"] == 0) | (rows["x"] == 1)), "the start is stripes"
    rows["query"] = torch.arange(0, 4000, 100)
    (tall, wide), sides = method._squares(rows), method._sides(rows["query"], 8, 8)
    for change, side in zip(tall * wide, sides.tolist(), strict=True):
        where = change[0].nonzero()
        assert len(where) == side * side and (where.amax(0) - where.amin(0) + 1).tolist() == [side, side]
        assert change[0][change[0] != 0].unique().abs().tolist() == [pytest.approx(0.06)]


def test_square_keeps_what_lowers_the_margin(ten_classes):
    net, images, labels = ten_classes
    method = Square(Gradients(net), 0.03, seed=3)
    rows = started(method, images, labels)
    lowest = torch.full((40,), torch.inf)
    for _ in range(50):
        x = rows["x"]
        method.advance(rows)
        logits = net(x)
        margin = logits.gather(1, labels[:, None])[:, 0] - logits.scatter(1, labels[:, None], -torch.inf).amax(1)
        lowest = torch.minimum(lowest, margin)
        assert torch.allclose(rows["lowest"], lowest)
        assert (rows["x"] - images).abs().max() <= 0.03 + 1e-6 and 0 <= rows["x"].min() and rows["x"].max() <= 1


def test_targets_are_the_likeliest_wrong_classes(ten_classes):
    net, images, labels = ten_classes
    runs = torch.arange(40) % 9
    targets = ranked_targets(Gradients(net), images, runs)
    logits = net(images)
    for row in range(40):
        above = (logits[row] > logits[row, targets[row]]).sum()
        assert int(above) == int(runs[row]) + 1 and targets[row] != labels[row]
