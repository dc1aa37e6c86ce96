"""Search in bfloat16, judge in float32 (`bfloat16=True`): does it leave more standing than float32 alone?

python benchmarks/bf16_search.py                 1000 images, 3 networks, 2 radii, PGD by margin and the cascade (mostly
                                                 by DLR); writes results/bf16_search.md, status 1 if it does
python benchmarks/bf16_search.py --images 100    a look, which proves nothing and is not written

Losses from `logits` and `probabilities` are not asked: there the rounding is the finding.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import torch
from networks import DEVICE, first_images, radius_for, sample, sturdy
from torch import Tensor, nn

from reprolib import attacks, data
from reprolib.devices import has_fast_bfloat16
from reprolib.paper.files import write_atomically
from reprolib.paper.run import load_published
from reprolib.paper.run.origin import stamp

MOST = 0.1  # points more standing than by float32 alone
STEPS, RESTARTS = 40, 5
RESULT = Path(__file__).parent / "results" / "bf16_search.md"
NETWORKS = "results/cpu/networks"

Search = Callable[[nn.Module, float, bool], attacks.LinfAttack | attacks.Cascade]


def margin(net: nn.Module, eps: float, bfloat16: bool) -> attacks.LinfAttack:
    return attacks.pgd(net, eps, eps / 10, STEPS, RESTARTS, loss="margin", bfloat16=bfloat16)


def cascade(net: nn.Module, eps: float, bfloat16: bool) -> attacks.Cascade:
    return attacks.cascade(net, eps, bfloat16=bfloat16)


def cases(count: int) -> Iterator[tuple[str, nn.Module, float, Tensor, Tensor]]:
    """Three networks at two radii each: where about half of the images stand and where fewer do."""
    fashion = first_images(sample().test, count)
    yield from _at_two_radii("F-MNISTconv, adversarially trained", sturdy(), fashion)
    saturated = load_published(f"{NETWORKS}/table06_fashion_mnist_7-P1.safetensors").to(DEVICE)
    yield from _at_two_radii("F-MNISTconv, saturated (Table 6's 7-P1)", saturated, fashion)
    trained = load_published(f"{NETWORKS}/table05_vgg16_FGSM_AT.safetensors").to(DEVICE)
    split = data.load("cifar-10", device=DEVICE).test
    yield from _at_two_radii("VGG-16, an eighth wide, FGSM-AT (Table 5)", trained, first_images(split, count))


def _at_two_radii(
    name: str, net: nn.Module, shown: tuple[Tensor, Tensor]
) -> Iterator[tuple[str, nn.Module, float, Tensor, Tensor]]:
    for share in (46, 20):
        yield name, net, radius_for(net, *shown, share), *shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    count = parser.parse_args().images
    print(f"{DEVICE}, fast bfloat16: {has_fast_bfloat16(DEVICE)}, {count} images", flush=True)
    rows = []
    for name, net, eps, *shown in cases(count):
        for search in (margin, cascade):
            rows.append({"network": name, "eps": eps, "search": search.__name__} | compared(search, net, eps, *shown))
            print(rows[-1], flush=True)
    if count == 1000:
        write_atomically(RESULT, page(rows).encode())
        print(f"written: {RESULT}")
    sys.exit(any(row["points more"] > MOST for row in rows))


def page(rows: list[dict]) -> str:
    made = stamp(DEVICE)
    return (
        "# Search in bfloat16, judge in float32\n\n"
        "`python benchmarks/bf16_search.py`: what stands of 1000 test images, in percent, after PGD by margin "
        f"({STEPS} steps, {RESTARTS} restarts) and after the cascade, in float32 alone and with `bfloat16=True`, and "
        f"the ratio of their times. {made['device']}, commit {made['commit'][:10]}.\n\n"
        f"{pd.DataFrame(rows).to_markdown(index=False)}\n"
    )


def compared(search: Search, net: nn.Module, eps: float, images: Tensor, labels: Tensor) -> dict[str, float]:
    """What stands in percent, by float32 alone and by both, and the ratio of their times."""
    alone, slow = timed(lambda: search(net, eps, False).run(images, labels).robust())
    both, quick = timed(lambda: search(net, eps, True).run(images, labels).robust())
    more = round(percent(both) - percent(alone), 2)
    found = {"float32": percent(alone), "bfloat16 first": percent(both), "points more": more}
    return found | {"times as fast": round(slow / quick, 2)}


def timed(run: Callable[[], Tensor]) -> tuple[Tensor, float]:
    started = time.perf_counter()
    found = run()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return found, time.perf_counter() - started


def percent(stands: Tensor) -> float:
    return round(100 * float(stands.float().mean()), 2)


if __name__ == "__main__":
    main()
