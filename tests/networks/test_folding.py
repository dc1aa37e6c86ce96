"""Folding batch normalisation changes the work, not the answers."""

import pytest
import torch
from torch import nn

from reprolib import attacks, networks
from reprolib.networks.cpu.folding import folded
from reprolib.networks.quantized import quantized

NETWORKS = {"vgg16": 0.125, "resnet50": 0.125, "resnet20": 1.0, "wide-resnet-16-4": 0.25}


def trained(name: str) -> nn.Module:
    """A network whose batch normalisations have all something to do, as after a training."""
    network = networks.build(name, seed=1, width=NETWORKS[name])
    generator = torch.Generator().manual_seed(2)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 2.0),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.5, 0.5),
            ):
                tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))
    return network


def normalisations(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize("name", NETWORKS)
def test_same_logits_and_gradients(name):
    network = trained(name)
    other = folded(network)
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(6, 3, 32, 32, generator=generator)
    found = []
    for net in (network, other):
        x = images.clone().requires_grad_()
        logits = net(x)
        found.append((logits.detach(), torch.autograd.grad(logits.logsumexp(1).sum(), x)[0]))
    for ours, theirs in zip(*found, strict=True):
        scale = float(ours.abs().max())
        assert scale > 1e-9  # the comparison is not one of zeros
        torch.testing.assert_close(theirs, ours, atol=1e-4 * scale, rtol=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_is_left_to_normalise_but_what_no_convolution_precedes(name):
    network = trained(name)
    convolutions_first = name != "wide-resnet-16-4"  # its blocks normalise before they convolve
    assert normalisations(network) > 10
    assert normalisations(folded(network)) == (0 if convolutions_first else 7)  # six blocks' first, and the last


@pytest.mark.parametrize("name", NETWORKS)
def test_the_network_itself_is_left_as_it_was(name):
    network = trained(name)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    copy = folded(network)
    for parameter in copy.parameters():
        parameter.data.zero_()
    assert not copy.training and network.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_a_convolution_that_others_read_too_is_kept():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)

        def forward(self, x):
            seen = self.conv(x)
            return (seen + self.norm(seen)).mean((2, 3))

    network = Both().eval()
    network.norm.running_mean.fill_(3.0)
    images = torch.rand(4, 1, 8, 8)
    torch.testing.assert_close(folded(network)(images), network(images))
    assert normalisations(folded(network)) == 1


def test_an_attack_finds_the_same_on_either():
    network = trained("resnet20")
    images = torch.rand(32, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        network.fc.bias -= network(images).mean(0)  # or it would give all images the same label, far from any other
    labels = network(images).argmax(1)
    pair = (network, folded(network))
    masks = [attacks.pgd(net, 0.002, 0.001, 5, 2, loss="margin").run(images, labels).robust() for net in pair]
    assert torch.equal(*masks) and 0 < int(masks[0].sum()) < 32


def test_train_mode_is_refused():
    with pytest.raises(ValueError, match="train mode.*call eval"):
        folded(trained("resnet20").train())


@pytest.mark.parametrize("name", ["fmnistconv", "cifarconv"])
def test_a_network_without_batch_normalisation_is_copied(name):
    network = networks.build(name)
    images = torch.rand(2, *((1, 28, 28) if name == "fmnistconv" else (3, 32, 32)))
    other = folded(network)
    assert other is not network and torch.equal(other(images), network(images))


def test_quantised_weights_are_not_folded_into():
    """What is folded into them would be rounded anew."""
    network = quantized(trained("resnet20"), 4, 4)
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    assert normalisations(folded(network)) == normalisations(network)
    torch.testing.assert_close(folded(network)(images), network(images))


def test_a_folded_network_refuses_what_the_network_refuses():
    with pytest.raises(ValueError, match="this network takes floats"):
        folded(trained("vgg16"))(torch.rand(2, 3, 40, 40))
