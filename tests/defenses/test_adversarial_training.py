"""What distinguishes each kind of adversarial training, shown where it can be worked out by other means."""

import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from defenses.small import EPS, Linear, batch_of, started, two_classes
from small_networks import Normalised, Spy, new
from torch import nn

from reprolib import attacks, defenses, networks
from reprolib.defenses import pgd_at


def test_pgd_at_trains_on_the_worst_images_of_the_ball():
    images, labels = two_classes()
    run = started(new(Linear), defenses.PGDAT(eps=EPS, alpha=0.05, steps=10), images, labels)
    batch = batch_of(run, list(range(40)))
    worst = run.model.worst(images.float() / 255, labels, EPS)  # of the weights before the step
    loss = run.defence.step(run, batch)
    (shown,) = run.model.shown
    assert torch.allclose(shown, worst, atol=1e-6)
    with torch.no_grad():
        clean = F.cross_entropy(new(Linear)(images.float() / 255), labels)
    assert loss > clean and not loss.requires_grad


@pytest.mark.parametrize("defence, make, restarts", [
    (defenses.PGDAT(EPS, 0.03, 3), attacks.pgd, 1),
    (defenses.FastAT(EPS, 0.125), attacks.pgd, 1),
    (defenses.IFGSMAT(EPS, 0.03, 3), attacks.pgd, 0),
    (defenses.FGSMAT(EPS), attacks.fgsm, None),
], ids=lambda value: type(value).__name__)  # fmt: skip
def test_the_images_are_the_attacks_and_lie_in_the_ball(tiny, defence, make, restarts):
    run = started(new(), defence, tiny.train.images, tiny.train.labels)
    batch = batch_of(run, [9, 3, 200, 17])
    clean = batch.images.float() / 255
    numbers = (
        {}
        if restarts is None
        else {"alpha": defence.alpha, "steps": getattr(defence, "steps", 1), "restarts": restarts}
    )
    attack = make(run.model, EPS, **numbers, loss="logits", decision="last", seed=run.step_seed())
    answers = run.model(clean).argmax(1)  # an attack that judges leaves alone what is wrong from the start
    batch.labels.copy_(answers)
    found = defence.images(run, batch)
    assert torch.equal(found, attack.run(clean, answers, batch.rows).adversarial)
    assert (found - clean).abs().max() <= EPS + 1e-6 and found.min() >= 0 and found.max() <= 1
    assert run.model.training and all(p.requires_grad for p in run.model.parameters()), "it goes on training"


@pytest.mark.parametrize("fast", [False, True])
def test_the_search_calculates_as_training_does(tiny, fast, monkeypatch):
    """In bfloat16 where that is faster, and nowhere else."""
    monkeypatch.setattr(pgd_at, "has_fast_bfloat16", lambda device: fast)
    run = started(new(), defenses.PGDAT(EPS, 0.03, 3), tiny.train.images, tiny.train.labels)
    types = []
    run.model.layers[0].register_forward_hook(lambda layer, images, output: types.append(output.dtype))
    found = run.defence.images(run, batch_of(run, [1, 2, 3]))
    assert types == [torch.bfloat16 if fast else torch.float32] * 3 and found.dtype == torch.float32


def test_pgd_at_starts_anew_at_random_in_each_step(tiny):
    """Without a step, what is left of the attack is its start."""
    defence = defenses.PGDAT(eps=EPS, alpha=0.0, steps=0)
    run = started(new(), defence, tiny.train.images, tiny.train.labels)
    batch = batch_of(run, list(range(50)))
    first = defence.images(run, batch)
    run.batch += 1
    second = defence.images(run, batch)
    inside = (batch.images >= 26) & (batch.images <= 229)  # whose ball is nowhere clipped
    moved = ((first - batch.images.float() / 255) / EPS)[inside]
    assert scipy.stats.kstest(moved.numpy()[::7], "uniform", args=(-1, 2)).pvalue > 0.01
    assert not torch.equal(first, second)


def test_pgd_at_leaves_batch_statistics_to_the_training(tiny):
    """While the attack looks for images, batch normalisation is in eval mode: its statistics are those of one pass."""
    run = started(new(Normalised), defenses.PGDAT(eps=EPS, alpha=0.03, steps=3), tiny.train.images, tiny.train.labels)
    run.defence.step(run, batch_of(run, list(range(30))))
    assert int(run.model.features[1].num_batches_tracked) == 1


# --- FGSM-AT and IFGSM-AT ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("defence, reach", [
    (defenses.FGSMAT(EPS), EPS),
    (defenses.IFGSMAT(EPS, alpha=0.03, steps=2), 0.06),
    (defenses.IFGSMAT(EPS, alpha=0.03, steps=5), EPS),
])  # fmt: skip
def test_without_a_random_start(defence, reach):
    """A pixel that the network does not see stays where it was; each other one goes as far as the steps lead."""
    images, labels = two_classes()
    run = started(new(Linear), defence, images, labels)
    with torch.no_grad():
        run.model.fc.weight[:, ::3] = 0
    worst = run.model.worst(images.float() / 255, labels, reach)
    run.defence.step(run, batch_of(run, list(range(40))))
    (shown,) = run.model.shown
    assert torch.allclose(shown, worst, atol=1e-6)
    assert torch.equal(shown.flatten(1)[:, ::3], (images.float() / 255).flatten(1)[:, ::3])


# --- Free AT ----------------------------------------------------------------------------------------------------------


def test_free_at_replays_a_batch_and_the_perturbation_outlives_it():
    images, labels = two_classes()
    run = started(new(Linear), defenses.FreeAT(eps=EPS, replays=3), images, labels, batch_size=8)
    clean = images.float() / 255
    delta = torch.zeros(8, 1, 4, 4)
    for rows in ([0, 1, 2, 3, 4, 5, 6, 7], [8, 9, 10, 11, 12, 13, 14, 15], [16, 17, 18]):
        del run.model.shown[:]
        some = clean[rows]
        weights = []
        hook = run.optimizer.register_step_pre_hook(lambda *_: weights.append(run.model.fc.weight.detach().clone()))  # noqa: B023
        run.defence.step(run, batch_of(run, rows))
        hook.remove()
        assert len(run.model.shown) == len(weights) == 3, "each replay moves the network"
        for shown, w in zip(run.model.shown, weights, strict=True):
            assert torch.allclose(shown, (some + delta[: len(rows)]).clamp(0, 1), atol=1e-6)
            # the loss of a linear network climbs towards the other class, whatever the image
            climb = (w[1 - labels[rows]] - w[labels[rows]]).sign().view_as(some)
            delta[: len(rows)] = (delta[: len(rows)] + EPS * climb).clamp(-EPS, EPS)
        assert torch.allclose(run.memory["delta"], delta, atol=1e-6)
        assert run.memory["delta"].abs().max() <= EPS + 1e-7
    assert not torch.equal(weights[0], weights[1])


def test_free_at_shows_images_of_the_ball_and_the_range(tiny):
    Spy.seen = []
    run = started(new(Spy), defenses.FreeAT(eps=0.3, replays=2), tiny.train.images, tiny.train.labels)
    for rows in (range(60), range(60, 120)):
        run.defence.step(run, batch_of(run, list(rows)))
    clean = tiny.train.images.float() / 255
    for shown, rows in zip(Spy.seen, (range(60), range(60), range(60, 120), range(60, 120)), strict=True):
        assert (shown - clean[list(rows)]).abs().max() <= 0.3 + 1e-6 and shown.min() >= 0 and shown.max() <= 1


# --- YOPO -------------------------------------------------------------------------------------------------------------


class Filtered(Linear):
    """Linear as well, behind a convolution: each image's p points one way, whatever the perturbation."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, images):
        maps = self.conv(images)
        if self.training:  # and where a pass ends at the first layer, this is not reached
            self.shown.append(images.detach().clone())
        return self.fc(maps.flatten(1))


def test_yopos_updates_are_those_of_pgd_where_p_is_constant():
    """Pass j sees what PGD has found after j times `inner` steps from the same random start."""
    images, labels = two_classes()
    run = started(new(Filtered), defenses.YOPO(EPS, 0.02, steps=3, inner=2), images, labels)
    batch = batch_of(run, list(range(40)))
    expected = [defenses.PGDAT(EPS, 0.02 * (steps > 0), steps).images(run, batch) for steps in (0, 2, 4)]
    del run.model.shown[:]
    run.defence.step(run, batch)
    assert len(run.model.shown) == 3 and not torch.equal(expected[1], expected[2])
    for shown, found in zip(run.model.shown, expected, strict=True):
        assert torch.allclose(shown, found, atol=1e-6)


def test_yopo_propagates_few_times_and_steps_once(tiny, steps):
    run = started(new(), defenses.YOPO(EPS, 0.02, steps=3, inner=2), tiny.train.images, tiny.train.labels)
    calls = {0: 0, 2: 0}
    for number in calls:
        run.model.layers[number].register_forward_hook(
            lambda *_, number=number: calls.update({number: calls[number] + 1})
        )
    run.defence.step(run, batch_of(run, [1, 2, 3]))
    assert calls == {0: 3 * (1 + 2 + 1), 2: 3} and len(steps) == 1
    assert len(run.model.layers[0]._forward_hooks) == 1, "its own are gone"


def test_yopos_gradient_is_the_mean_over_its_passes(tiny):
    """All layers but the first get theirs at the images of the full passes; the first one from p at the updated images.
    Here by derivatives of each half of the network, batch normalisation in train mode."""
    split, alpha = tiny.train, 0.04
    run = started(new(Normalised), defenses.YOPO(EPS, alpha, steps=3, inner=2), split.images, split.labels)
    batch = batch_of(run, list(range(30)))
    clean = batch.images.float() / 255
    model = new(Normalised).train()
    first, behind = list(model.features[0].parameters()), [*model.features[1].parameters(), *model.fc.parameters()]
    shown = defenses.PGDAT(EPS, 0, 0).images(run, batch)
    sums, losses = [torch.zeros_like(p) for p in first + behind], []
    for _ in range(3):
        maps = model.features[0](model.normalize(shown))
        loss = F.cross_entropy(model.fc(model.features[1:](maps).flatten(1)), batch.labels)
        p, *later = torch.autograd.grad(loss, [maps, *behind])
        for _ in range(2):
            x = shown.requires_grad_()
            (up,) = torch.autograd.grad((model.features[0](model.normalize(x)) * p).sum(), x)
            shown = torch.max(torch.min(x.detach() + alpha * up.sign(), clean + EPS), clean - EPS).clamp(0, 1)
        earlier = torch.autograd.grad((model.features[0](model.normalize(shown)) * p).sum(), first)
        sums = [total + part for total, part in zip(sums, [*earlier, *later], strict=True)]
        losses.append(float(loss.detach()))
    ours = run.model
    for parameter in ours.parameters():
        parameter.grad = torch.ones_like(parameter)  # left by an earlier step, and to be forgotten
    found = run.defence.step(run, batch)
    parameters = [*ours.features[0].parameters(), *ours.features[1].parameters(), *ours.fc.parameters()]
    for parameter, total in zip(parameters, sums, strict=True):
        assert torch.allclose(parameter.grad, total / 3, rtol=1e-4, atol=1e-6)
    assert float(found) == pytest.approx(sum(losses) / 3, rel=1e-5) and not found.requires_grad


def in_place() -> nn.Module:
    layers = nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3, stride=3), nn.Flatten(), nn.Linear(400, 10)
    return nn.Sequential(*layers)


@pytest.mark.parametrize("make", [
    lambda: networks.build("vgg16", width=0.125),
    lambda: networks.build("wide-resnet-16-4", width=0.125),
    lambda: networks.build("resnet20", width=0.25),
    lambda: networks.build("cifarconv", width=1.0),
    lambda: new(in_place),
], ids=["vgg16", "wide-resnet-16-4", "resnet20", "cifarconv", "in place"])  # fmt: skip
def test_without_a_perturbation_yopos_gradient_is_that_of_plain_training(make):
    """Whatever the network, also that of the first layer, which does not get it in the same pass."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (12, 3, 32, 32), generator=generator).to(torch.uint8)
    compared = defenses.YOPO(0, 0.1, 2, 1), defenses.Defence()
    runs = [started(make(), defence, images, torch.arange(12) % 10) for defence in compared]
    for run in runs:
        run.defence.step(run, batch_of(run, list(range(12))))
    for ours, plain in zip(runs[0].model.parameters(), runs[1].model.parameters(), strict=True):
        assert plain.grad.abs().max() > 0 or plain.dim() == 1  # a bias before batch normalisation has none
        assert torch.allclose(ours.grad, plain.grad, rtol=1e-3, atol=1e-5 * float(plain.grad.abs().max()) + 1e-7)


def test_yopo_refuses_a_network_that_does_not_use_its_first_convolution(tiny):
    spare = nn.Sequential(nn.Identity(), new(Spy))
    spare[0].unused = nn.Conv2d(1, 1, 1)
    with pytest.raises(ValueError, match="answers without its first convolution"):
        started(spare, defenses.YOPO(EPS, 0.02), tiny.train.images, tiny.train.labels)


# --- ATTA -------------------------------------------------------------------------------------------------------------


def test_atta_goes_on_from_the_last_epoch_and_forgets_after_ten():
    images, labels = two_classes()
    run = started(new(Linear), defenses.ATTA(EPS, alpha=0.03, steps=1), images, labels)
    batch, unit = batch_of(run, list(range(40))), EPS / 127
    for epoch, reach in [(0, 0.03), (1, 0.06), (2, 0.09), (3, EPS), (9, EPS), (10, 0.03), (11, 0.06)]:
        run.epoch = epoch
        worst = run.model.worst(images.float() / 255, labels, reach)
        found = run.defence.images(run, batch)
        assert (found - worst).abs().max() <= 2 * unit  # half of one is lost in each epoch
        assert (found - images.float() / 255).abs().max() <= EPS + 1e-6 and 0 <= found.min() <= found.max() <= 1
    assert run.memory["delta"].dtype == torch.int8 and run.memory["delta"].shape == images.shape


def test_atta_keeps_an_images_perturbation_to_itself():
    images, labels = two_classes()
    run = started(new(Linear), defenses.ATTA(EPS, alpha=0.03, steps=1), images, labels)
    run.defence.images(run, batch_of(run, [5, 30, 7]))
    assert run.memory["delta"].flatten(1).any(1).nonzero().flatten().tolist() == [5, 7, 30]


def test_attas_perturbation_moves_with_crop_and_flip():
    """Images whose pixels are numbered, and so tell where each went; 0 is what a crop looked at beyond the border."""
    numbers = torch.arange(1, 65).view(1, 1, 8, 8) + 60
    images = numbers.repeat(20, 1, 1, 1).to(torch.uint8)
    model = new(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 2)))
    run = started(model, defenses.ATTA(EPS, 0.0, 0), images, torch.arange(20) % 2, augment=True)
    run.batch = 1  # not the first, which forgets
    kept = torch.randint(-127, 128, images.shape, generator=torch.Generator().manual_seed(4)).to(torch.int8)
    run.memory["delta"].copy_(kept)
    batch = batch_of(run, list(range(20)))
    clean = run.augmented(batch)
    assert not torch.equal(clean, images.float() / 255)
    number = (clean * 255).round().long() - 61  # of the pixel, negative beyond the border
    found = run.defence.images(run, batch) - clean
    for row in range(20):
        moved = torch.where(number[row] >= 0, kept[row].flatten()[number[row].clamp(min=0)] * EPS / 127, 0.0)
        assert torch.allclose(found[row], moved, atol=1e-6)
    assert torch.equal(run.memory["delta"], kept), "no step changed it"

    run.defence = defenses.ATTA(EPS, 0.04, 1)  # 50.8 units, far from where rounding turns
    run.epoch = 3  # another crop
    clean = run.augmented(batch)
    number = (clean * 255).round().long() - 61
    found = run.defence.images(run, batch) - clean
    changed = 0
    for row in range(20):
        expected = kept[row].flatten().clone()
        inside = number[row] >= 0
        expected[number[row][inside]] = (found[row][inside] / EPS * 127).round().to(torch.int8)
        assert torch.equal(run.memory["delta"][row].flatten(), expected), "what the crop left out stays as it was"
        changed += int((expected != kept[row].flatten()).sum())
    assert changed > 0


# --- AFT --------------------------------------------------------------------------------------------------------------


def test_afts_rate_starts_slowly_and_decays_fast(tiny):
    run = started(new(), defenses.AFT(EPS, 0.03, 2), tiny.train.images[:240], tiny.train.labels[:240], lr=0.2)
    rates = []
    run.optimizer.register_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    places = [(0, 0), (0, 2), (2, 2), (4, 3), (5, 0), (6, 0), (7, 2), (9, 0), (1, 0)]  # of four batches an epoch
    for run.epoch, run.batch in places:
        run.defence.step(run, batch_of(run, [1, 2, 3]))
    expected = [0.1, 0.19, 0.55, 0.955, 1, 0.3, 0.3**2.5, 0.0081, 0.28]
    assert rates == pytest.approx([0.2 * share for share in expected])


def test_afts_images_are_those_of_pgd_at(tiny):
    run = started(new(), defenses.AFT(EPS, 0.03, 2), tiny.train.images, tiny.train.labels)
    batch = batch_of(run, [1, 2, 3])
    assert torch.equal(run.defence.images(run, batch), defenses.PGDAT(EPS, 0.03, 2).images(run, batch))


def test_aft_refuses_another_schedule(tiny):
    with pytest.raises(ValueError, match="cycle is 3; expected None"):
        started(new(), defenses.AFT(EPS, 0.03, 2), tiny.train.images, tiny.train.labels, cycle=3)
