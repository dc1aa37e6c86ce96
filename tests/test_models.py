"""The networks are those of Table 1: sizes, shapes, plain layers in the printed order, normalisation inside."""

import pytest
import torch
from torch import nn
from torchvision.transforms import functional

from reprolib import models

COUNTS = {"fmnistconv": 710_218, "cifarconv": 433_354, "cifarconv-empir": 116_704}
INPUTS = {"fmnistconv": (1, 28, 28), "cifarconv": (3, 32, 32), "cifarconv-empir": (3, 32, 32)}
FMNIST_STATISTICS = ([0.2860], [0.3530])
CIFAR_STATISTICS = ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616])


def pictures(name, batch=6, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, *INPUTS[name], generator=generator, dtype=torch.float64).to(dtype)


def plain_fmnistconv():
    return nn.Sequential(
        nn.Conv2d(1, 64, 8, stride=2, padding=3), nn.ReLU(),
        nn.Conv2d(64, 128, 6, stride=2), nn.ReLU(),
        nn.Conv2d(128, 128, 5), nn.ReLU(),
        nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip


def plain_cifarconv(kernel, widths, bias):
    first, second, third = widths
    return nn.Sequential(
        nn.Conv2d(3, first, 5, padding="same", bias=bias), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(first, second, kernel, padding="same", bias=bias), nn.ReLU(), nn.AvgPool2d(3, 2),
        nn.Conv2d(second, third, kernel, padding="same", bias=bias), nn.ReLU(), nn.AvgPool2d(3, 2),
        nn.Flatten(), nn.Linear(third * 9, 64, bias=bias), nn.Linear(64, 10, bias=bias),
    )  # fmt: skip


PLAIN = {
    "fmnistconv": (plain_fmnistconv, FMNIST_STATISTICS),
    "cifarconv": (lambda: plain_cifarconv(8, (32, 64, 64), True), CIFAR_STATISTICS),
    "cifarconv-empir": (lambda: plain_cifarconv(5, (32, 32, 64), False), CIFAR_STATISTICS),
}


def normalize(images, statistics):
    """torchvision's; the constants rounded to float32 first, as any network stores them (float64 would see that)."""
    return functional.normalize(images, *(torch.tensor(part).tolist() for part in statistics))


def twin(name, dtype=torch.float32):
    """The network and a plain chain of torch layers with the same weights, for images normalised outside."""
    model, plain = models.build(name, seed=3).to(dtype), PLAIN[name][0]().to(dtype)
    weights = [tensor for key, tensor in model.state_dict().items() if not key.startswith("normalize.")]
    plain.load_state_dict(dict(zip(plain.state_dict(), weights, strict=True)))
    return model, plain


def test_every_network_is_tested_here():
    assert set(COUNTS) == set(INPUTS) == set(PLAIN) == set(models.BUILDERS)


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts(name):
    assert models.parameter_count(models.build(name)) == COUNTS[name]
    assert sum(parameter.numel() for parameter in PLAIN[name][0]().parameters()) == COUNTS[name]


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("batch", [1, 5])
def test_shapes(name, batch):
    logits = models.build(name)(pictures(name, batch))
    assert logits.shape == (batch, 10) and logits.dtype == torch.float32 and logits.isfinite().all()


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_equals_plain_layers_behind_an_external_normalisation(name, dtype, tolerance):
    """Logits and input gradients: the quick forms of F-MNISTconv's convolutions change nothing."""
    model, plain = twin(name, dtype)
    inside, outside = (pictures(name, dtype=dtype).requires_grad_() for _ in range(2))
    weight = torch.linspace(-1, 1, 10, dtype=dtype)  # an arbitrary direction in the logits
    logits, expected = model(inside), plain(normalize(outside, PLAIN[name][1]))
    torch.testing.assert_close(logits, expected, atol=tolerance, rtol=tolerance)

    (logits * weight).sum().backward()
    (expected * weight).sum().backward()
    assert expected.std() > 0.01 and outside.grad.abs().max() > 0.001  # the comparison is not one of zeros
    torch.testing.assert_close(inside.grad, outside.grad, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("name", COUNTS)
def test_equal_weight_gradients(name):
    model, plain = twin(name, torch.float64)
    images = pictures(name, dtype=torch.float64)
    model(images).square().sum().backward()
    plain(normalize(images, PLAIN[name][1])).square().sum().backward()
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("name", COUNTS)
def test_normalisation_is_fixed(name):
    """Its constants are stored with the weights but are no parameters, and a training step leaves them alone."""
    model = models.build(name).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(pictures(name)).square().sum().backward()
    optimizer.step()
    after = model.state_dict()
    assert {key for key in before if torch.equal(before[key], after[key])} == {"normalize.mean", "normalize.std"}


@pytest.mark.parametrize("name, widths", [("cifarconv", (32, 64, 64)), ("cifarconv-empir", (32, 32, 64))])
def test_spatial_sizes_of_cifarconv(name, widths):
    model, sizes = models.build(name), []
    for layer in (model.conv1, model.conv2, model.conv3, model.fc1):
        layer.register_forward_pre_hook(lambda module, inputs: sizes.append(tuple(inputs[0].shape[1:])))
    model(pictures(name))
    assert sizes == [(3, 32, 32), (widths[0], 15, 15), (widths[1], 7, 7), (widths[2] * 3 * 3,)]


@pytest.mark.parametrize("name", COUNTS)
def test_a_seed_decides_the_weights(name):
    first, same, other = (models.build(name, seed=seed).state_dict() for seed in (4, 4, 5))
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in first if not key.startswith("normalize."))


@pytest.mark.parametrize("name", COUNTS)
def test_the_global_generator_is_neither_read_nor_moved(name):
    torch.manual_seed(11)
    state = torch.get_rng_state()
    first = models.build(name, seed=4).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(12)
    second = models.build(name, seed=4).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_global_generator_of_cuda_is_not_moved():
    torch.cuda.manual_seed_all(11)
    state = torch.cuda.get_rng_state()
    models.build("fmnistconv", seed=4)
    assert torch.equal(torch.cuda.get_rng_state(), state)


@pytest.mark.parametrize("name", COUNTS)
def test_eval_mode(name):
    assert not any(module.training for module in models.build(name).modules())


@pytest.mark.parametrize("name", ["fmnist-conv", "", "FMNISTConv"])
def test_unknown_name(name):
    with pytest.raises(KeyError) as error:
        models.build(name)
    assert repr(name) in str(error.value)
    assert all(known in str(error.value) for known in COUNTS)
