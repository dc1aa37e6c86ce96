"""The nine patch operations against independent implementations, and what an image draws.

Seeds are fixed, so each statistical test gives the same answer every time. Thresholds were chosen before the first
run: p > 1e-3 for a test of a distribution or a share.
"""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from skimage.transform import rotate as skimage_rotate
from skimage.util import random_noise
from torchvision.transforms.functional import gaussian_blur as torchvision_blur

from reprolib import patches, streams

P_MINIMUM = 1e-3
SEED = 2023
NAMES = [operation.__name__ for operation in patches.OPERATIONS]
sizes = pytest.mark.parametrize("size", [7, 11])
channels = pytest.mark.parametrize("channel_count", [1, 3])


def random_patches(count, channel_count, size, seed=0):
    return torch.rand(count, channel_count, size, size, generator=torch.Generator().manual_seed(seed))


def random_images(count, channel_count, side, seed=0):
    shape = (count, channel_count, side, side)
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def draws(count, seed=SEED):
    return patches.sample(torch.arange(count), 1, seed)[0]


def one_operation(name, count):
    """Draws in which each image meets the same operation."""
    drawn = draws(count)
    index = torch.full_like(drawn.operation, NAMES.index(name))
    return patches.Draws(index, drawn.horizontal, drawn.ids, drawn.seed, drawn.stream)


def grey(level, count=400, size=11):
    return torch.full((count, 3, size, size), level)


def share_is(hits, total, expected):
    return stats.binomtest(int(hits), int(total), expected).pvalue > P_MINIMUM


# --- each operation ---


@sizes
@channels
def test_rotation_against_scikit_image(size, channel_count):
    """scikit-image's bicubic is Keys' with a = -0.5 too; a positive angle there is counter-clockwise."""
    before = random_patches(10, channel_count, size)
    after = patches.rotate(before, draws(10)).numpy()
    for patch, ours in zip(before.double().numpy(), after, strict=True):
        for channel in range(channel_count):
            expected = skimage_rotate(patch[channel], -10, order=3, mode="constant", cval=0, clip=False)
            np.testing.assert_allclose(ours[channel], expected.clip(0, 1), atol=1e-5)


@sizes
def test_rotation_is_clockwise_and_leaves_the_corners_empty(size):
    spot = torch.zeros(1, 1, size, size)
    spot[0, 0, 0, size // 2] = 1  # in the middle of the top row
    turned = patches.rotate(spot, draws(1))[0, 0]
    columns = torch.arange(size) - size // 2
    shift = (turned.sum(0) * columns).sum() / turned.sum()
    assert shift > 0.3  # to the right; (size - 1) / 2 * sin(10 degrees) = 0.52 or 0.87 if nothing were cut off
    white = patches.rotate(torch.ones(1, 1, size, size), draws(1))[0, 0]
    corners = white[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners < 0.6).all()  # their places lie 0.4 to 0.8 pixels outside the patch: little or nothing is left
    torch.testing.assert_close(white[2:-2, 2:-2], torch.ones(size - 4, size - 4))  # weights sum to one inside


@sizes
@channels
def test_translation_against_scipy(size, channel_count):
    before = random_patches(10, channel_count, size)
    after = patches.translate(before, draws(10)).numpy()
    for patch, ours in zip(before.numpy(), after, strict=True):
        for channel in range(channel_count):
            expected = ndimage.shift(patch[channel], (2, 2), order=0, mode="constant", cval=patch[channel].mean())
            np.testing.assert_allclose(ours[channel], expected, atol=1e-6)


def test_gaussian_noise_has_mean_0_and_variance_005_and_is_clipped():
    after = patches.gaussian_noise(grey(0.5), draws(400)).flatten().double().numpy()
    inside = after[(after > 0) & (after < 1)]
    sigma = math.sqrt(0.05)
    law = stats.truncnorm(-0.5 / sigma, 0.5 / sigma, loc=0.5, scale=sigma)
    assert stats.kstest(inside, law.cdf).pvalue > P_MINIMUM
    for end in (0, 1):
        assert share_is((after == end).sum(), after.size, stats.norm.sf(0.5 / sigma))


def test_gaussian_noise_against_scikit_image():
    ours = patches.gaussian_noise(grey(0.3), draws(400)).flatten().double().numpy()
    theirs = random_noise(np.full(ours.shape, 0.3), mode="gaussian", var=0.05, rng=1)
    assert stats.ks_2samp(ours, theirs).pvalue > P_MINIMUM


@pytest.mark.parametrize("level", [1, 2, 10, 60, 128, 200, 255])
def test_poisson_noise_against_scipy(level):
    """Each pixel value's counts, those beyond 255 gathered at 255."""
    counts = (patches.poisson_noise(grey(level / 255), draws(400)) * 255).flatten().double().numpy()
    np.testing.assert_allclose(counts, counts.round(), atol=1e-3)
    observed = np.bincount(counts.round().astype(int), minlength=256)
    expected = stats.poisson.pmf(np.arange(256), level)
    expected[255] = stats.poisson.sf(254, level)
    frequent = expected * counts.size >= 10  # the chi-square law needs some in each cell; the rest share one
    cells = [np.append(part[frequent], part[~frequent].sum()) for part in (observed, expected * counts.size)]
    if cells[1][-1] < 1e-3:  # nothing is left for the shared cell
        assert cells[0][-1] == 0
        cells = [part[:-1] for part in cells]
    assert stats.chisquare(cells[0], cells[1] * cells[0].sum() / cells[1].sum()).pvalue > P_MINIMUM


def test_poisson_noise_inverts_the_distribution_function():
    """The same uniform number through SciPy's inverse gives the same count, for all 256 pixel values."""
    before = (torch.arange(256) / 255).repeat_interleave(363).view(-1, 3, 11, 11)
    drawn = draws(len(before))
    uniform = drawn.uniform(before.shape[1:]).double().numpy()
    expected = stats.poisson.ppf(uniform, (before * 255).round().numpy()).clip(0, 255)
    ours = (patches.poisson_noise(before, drawn) * 255).numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-3)


def test_poisson_noise_leaves_black_black_and_does_not_pass_white():
    assert (patches.poisson_noise(grey(0.0), draws(400)) == 0).all()
    white = patches.poisson_noise(grey(1.0), draws(400))
    assert white.max() == 1 and white.min() < 1
    assert share_is((white == 1).sum(), white.numel(), stats.poisson.sf(254, 255))


def test_salt_and_pepper_shares():
    """A quarter each of 0 and 1, the rest untouched, as scikit-image's `s&p` with amount 0.5 has it."""
    ours = patches.salt_and_pepper(grey(0.3), draws(400)).numpy()
    theirs = random_noise(np.full(ours.shape, 0.3), mode="s&p", amount=0.5, rng=1)
    for value, expected in ((0, 0.25), (1, 0.25), (np.float32(0.3), 0.5)):
        assert share_is((ours == value).sum(), ours.size, expected)
    table = [[(part == 0).sum(), (part == 1).sum(), ((part > 0) & (part < 1)).sum()] for part in (ours, theirs)]
    assert sum(table[0]) == ours.size
    assert stats.chi2_contingency(table).pvalue > P_MINIMUM


def test_salt_and_pepper_decides_for_each_channel_alone():
    kept = patches.salt_and_pepper(grey(0.3), draws(400)) == 0.3
    assert share_is((kept[:, 0] & kept[:, 1]).sum(), kept[:, 0].numel(), 0.25)


@pytest.mark.parametrize("level", [0.2, 0.5, 0.7])
def test_speckle_noise_is_uniform_in_proportion_to_the_pixel(level):
    bound = math.sqrt(0.15)  # uniform on +-b has variance b**2 / 3 = 0.05
    factor = (patches.speckle_noise(grey(level), draws(400)).double() / level - 1).flatten().numpy()
    assert np.abs(factor).max() <= bound + 1e-6
    assert stats.kstest(factor, stats.uniform(-bound, 2 * bound).cdf).pvalue > P_MINIMUM


def test_speckle_noise_leaves_black_black_and_is_clipped():
    assert (patches.speckle_noise(grey(0.0), draws(400)) == 0).all()
    white = patches.speckle_noise(grey(1.0), draws(400))
    assert white.max() == 1 and share_is((white == 1).sum(), white.numel(), 0.5)


@sizes
@channels
def test_blur_against_scipy(size, channel_count):
    before = random_patches(10, channel_count, size)
    after = patches.gaussian_blur(before, draws(10)).numpy()
    for patch, ours in zip(before.double().numpy(), after, strict=True):
        for channel in range(channel_count):
            expected = ndimage.gaussian_filter(patch[channel], sigma=1.5, radius=3, mode="nearest")
            np.testing.assert_allclose(ours[channel], expected, atol=1e-5)


@sizes
@channels
def test_blur_against_torchvision_where_the_border_does_not_reach(size, channel_count):
    before = random_patches(10, channel_count, size)
    inside = slice(3, size - 3)
    ours = patches.gaussian_blur(before, draws(10))[:, :, inside, inside]
    expected = torchvision_blur(before, [7, 7], [1.5, 1.5])[:, :, inside, inside]
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


def test_mask_is_black():
    after = patches.mask(random_patches(4, 3, 7), draws(4))
    assert after.shape == (4, 3, 7, 7) and (after == 0).all()


@sizes
def test_flip_against_numpy(size):
    before, drawn = random_patches(40, 3, size), draws(40)
    after = patches.flip(before, drawn).numpy()
    assert 0 < drawn.horizontal.sum() < 40
    for patch, ours, horizontal in zip(before.numpy(), after, drawn.horizontal, strict=True):
        turn = np.fliplr if horizontal else np.flipud
        assert np.array_equal(ours, np.stack([turn(channel) for channel in patch]))


@pytest.mark.parametrize("name", NAMES)
@sizes
@channels
def test_every_operation_keeps_shape_type_range_and_its_input(name, size, channel_count):
    """Also where all pixels are black or white, and with the overshoot of bicubic interpolation at an edge."""
    before = random_patches(24, channel_count, size)
    before[:4], before[4:8] = 0, 1
    before[8:16] = (before[8:16] > 0.5).float()
    kept = before.clone()
    after = patches.apply(before, one_operation(name, 24))
    assert after.shape == before.shape and after.dtype == torch.float32
    assert after.min() >= 0 and after.max() <= 1
    assert torch.equal(before, kept)
    assert not torch.equal(after[16:], before[16:])


@pytest.mark.parametrize("name", NAMES)
def test_apply_carries_out_the_drawn_operation(name):
    before, drawn = random_patches(200, 3, 7), draws(200)
    rows = (drawn.operation == NAMES.index(name)).nonzero().squeeze(1)
    assert len(rows) > 5
    expected = getattr(patches, name)(before[rows], drawn[rows])
    assert torch.equal(patches.apply(before, drawn)[rows], expected)


# --- draws ---


def test_there_are_nine_operations():
    assert len(set(NAMES)) == 9


@pytest.mark.parametrize("count", [1, 2])
def test_a_draw_belongs_to_the_image(count):
    ids = torch.arange(1000, 1200)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    together, shuffled = patches.sample(ids, count, SEED), patches.sample(ids[order], count, SEED)
    assert len(together) == len(shuffled) == count
    for first, second in zip(together, shuffled, strict=True):
        assert torch.equal(first.operation[order], second.operation)
        assert torch.equal(first.horizontal[order], second.horizontal)
        assert torch.equal(first.uniform((3, 7, 7))[order], second.uniform((3, 7, 7)))
    for row in range(0, 200, 20):
        for first, alone in zip(together, patches.sample(ids[row : row + 1], count, SEED), strict=True):
            assert first.operation[row] == alone.operation[0] and first.horizontal[row] == alone.horizontal[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_patch_comes_out_the_same_alone_in_a_batch_and_in_another_order(name):
    """Bit for bit, but for the two operations that sum in the order the library likes: there to 1e-6."""
    before, drawn = random_patches(40, 3, 11), one_operation(name, 40)
    together = patches.apply(before, drawn)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    shuffled = patches.apply(before[order], drawn[order])
    alone = torch.cat([patches.apply(before[row : row + 1], drawn[torch.tensor([row])]) for row in range(40)])
    tolerance = 1e-6 if name in ("rotate", "gaussian_blur") else 0
    torch.testing.assert_close(shuffled, together[order], atol=tolerance, rtol=0)
    torch.testing.assert_close(alone, together, atol=tolerance, rtol=0)


def test_the_first_patch_draws_the_same_whether_there_is_a_second():
    ids = torch.arange(100)
    assert torch.equal(patches.sample(ids, 1, SEED)[0].operation, patches.sample(ids, 2, SEED)[0].operation)


def test_a_replay_gives_the_same_bits():
    before, drawn = random_patches(300, 3, 11), draws(300)
    assert torch.equal(patches.apply(before, drawn), patches.apply(before, drawn))
    images = random_images(100, 3, 32)
    first, second = (patches.make_patches(images, torch.arange(100), 7, 2, SEED) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("patch", [0, 1])
def test_all_nine_operations_and_both_flips_occur_equally_often(patch):
    drawn = patches.sample(torch.arange(60_000), 2, SEED)[patch]
    table = torch.bincount(drawn.operation * 2 + drawn.horizontal.long(), minlength=18)
    assert stats.chisquare(table.numpy()).pvalue > P_MINIMUM


def test_two_patches_draw_independently():
    first, second = patches.sample(torch.arange(60_000), 2, SEED)
    table = torch.bincount(first.operation * 9 + second.operation, minlength=81)
    assert stats.chisquare(table.numpy()).pvalue > P_MINIMUM
    here, there = (drawn.uniform((5,)).flatten().numpy() for drawn in (first, second))
    assert abs(stats.pearsonr(here, there).statistic) < 5 / here.size**0.5


def test_another_seed_draws_anew():
    first, second = (patches.sample(torch.arange(60_000), 1, seed)[0] for seed in (SEED, SEED + 1))
    assert share_is((first.operation == second.operation).sum(), 60_000, 1 / 9)
    assert not torch.equal(first.uniform((4,)), second.uniform((4,)))


@pytest.mark.parametrize("number, operation", [(2.0**-24, 0), (1 - 2.0**-24, 8)])
def test_the_ends_of_the_interval_choose_the_first_and_the_last_operation(monkeypatch, number, operation):
    monkeypatch.setattr(streams, "uniform", lambda seed, ids, stream, shape: torch.full((len(ids), *shape), number))
    assert patches.sample(torch.arange(3), 1, SEED)[0].operation.tolist() == [operation] * 3


# --- places ---


@pytest.mark.parametrize(
    "side, size, count, corners",
    [
        (32, 7, 1, [(12, 12)]),
        (32, 11, 1, [(10, 10)]),
        (28, 7, 1, [(10, 10)]),
        (28, 11, 1, [(8, 8)]),
        (32, 7, 2, [(12, 9), (12, 16)]),
        (32, 11, 2, [(10, 5), (10, 16)]),
        (28, 7, 2, [(10, 7), (10, 14)]),
        (28, 11, 2, [(8, 3), (8, 14)]),
    ],
)
def test_places(side, size, count, corners):
    assert patches.boxes(side, side, size, count) == corners


def test_the_largest_patches_that_fit():
    assert patches.boxes(11, 11, 11, 1) == [(0, 0)]
    assert patches.boxes(11, 22, 11, 2) == [(0, 0), (0, 11)]


@pytest.mark.parametrize(
    "height, width, size, count", [(28, 28, 29, 1), (28, 28, 15, 2), (10, 32, 11, 1), (28, 28, 0, 1)]
)
def test_a_patch_that_does_not_fit(height, width, size, count):
    with pytest.raises(ValueError, match=rf"size .* is {size}; expected .* fits into an image of {height}x{width}"):
        patches.boxes(height, width, size, count)


@pytest.mark.parametrize("count", [0, 3, -1])
def test_a_number_of_patches_that_the_paper_does_not_have(count):
    with pytest.raises(ValueError, match=f"count is {count}; .*1 or 2"):
        patches.boxes(28, 28, 7, count)


def test_errors_reach_the_caller_of_make_patches():
    images, ids = random_images(2, 1, 28), torch.arange(2)
    with pytest.raises(ValueError, match="size .* is 29; expected .* fits into an image of 28x28"):
        patches.make_patches(images, ids, 29, 1, SEED)
    with pytest.raises(ValueError, match="count is 3"):
        patches.make_patches(images, ids, 7, 3, SEED)
    with pytest.raises(ValueError, match="images are torch.float32 .*; expected uint8 .* from 0 to 255"):
        patches.make_patches(images.float() / 255, ids, 7, 1, SEED)


# --- lengths and types that do not match ---


@pytest.mark.parametrize(
    "ids",
    [
        torch.arange(4),
        torch.arange(17),
        torch.arange(16).float(),
        torch.arange(16).int(),
        torch.arange(16)[:, None],
        torch.tensor(3),
        list(range(16)),
    ],
    ids=str,
)
def test_make_patches_wants_one_id_for_each_image(ids):
    """With 4 ids, 12 of 16 images used to come back as they were, as if their draws had been made."""
    with pytest.raises(ValueError, match=r"ids are .*; expected torch.int64 \[16\], one for each image"):
        patches.make_patches(random_images(16, 1, 28), ids, 7, 1, SEED)


@pytest.mark.parametrize("images", [torch.zeros(4, 28, 28, dtype=torch.uint8), np.zeros((4, 1, 28, 28), np.uint8)])
def test_images_of_another_shape_or_kind(images):
    patch, all_of_them = torch.zeros(4, 1, 1, 7, 7, dtype=torch.uint8), torch.ones(4, dtype=torch.bool)
    for call in (
        lambda: patches.make_patches(images, torch.arange(4), 7, 1, SEED),
        lambda: patches.paste(images, patch, all_of_them),
    ):
        with pytest.raises(ValueError, match=r"images are .*; expected (a tensor|uint8) \[B, C, H, W\]"):
            call()


@pytest.mark.parametrize(
    "change, chosen, message",
    [
        (
            lambda made: made.float() / 255,
            torch.bool,
            r"patches are torch.float32 of .*expected torch.uint8 \[8, count, 3",
        ),
        (lambda made: made[:5], torch.bool, r"shape \(5, 2, 3, 7, 7\); expected torch.uint8 \[8, count"),
        (lambda made: made[:, :, :1], torch.bool, r"shape \(8, 2, 1, 7, 7\); expected"),
        (lambda made: made[..., :5], torch.bool, r"shape \(8, 2, 3, 7, 5\); expected"),
        (lambda made: made[:, 0], torch.bool, r"shape \(8, 3, 7, 7\); expected"),
        (lambda made: made.repeat(1, 2, 1, 1, 1), torch.bool, "count is 4"),
        (lambda made: made.repeat(1, 1, 1, 3, 3), torch.bool, "size .* is 21; expected .* fits into an image of 32x32"),
        (lambda made: made.numpy(), torch.bool, "patches are a ndarray; expected"),
        (lambda made: made, torch.int64, r"chosen are torch.int64 of .*; expected torch.bool \[8\]"),
    ],
)
def test_paste_wants_patches_like_the_images(change, chosen, message):
    images, ids = random_images(8, 3, 32), torch.arange(8)
    made = patches.make_patches(images, ids, 7, 2, SEED)
    with pytest.raises(ValueError, match=message):
        patches.paste(images, change(made), (ids > 3).to(chosen))
    with pytest.raises(ValueError, match=r"chosen .*expected torch.bool \[8\]"):
        patches.paste(images, made, ids[:5] > 3)


def test_patches_of_255_are_not_pasted_into_images_of_1():
    images = random_images(4, 1, 28)
    made = patches.make_patches(images, torch.arange(4), 7, 1, SEED)
    with pytest.raises(ValueError, match=r"patches are torch.uint8 .*expected torch.float32 .*as the images"):
        patches.paste(images / 255, made, torch.ones(4, dtype=torch.bool))
    floats = patches.paste(images / 255, made / 255, torch.ones(4, dtype=torch.bool))
    assert torch.equal((floats * 255).round().byte(), patches.paste(images, made, torch.ones(4, dtype=torch.bool)))


@pytest.mark.parametrize("name", [*NAMES, "apply"])
@pytest.mark.parametrize(
    "patch, message",
    [
        (torch.rand(5, 3, 7, 7), r"shape \(5, 3, 7, 7\); expected floats \[6, C, n, n\]"),
        (torch.rand(6, 3, 7), r"shape \(6, 3, 7\); expected floats \[6, C, n, n\]"),
        (torch.rand(6, 3, 7, 5), r"shape \(6, 3, 7, 5\); expected floats"),
        (torch.rand(6, 3, 2, 2), "n at least 3"),
        (torch.zeros(6, 3, 7, 7, dtype=torch.uint8), "torch.uint8 .*divide by 255"),
        (torch.full((6, 3, 7, 7), 255.0), "patches range from 255.0 to 255.0; expected \\[0, 1\\]"),
        (torch.full((6, 3, 7, 7), torch.nan), "patches range from nan"),
        (np.zeros((6, 3, 7, 7)), "patches are a ndarray"),
    ],
)
def test_what_no_operation_takes(name, patch, message):
    with pytest.raises(ValueError, match=message):
        getattr(patches, name)(patch, draws(6))


def test_draws_that_do_not_belong_together():
    drawn = draws(6)
    for change, message in (
        ({"operation": drawn.operation[:4]}, r"operation are .*\(4,\); expected torch.int64 \[6\]"),
        ({"operation": drawn.operation + 9}, "operation ranges from .*; expected indices into OPERATIONS, 0 to 8"),
        ({"operation": drawn.operation - 9}, "operation ranges from -"),
        ({"horizontal": drawn.horizontal.long()}, r"horizontal are torch.int64 .*; expected torch.bool \[6\]"),
        ({"ids": drawn.ids.float()}, "ids are torch.float32"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(drawn, **change)


@pytest.mark.parametrize("count", [0, 3, 2.0, "1"])
def test_a_number_of_draws_that_the_paper_does_not_have(count):
    with pytest.raises(ValueError, match=f"count is {count}"):
        patches.sample(torch.arange(4), count, SEED)


def test_a_size_that_is_not_whole():
    with pytest.raises(ValueError, match="size .* is 7.0; expected a whole number"):
        patches.make_patches(random_images(2, 1, 28), torch.arange(2), 7.0, 1, SEED)


def test_no_images_have_no_patches():
    images, nobody = random_images(0, 3, 32), torch.arange(0)
    made = patches.make_patches(images, nobody, 7, 2, SEED)
    assert made.shape == (0, 2, 3, 7, 7) and made.dtype == torch.uint8
    assert patches.paste(images, made, nobody > 0).shape == images.shape


# --- whole images ---


@pytest.mark.parametrize("side, channel_count", [(28, 1), (32, 3)])
@sizes
@pytest.mark.parametrize("count", [1, 2])
def test_pasting_changes_the_boxes_of_the_chosen_images_and_nothing_else(side, channel_count, size, count):
    images, ids = random_images(60, channel_count, side), torch.arange(60)
    kept = images.clone()
    made = patches.make_patches(images, ids, size, count, SEED)
    assert made.shape == (60, count, channel_count, size, size) and made.dtype == torch.uint8
    chosen = ids % 3 == 0
    pasted = patches.paste(images, made, chosen)
    assert pasted.shape == images.shape and pasted.dtype == torch.uint8
    assert torch.equal(images, kept)
    assert torch.equal(pasted[~chosen], images[~chosen])
    assert not torch.equal(pasted[chosen], images[chosen])
    outside = torch.ones(side, side, dtype=torch.bool)
    for index, (top, left) in enumerate(patches.boxes(side, side, size, count)):
        box = (slice(None), slice(None), slice(top, top + size), slice(left, left + size))
        assert torch.equal(pasted[box][chosen], made[chosen, index])
        outside[box[2:]] = False
    assert outside.sum() == side * side - count * size * size
    assert torch.equal(pasted[:, :, outside], images[:, :, outside])


def test_nobody_chosen_and_everybody_chosen():
    images = random_images(8, 1, 28)
    made = patches.make_patches(images, torch.arange(8), 7, 1, SEED)
    assert torch.equal(patches.paste(images, made, torch.zeros(8, dtype=torch.bool)), images)
    assert torch.equal(patches.paste(images, made, torch.ones(8, dtype=torch.bool))[:, :, 10:17, 10:17], made[:, 0])


@pytest.mark.parametrize("count", [1, 2])
def test_each_stored_patch_is_the_drawn_operation_rounded_to_8_bits(count):
    images, ids = random_images(80, 3, 32), torch.arange(500, 580)
    made = patches.make_patches(images, ids, 7, count, SEED)
    for index, ((top, left), drawn) in enumerate(
        zip(patches.boxes(32, 32, 7, count), patches.sample(ids, count, SEED), strict=True)
    ):
        expected = patches.apply(images[:, :, top : top + 7, left : left + 7] / 255, drawn) * 255
        assert (made[:, index] - expected).abs().max() <= 0.5 + 1e-4


def test_batches_and_their_order_do_not_matter_for_the_stored_patches():
    """At most one level apart, where a sum on the edge between two levels was taken in another order."""
    images, ids = random_images(120, 1, 28), torch.arange(120)
    together = patches.make_patches(images, ids, 11, 2, SEED).int()
    order = torch.randperm(120, generator=torch.Generator().manual_seed(0))
    shuffled = patches.make_patches(images[order], ids[order], 11, 2, SEED).int()
    parts = [patches.make_patches(images[part], ids[part], 11, 2, SEED).int() for part in ids.split(7)]
    for other in (shuffled, together[order]), (torch.cat(parts), together):
        difference = (other[0] - other[1]).abs()
        assert difference.max() <= 1 and (difference > 0).float().mean() < 1e-3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_same_patches_on_cuda():
    """The same draws; pixels at most one level apart, in the few places where a rounding falls the other way."""
    images, ids = random_images(2000, 3, 32), torch.arange(2000)
    for here, there in zip(patches.sample(ids, 2, SEED), patches.sample(ids.cuda(), 2, SEED), strict=True):
        assert torch.equal(here.operation, there.operation.cpu())
        assert torch.equal(here.horizontal, there.horizontal.cpu())
    made = patches.make_patches(images, ids, 11, 2, SEED)
    on_device = patches.make_patches(images.cuda(), ids.cuda(), 11, 2, SEED)
    difference = (made.int() - on_device.cpu().int()).abs()
    assert difference.max() <= 1 and (difference > 0).float().mean() < 1e-2
    chosen = ids % 2 == 0
    pasted = patches.paste(images.cuda(), on_device, chosen.cuda())
    assert pasted.is_cuda and torch.equal(pasted.cpu(), patches.paste(images, on_device.cpu(), chosen))
