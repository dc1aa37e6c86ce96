"""Networks and images of the benchmark; everything is made here from seeds and the embedded sample, nothing
downloaded.
"""

from __future__ import annotations

import copy
import functools

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from reprolib import attacks, data, networks

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def vgg16() -> nn.Module:
    """VGG-16 with batch normalisation for 32x32 images, random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        features = torchvision.models.vgg16_bn(weights=None).features
        net = nn.Sequential(networks.Normalize((0.5,) * 3, (0.25,) * 3), features, nn.Flatten(), nn.Linear(512, 10))
    return net.to(DEVICE, memory_format=torch.channels_last).eval().requires_grad_(False)


def squeezenet() -> nn.Module:
    """SqueezeNet 1.1 for ten classes and 224x224 images, random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = torchvision.models.squeezenet1_1(weights=None, num_classes=10)
    return nn.Sequential(networks.Normalize((0.5,) * 3, (0.25,) * 3), net).to(DEVICE).eval()


def cifarconv(reading: str = "cifarconv") -> nn.Module:
    return networks.build(reading).to(DEVICE).requires_grad_(False)


def random_images(count: int, net: nn.Module) -> tuple[Tensor, Tensor]:
    """Images [count, 3, 32, 32] with the labels that the network gives them, so that all are classified correctly."""
    images = torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    with torch.no_grad():
        return images, torch.cat([net(some).argmax(1) for some in images.split(500)])


@functools.cache
def sample() -> data.Dataset:
    return data.load("fashion-mnist-sample", device=DEVICE)


@functools.cache
def undefended() -> nn.Module:
    return _trained(sample(), adversarially=False, epochs=4)


@functools.cache
def sturdy() -> nn.Module:
    return _trained(sample(), adversarially=True, epochs=6)


def _trained(dataset: data.Dataset, *, adversarially: bool, epochs: int) -> nn.Module:
    """F-MNISTconv after a short training on the sample; adversarially, on what a short PGD makes of each batch."""
    net = networks.build("fmnistconv").to(DEVICE)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    order = torch.Generator().manual_seed(2)
    for epoch in range(epochs):
        for rows in torch.randperm(len(dataset.train), generator=order).to(DEVICE).split(64):
            images, labels = dataset.train.images[rows].float() / 255, dataset.train.labels[rows]
            if adversarially:
                frozen = copy.deepcopy(net)
                images = attacks.pgd(frozen, 0.1, 0.04, 5, 1, loss="logits", decision="last", seed=epoch)(
                    images, labels
                )
            net.train()
            loss = F.cross_entropy(net(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net.eval().requires_grad_(False)


def first_images(split: data.Split, count: int) -> tuple[Tensor, Tensor]:
    return split.images[:count].float() / 255, split.labels[:count]


def correct_images(net: nn.Module, split: data.Split, count: int) -> tuple[Tensor, Tensor]:
    """The first `count` test images that the network classifies correctly."""
    images = split.images.float() / 255
    with torch.no_grad():
        right = torch.cat([net(some).argmax(1) for some in images.split(500)]) == split.labels
    rows = right.nonzero().squeeze(1)[:count]
    return images[rows], split.labels[rows]


def radius_for(net: nn.Module, images: Tensor, labels: Tensor, share: float) -> float:
    """The smallest of a ladder of radii at which at most `share` percent of the images survive a PGD of 20 steps."""
    for step in range(1, 31):
        eps = step / 100
        survivors = attacks.pgd(net, eps, eps / 8, 20, 1, loss="margin").run(images, labels).robust()
        if 100 * float(survivors.float().mean()) <= share:
            return eps
    raise RuntimeError(f"more than {share:g} % survive at every radius up to 0.3: train the network for less long")
