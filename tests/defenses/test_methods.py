"""What distinguishes each method from plain training, shown where it can be worked out by other means."""

from collections import Counter

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import scipy.stats
import torch
import torch.nn.functional as F
from defenses.small import Linear, started
from small_networks import Small, Spy, bytes_of, new, same
from torch import nn

from reprolib import defenses, patches, training
from reprolib.networks.quantized import quantized_weights
from reprolib.training import Recipe, Run

# --- patched and unmodified copies ------------------------------------------------------------------------------------


def epochs_shown(tiny, defence, epochs: int = 1, seed: int = 5) -> list[torch.Tensor]:
    """The batches of a training, uint8."""
    Spy.seen = []
    split = tiny.train
    recipe = Recipe(batch_size=60)
    training.fit(new(Spy), split.images, split.labels, defence, recipe, epochs=epochs, seed=seed, progress=False)
    return [(images * 255).round().to(torch.uint8) for images in Spy.seen]


def counted(images: torch.Tensor) -> Counter:
    return Counter(map(bytes, images.numpy()))


def test_unmodified_shows_each_image_twice(tiny):
    shown = epochs_shown(tiny, defenses.Unmodified())
    assert [len(batch) for batch in shown] == [60] * 8 + [32]
    assert counted(torch.cat(shown)) == {bytes(image): 2 for image in tiny.train.images.numpy()}


@pytest.mark.parametrize("size, count", [(7, 1), (11, 1), (7, 2), (11, 2)])
def test_patched_differs_from_the_control_in_the_patches_of_the_second_showing_alone(tiny, size, count):
    control = torch.cat(epochs_shown(tiny, defenses.Unmodified()))
    patched = torch.cat(epochs_shown(tiny, defenses.Patched(size, count)))
    outside = torch.ones(28, 28, dtype=torch.bool)
    for top, left in patches.boxes(28, 28, size, count):
        outside[top : top + size, left : left + size] = False
    assert torch.equal(control[..., outside], patched[..., outside])

    originals, ids = tiny.train.images, torch.arange(len(tiny.train))
    drawn = patches.make_patches(originals, ids, size, count, 5)
    copies = patches.paste(originals, drawn, torch.ones(len(originals), dtype=torch.bool))
    assert counted(patched) == counted(originals) + counted(copies)


def test_an_image_has_the_same_copy_in_each_epoch(tiny):
    """A draw is fixed per image for the whole fine-tuning (section 3)."""
    seen = epochs_shown(tiny, defenses.Patched(7, 1), epochs=2)
    first, second = torch.cat(seen[:9]), torch.cat(seen[9:])
    assert counted(first) == counted(second) and not torch.equal(first, second)


def test_the_seed_draws_other_copies(tiny):
    one, other = (torch.cat(epochs_shown(tiny, defenses.Patched(7, 1), seed=seed)) for seed in (5, 6))
    assert counted(one) != counted(other)


def test_images_and_copies_are_mixed(tiny):
    """The images are not all shown before the copies."""
    originals = set(map(bytes, tiny.train.images.numpy()))
    for batch in epochs_shown(tiny, defenses.Patched(11, 2)):
        share = sum(image in originals for image in map(bytes, batch.numpy())) / len(batch)
        assert 0 < share < 1


# --- Mixup ------------------------------------------------------------------------------------------------------------


def mixed(alpha: float, step: int = 0) -> tuple[Run, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A step of Mixup on images that are 0 but for one pixel of their own: what was shown tells share and partner."""
    images = torch.eye(16).view(16, 1, 4, 4)
    labels = torch.arange(16) % 2
    run = started(new(Linear), defenses.Mixup(alpha), (images * 255).to(torch.uint8), labels)
    run.batch = step
    loss = run.defence.loss(run, images, labels)
    return run, images, run.model.shown[-1].flatten(1), loss


def partners(shown: torch.Tensor) -> tuple[float, torch.Tensor]:
    """The share of the image itself, and which other one it is mixed with."""
    own = shown.diagonal()
    others = shown - own.diag()
    partner = torch.where(own > 1 - 1e-6, torch.arange(16), others.argmax(1))
    shares = own[own < 1 - 1e-6].unique()
    assert len(shares) <= 1, "one share for the whole batch"
    return float(shares[0]) if len(shares) else 1.0, partner


def test_mixups_loss_is_the_mixture_of_two_losses():
    run, images, shown, loss = mixed(alpha=1.0)
    share, partner = partners(shown)
    assert sorted(partner.tolist()) == list(range(16)), "each image is the partner of one"
    assert torch.allclose(shown, (share * images + (1 - share) * images[partner]).flatten(1), atol=1e-6)
    labels = torch.arange(16) % 2
    weight, bias = run.model.fc.weight.double(), run.model.fc.bias.double()
    pixels = images.flatten(1).double()
    log = (share * pixels @ weight.T + (1 - share) * pixels[partner] @ weight.T + bias).log_softmax(1)
    expected = -(share * log[range(16), labels] + (1 - share) * log[range(16), labels[partner]]).mean()
    assert loss.requires_grad
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-6)


@pytest.mark.parametrize("alpha", [1.0, 0.4])
def test_mixups_shares_come_from_the_beta_distribution(alpha):
    shares = [partners(mixed(alpha, step)[2])[0] for step in range(300)]
    assert scipy.stats.kstest(shares, "beta", args=(alpha, alpha)).pvalue > 0.01
    other = scipy.stats.kstest(shares, "beta", args=(5 * alpha, 5 * alpha)).pvalue
    assert other < 1e-3, "which is no other one"


def test_mixup_smooths_both_labels_where_the_recipe_says_so():
    images, labels = torch.eye(16).view(16, 1, 4, 4), torch.arange(16) % 2
    losses = []
    for smoothing in (0.0, 0.2):
        run = started(new(Linear), defenses.Mixup(), images.to(torch.uint8), labels, label_smoothing=smoothing)
        losses.append(float(run.defence.loss(run, images, labels).detach()))
    assert losses[0] != losses[1]


# --- High Frequency ---------------------------------------------------------------------------------------------------


def smoothed(weight: np.ndarray, rho: float, how) -> np.ndarray:
    mask = np.full((3, 3), rho)
    mask[1, 1] = 1
    return np.stack([[how(plane, mask) for plane in filters] for filters in weight])


@pytest.mark.parametrize("rho", [0.1, 1.0])
@pytest.mark.parametrize("kernel, channels", [(3, 3), (5, 1), (8, 2)])
def test_high_frequency_smooths_the_first_filters_with_repeated_borders(rho, kernel, channels):
    """Borders are the authors' symmetric ones. For a mask of 3x3 that is to repeat the outermost weight, which scipy's
    ndimage calls 'nearest'; its 'reflect' is the same here, and its 'mirror', which leaves that weight out, is not."""
    first, second = nn.Conv2d(channels, 4, kernel), nn.Conv2d(4, 4, 3)
    network = nn.Sequential(nn.Identity(), first, nn.ReLU(), second)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    changed = defenses.HighFrequency(rho)(network)
    assert same(network.state_dict(), before)
    found = changed[1].weight.detach().numpy()
    weight = first.weight.detach().double().numpy()
    for how in (
        lambda plane, mask: scipy.ndimage.convolve(plane, mask, mode="nearest"),
        lambda plane, mask: scipy.ndimage.convolve(plane, mask, mode="reflect"),
        lambda plane, mask: scipy.signal.convolve2d(plane, mask, mode="same", boundary="symm"),
    ):
        np.testing.assert_allclose(found, smoothed(weight, rho, how), atol=1e-5)
    for mode in ("mirror", "constant"):
        other = smoothed(weight, rho, lambda plane, mask: scipy.ndimage.convolve(plane, mask, mode=mode))  # noqa: B023
        assert not np.allclose(found, other, atol=1e-3)
    assert all(torch.equal(v, before[k]) for k, v in changed.state_dict().items() if k != "1.weight")


def test_high_frequency_with_rho_0_changes_nothing():
    network = new()
    assert same(defenses.HighFrequency(0)(network).state_dict(), network.state_dict())


# --- Quantised --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight_bits, activation_bits", [(2, 2), (4, 2)])
def test_quantised_networks_learn_and_calculate_with_few_levels(tiny, weight_bits, activation_bits):
    split, test = tiny.train, tiny.test
    defence = defenses.Quantised(weight_bits, activation_bits)
    recipe = Recipe(lr=3e-3, batch_size=60)
    run = training.fit(
        new(), split.images, split.labels, defence, recipe, epochs=8, test=(test.images, test.labels), progress=False
    )
    assert run.history[-1]["clean"] > 60 and run.history[-1]["loss"] < 0.7 * run.history[0]["loss"]
    first = run.model.layers[0]
    few = quantized_weights(first.weight, weight_bits)
    assert len(few.unique()) <= 2**weight_bits < len(first.weight.unique()), "what it learns with has full precision"
    images = test.images[:50].float() / 255
    levels = (images * (2**activation_bits - 1)).round() / (2**activation_bits - 1)
    with torch.no_grad():
        assert torch.equal(run.model(images), run.model(levels)), "it sees levels of the image"
        assert torch.allclose(first(images), F.conv2d(levels, few, first.bias, stride=2, padding=3), atol=1e-5)
        plain = new()
        plain.load_state_dict(run.model.state_dict())
        assert not torch.equal(plain(images), run.model(images)), (
            "the same weights without quantisation answer otherwise"
        )


def test_quantised_leaves_the_given_network_alone(tiny):
    network = new()
    run = training.fit(
        network, tiny.train.images, tiny.train.labels, defenses.Quantised(2, 2), epochs=1, progress=False
    )
    assert run.model is not network and same(network.state_dict(), new().state_dict())
    assert type(network.layers[0]) is nn.Conv2d


def test_a_member_of_full_precision_is_plain_training(tiny):
    split = tiny.train
    full, plain = (
        training.fit(new(Small), split.images, split.labels, defence, epochs=1, progress=False).model.state_dict()
        for defence in (defenses.Quantised(32, 32), None)
    )
    assert same(full, plain)


def test_augmented_images_reach_every_method(tiny):
    """What a defence changes comes on top of the recipe's crops and flips, or before them."""
    originals = set(map(bytes, tiny.train.images.numpy()))
    for defence in (
        defenses.Unmodified(),
        defenses.FreeAT(eps=0.0, replays=1),
        defenses.PGDAT(eps=0.0, alpha=0, steps=0),
    ):
        Spy.seen = []
        training.fit(
            new(Spy), tiny.train.images, tiny.train.labels, defence, Recipe(augment=True), epochs=1, progress=False
        )
        assert not set(bytes_of(torch.cat(Spy.seen))) <= originals


@pytest.mark.parametrize("name, hook", [("image", "images"), ("steps", "step"), ("networks", "network")])
def test_a_misspelt_hook_is_refused(name, hook):
    """It would be a defence that does nothing."""
    with pytest.raises(TypeError, match=f"Mine has a method '{name}', which nothing calls; did you mean '{hook}'"):
        type("Mine", (defenses.Defence,), {name: lambda self, *rest: None})


def test_a_number_may_be_called_nearly_like_a_hook():
    assert type("Mine", (defenses.Defence,), {"steps": 3})().steps == 3
