"""Random numbers depend on seed, image id, stream and position, on nothing else, and behave like independent uniforms.

Seeds are fixed, so each statistical test gives the same answer every time. Thresholds were chosen before the first
run: p > 1e-3 for a test of a distribution, five standard errors for a correlation.
"""

import pytest
import torch
from scipy import stats

from reprolib import streams

P_MINIMUM = 1e-3
IDS = torch.arange(100_000)


def neighbours(kind):
    """Two lists of 100 000 numbers whose addresses differ by one in `kind` alone."""
    here = streams.uniform(5, IDS, 3, (2,))
    there = {
        "id": lambda: streams.uniform(5, IDS + 1, 3, (2,))[:, 0],
        "stream": lambda: streams.uniform(5, IDS, 4, (2,))[:, 0],
        "seed": lambda: streams.uniform(6, IDS, 3, (2,))[:, 0],
        "position": lambda: here[:, 1],
    }[kind]()
    return here[:, 0], there


# --- what an image draws does not depend on its company ---


def test_alone_in_a_batch_and_in_another_order():
    ids = torch.tensor([4, 17, 0, 59_999, 17])
    together = streams.uniform(7, ids, 2, (3, 4))
    assert together.shape == (5, 3, 4) and together.dtype == torch.float32
    for row, one in zip(together, ids, strict=True):
        assert torch.equal(streams.uniform(7, one[None], 2, (3, 4))[0], row)
    order = torch.tensor([3, 1, 0, 4, 2])
    assert torch.equal(streams.uniform(7, ids[order], 2, (3, 4)), together[order])


def test_one_id_repeats_itself_and_another_does_not():
    numbers = streams.uniform(7, torch.tensor([17, 17, 18]), 2, (20,))
    assert torch.equal(numbers[0], numbers[1])
    assert not (numbers[0] == numbers[2]).any()


def test_the_first_numbers_do_not_depend_on_how_many_are_asked_for():
    ids = torch.arange(6)
    assert torch.equal(streams.uniform(1, ids, 0, (50,))[:, :9], streams.uniform(1, ids, 0, (3, 3)).flatten(1))


def test_a_stream_for_each_image():
    ids, chosen = torch.arange(5), torch.tensor([0, 3, 1, 3, 2])
    together = streams.uniform(9, ids, chosen, (8,))
    for row, one, stream in zip(together, ids, chosen, strict=True):
        assert torch.equal(streams.uniform(9, one[None], int(stream), (8,))[0], row)


def test_the_library_generator_is_neither_read_nor_moved():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = streams.uniform(3, IDS[:10], 0, (4,))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(streams.uniform(3, IDS[:10], 0, (4,)), first)


def test_no_images_and_no_numbers():
    assert streams.uniform(3, IDS[:0], 0, (4,)).shape == (0, 4)
    assert streams.uniform(3, IDS[:2], 0, ()).shape == (2,)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_same_bits_on_cuda():
    assert torch.equal(streams.uniform(3, IDS.cuda(), 2, (7,)).cpu(), streams.uniform(3, IDS, 2, (7,)))


# --- they are uniform and independent ---


def test_the_interval_is_open():
    """Not even 4 million numbers must meet an end; all are middles of 2**23 equal cells, so none ever does."""
    numbers = streams.uniform(0, IDS, 0, (40,))  # 4 million
    assert (numbers.double() * 2**23 % 1 == 0.5).all()
    assert 0 < numbers.min() < 2**-18 and 1 - 2**-18 < numbers.max() < 1


@pytest.mark.parametrize("seed", [0, 1, -1, 2023, 2**40, 2**62 - 1, -(2**62) + 1])
@pytest.mark.parametrize("first_id", [0, 2**31, 2**63 - 60_000])
def test_uniform_also_for_large_seeds_and_ids(seed, first_id):
    ids = first_id + torch.arange(20_000)
    numbers = streams.uniform(seed, ids, 1, (2,))
    assert stats.kstest(numbers.flatten().double().numpy(), "uniform").pvalue > P_MINIMUM


def test_uniform_within_one_image():
    numbers = streams.uniform(0, torch.tensor([0]), 0, (200_000,))[0]
    assert stats.kstest(numbers.double().numpy(), "uniform").pvalue > P_MINIMUM


@pytest.mark.parametrize("kind", ["id", "stream", "seed", "position"])
def test_neighbours_are_not_correlated(kind):
    here, there = neighbours(kind)
    assert abs(stats.pearsonr(here.numpy(), there.numpy()).statistic) < 5 / len(IDS) ** 0.5


@pytest.mark.parametrize("kind", ["id", "stream", "seed", "position"])
def test_pairs_of_neighbours_fill_the_square_evenly(kind):
    here, there = neighbours(kind)
    cells = torch.bincount((here * 16).long() * 16 + (there * 16).long(), minlength=256)
    assert stats.chisquare(cells.numpy()).pvalue > P_MINIMUM


@pytest.mark.parametrize("bit", range(8))
def test_each_leading_bit_is_even_and_free_of_its_neighbour(bit):
    here, there = ((numbers * 2 ** (bit + 1)).long() % 2 for numbers in neighbours("id"))
    pairs = torch.bincount(here * 2 + there, minlength=4)
    assert stats.chisquare(pairs.numpy()).pvalue > P_MINIMUM


def test_large_seeds_and_ids_stay_apart():
    ids = torch.tensor([0, 1, -1, 2**31, 2**32, 2**33, 2**62, 2**63 - 1, -(2**63)])
    seeds = [0, 1, -1, 2**31, 2**32, 2**61, 2**62 - 1, -(2**62) + 1]
    rows = torch.cat([streams.uniform(seed, ids, stream, (6,)) for seed in seeds for stream in (0, 1, 2**40)])
    assert len(torch.unique(rows, dim=0)) == len(ids) * len(seeds) * 3
