"""Search in bfloat16, then one float32 restart on what stands: does it ever leave more standing than float32 alone?

python benchmarks/bf16_search.py                 1000 images, 3 networks, 2 radii, margin and DLR; status 1 if it does
python benchmarks/bf16_search.py --images 100    a look, which proves nothing

Attacks calculate in float32 until this has passed on a device with fast bfloat16 (docs/speed.md). Losses from `logits`
and `probabilities` by the last iterate are not asked: there the rounding is the finding.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator

import pandas as pd
import torch
from networks import DEVICE, first_images, radius_for, sample, sturdy, undefended
from torch import Tensor, nn

from reprolib import attacks
from reprolib.devices import has_fast_bfloat16
from reprolib.paper.run import load_published

MOST = 0.1  # points more standing than by float32 alone
STEPS, RESTARTS = 40, 5

Search = Callable[[nn.Module, float, bool], attacks.AutoAttack | attacks.LinfAttack]


def margin(net: nn.Module, eps: float, bfloat16: bool) -> attacks.LinfAttack:
    return attacks.pgd(net, eps, eps / 10, STEPS, RESTARTS, loss="margin", bfloat16=bfloat16)


def dlr(net: nn.Module, eps: float, bfloat16: bool) -> attacks.AutoAttack:
    return attacks.AutoAttack(net, eps, parts=("APGD-T",), steps=STEPS, bfloat16=bfloat16)


def combined(search: Search, net: nn.Module, eps: float, images: Tensor, labels: Tensor) -> Tensor:
    """bool [B]: stands the search in bfloat16 and one float32 restart by margin."""
    stands = search(net, eps, True).run(images, labels).robust()
    rows = stands.nonzero().squeeze(1)
    last = attacks.pgd(net, eps, eps / 10, STEPS, 1, loss="margin", seed=1)
    stands[rows] = last.run(images[rows], labels[rows], ids=rows).robust()
    return stands


def cases(count: int) -> Iterator[tuple[str, nn.Module, float, Tensor, Tensor]]:
    """Three networks at two radii each: where about half of the images stand and where fewer do."""
    shown = first_images(sample().test, count)
    saturated = load_published("results/cpu/networks/table06_fashion_mnist_7-P1.safetensors").to(DEVICE)
    for name, net in (("undefended", undefended()), ("adversarially trained", sturdy()), ("saturated", saturated)):
        for share in (46, 20):
            yield name, net, radius_for(net, *shown, share), *shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    count = parser.parse_args().images
    print(f"{DEVICE}, fast bfloat16: {has_fast_bfloat16(DEVICE)}, {count} images", flush=True)
    rows = []
    for name, net, eps, *shown in cases(count):
        for search in (margin, dlr):
            rows.append({"network": name, "eps": eps, "loss": search.__name__} | compared(search, net, eps, *shown))
            print(rows[-1], flush=True)
    print(pd.DataFrame(rows).to_markdown(index=False))
    sys.exit(any(row["points more"] > MOST for row in rows))


def compared(search: Search, net: nn.Module, eps: float, images: Tensor, labels: Tensor) -> dict[str, float]:
    """What stands in percent, by float32 alone and by both, and the ratio of their times."""
    alone, slow = timed(lambda: search(net, eps, False).run(images, labels).robust())
    both, quick = timed(lambda: combined(search, net, eps, images, labels))
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
