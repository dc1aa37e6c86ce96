"""The quick evaluation against the standard, both ours: what `attacks.cascade` leaves standing, in which time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import torch
from networks import DEVICE, correct_images, first_images, radius_for, sample, sturdy
from timing import race
from torch import Tensor, nn

from reprolib import attacks, data, defenses, training
from reprolib.networks.wideresnet import wide_resnet
from reprolib.paper.run import load_published

SAVING = 20  # times as fast, where a fifth of the images or more stand


def jobs(images: Callable[[int], int]) -> Iterator[dict]:
    """Two adversarially trained networks, and saturated ones at radii where nothing, little and much stands."""
    shown = correct_images(sturdy(), sample().test, images(500))
    yield quick("adversarially trained net", sturdy(), *shown, radius_for(sturdy(), *shown, 46), SAVING)
    split = data.load("cifar-10", device=DEVICE).test
    yield quick(
        "Wide-ResNet-10-1 on CIFAR-10", sturdy_wide_resnet(), *first_images(split, images(200)), 8 / 255, SAVING
    )
    shown = first_images(sample().test, images(300))
    for name in ("undefended", "7-P1", "no_patches"):
        net = load_published(f"results/cpu/networks/table06_fashion_mnist_{name}.safetensors").to(DEVICE)
        for eps in (0.3, 0.05, 0.02):
            target, rounds = (SAVING if eps == 0.02 else None), (5 if eps == 0.3 else 1)  # all fall in a second or two
            yield quick(f"Table 6's {name} at {eps:g}", net, *shown, eps, target, rounds)


def quick(
    name: str, net: nn.Module, images: Tensor, labels: Tensor, eps: float, target: float | None, rounds: int = 1
) -> dict:
    """In one thread, so that no core waits for another one in the batches of few images."""

    def of(attack: Callable) -> Callable[[], dict]:
        return lambda: {"robust": round(100 * float(attack(net, eps).run(images, labels).robust().float().mean()), 2)}

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        contestants = {"reprolib, cascade": of(attacks.cascade), "reprolib, AutoAttack": of(attacks.AutoAttack)}
        rows = race(contestants, rounds, warm_up=rounds > 1)  # one round takes minutes, where images stand
    finally:
        torch.set_num_threads(threads)
    return {"job": f"cascade, {name}", "target": target, "size": f"{len(images)} images, eps {eps:.3g}", "rows": rows}


@functools.cache
def sturdy_wide_resnet() -> nn.Module:
    """Some minutes of fast adversarial training at 8/255 on 10 000 images; a fifth of the test images stands."""
    train = data.load("cifar-10", device=DEVICE).train
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = wide_resnet(10, 1).to(DEVICE)
    defence, recipe = defenses.FastAT(8 / 255, 10 / 255), training.Recipe("adam", batch_size=64)
    training.fit(net, train.images[:10_000], train.labels[:10_000], defence, recipe, epochs=3, progress=False)
    return net.eval().requires_grad_(False)
