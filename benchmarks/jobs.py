"""The jobs of the benchmark: each returns a title, what counts, the figure to reach, and a row per contestant, ours
first.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from before import COMMIT, NOTEBOOKS, Checkout
from networks import (
    DEVICE,
    cifarconv,
    correct_images,
    first_images,
    radius_for,
    random_images,
    sample,
    squeezenet,
    sturdy,
    undefended,
    vgg16,
)
from peers import (
    art_pgd,
    foolbox_pgd,
    kornia_operations,
    kornia_patches,
    pil_patches,
    torchattacks_autoattack,
    torchattacks_multi,
    torchattacks_pgd,
    torchattacks_restarts,
    torchvision_patches,
)
from quick import jobs as quick
from timing import race
from torch import Tensor, nn

from reprolib import attacks, data, defenses, patches, training
from reprolib import networks as reproduced
from reprolib.attacks.captured import cuda_graph
from reprolib.devices import has_fast_bfloat16
from reprolib.networks.cpu.folding import folded
from reprolib.paper.run import load_published

ALPHA_SHARE = 0.1  # of eps, a step
LARGEST = 6144  # megabytes (2**20 bytes) that training and attacks at 224 px may take


def steps(name: str, net: nn.Module, count: int, rounds: int) -> dict:
    """PGD's bare speed: every image takes every step. The radius is too small to break anything or to meet its
    border.
    """
    images, labels = random_images(count, net)
    length, eps = 40, 1e-6
    run = {"eps": eps, "alpha": eps / (2 * length), "steps": length}

    def ours() -> dict:
        result = attacks.pgd(net, **run, restarts=1, loss="logits", decision="last").run(images, labels)
        return {"evaluations": result.calls, "robust": _percent(result.robust("last"))}

    def of(attack) -> dict:
        return {
            "evaluations": length * count,
            "robust": _percent(_right(net, attack(net, *run.values(), images, labels), labels)),
        }

    rows = race(
        {
            "reprolib": ours,
            "torchattacks, loop": lambda: of(torchattacks_pgd),
            "foolbox": lambda: of(foolbox_pgd),
            "ART": lambda: of(art_pgd),
        },
        rounds,
    )
    return {
        "job": f"PGD steps, no early exit, {name}",
        "target": {"torchattacks, loop": 2.5},
        "size": f"{count} images, {length} steps",
        "rows": rows,
    }


def restarts(
    name: str, net: nn.Module, images: Tensor, labels: Tensor, eps: float, targets: tuple, rounds: int, **options
) -> dict:
    """PGD-100 with ten restarts, end to end. Ours counts any iterate, which can only find more than the last one.

    options: of ours. The others climb cross-entropy from logits in float32.
    """
    run = {"eps": eps, "alpha": ALPHA_SHARE * eps, "steps": 100, "restarts": 10}

    def ours() -> dict:
        result = attacks.pgd(net, **run, **{"loss": "logits"} | options).run(images, labels)
        return {"evaluations": result.calls, "robust": _percent(result.robust())}

    rows = race(
        {
            "reprolib": ours,
            "torchattacks, loop of ten": lambda: {
                "robust": _percent(torchattacks_restarts(net, *run.values(), images, labels))
            },
            "torchattacks, MultiAttack": lambda: {
                "robust": _percent(torchattacks_multi(net, *run.values(), images, labels))
            },
        },
        rounds,
    )
    return {
        "job": f"PGD-100 x 10 restarts, {name}",
        "target": dict(zip(("torchattacks, loop of ten", "torchattacks, MultiAttack"), targets, strict=True)),
        "size": f"{len(images)} images, eps {eps:g}",
        "rows": rows,
    }


def autoattack(net: nn.Module, images: Tensor, labels: Tensor, eps: float, rounds: int) -> dict:
    def ours() -> dict:
        return {"robust": _percent(attacks.AutoAttack(net, eps).run(images, labels).robust())}

    def theirs() -> dict:
        return {"robust": _percent(torchattacks_autoattack(net, eps, images, labels))}

    rows = race({"reprolib": ours, "torchattacks, the parts in turn": theirs}, rounds, warm_up=False)
    size = f"{len(images)} images, eps {eps:g}"
    return {"job": "AutoAttack standard, adversarially trained net", "target": 2.0, "size": size, "rows": rows}


def compilation(name: str, net: nn.Module, count: int, rounds: int) -> dict:
    """Ten gradients with the network as it is, compiled, with its batch normalisation folded (parameters frozen
    before) and, on a GPU, from a captured graph; what compiling, folding and capturing take is not counted."""
    images, labels = random_images(count, net)
    compiled = torch.compile(net, dynamic=False)

    def of(model: Callable[[Tensor], Tensor]) -> dict:
        for _ in range(10):
            x = images.clone().requires_grad_()
            torch.autograd.grad(F.cross_entropy(model(x), labels, reduction="sum"), x)
        return {"evaluations": 10 * count}

    contestants = {"as it is": lambda: of(net), "torch.compile": lambda: of(compiled)}
    if any(isinstance(module, nn.BatchNorm2d) for module in net.modules()):
        without = folded(net)
        contestants["batch normalisation folded"] = lambda: of(without)
    if DEVICE.type == "cuda":
        captured = cuda_graph(net, images)  # the answers are compared where attacks capture, and in the tests
        contestants["captured graph"] = lambda: of(captured)
    rows = race(contestants, rounds)
    return {"job": f"ten gradients, {name}", "target": None, "size": f"{count} images", "rows": rows}


def precision(name: str, net: nn.Module, images: Tensor, labels: Tensor, eps: float, loss: str, rounds: int) -> dict:
    """The same attack in float32, and in bfloat16 but for its last run."""
    run = {"eps": eps, "alpha": ALPHA_SHARE * eps, "steps": 40, "restarts": 2, "loss": loss}

    def of(bfloat16: bool) -> dict:
        return {"robust": _percent(attacks.pgd(net, **run, bfloat16=bfloat16).run(images, labels).robust())}

    rows = race({"float32": lambda: of(False), "bfloat16": lambda: of(True)}, rounds)
    size = f"{len(images)} images, eps {eps:g}"
    return {"job": f"precision of the gradients, {name}, {loss}", "target": None, "size": size, "rows": rows}


def training_precision(name: str, width: float, steps: int, rounds: int) -> dict:
    """Training steps of one of CIFAR-10's networks in float32 and in bfloat16, as `training` takes them."""
    generator = torch.Generator().manual_seed(4)
    images = torch.rand(128, 3, 32, 32, generator=generator).to(DEVICE)
    labels = torch.randint(0, 10, (128,), generator=generator).to(DEVICE)

    def of(bfloat16: bool) -> dict:
        net = reproduced.build(name, width=width).to(DEVICE).train()
        optimizer = torch.optim.RMSprop(net.parameters(), lr=1e-3, alpha=0.9, eps=1e-7)
        for _ in range(steps):
            with torch.autocast(DEVICE.type, torch.bfloat16, enabled=bfloat16):
                logits = net(images)
            loss = F.cross_entropy(logits.float(), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return {"images": steps * len(images)}

    rows = race({"float32": lambda: of(False), "bfloat16": lambda: of(True)}, rounds)
    return {
        "job": f"precision of training, {name}",
        "target": None,
        "size": f"width {width:g}, {steps} steps of 128 images",
        "rows": rows,
    }


def operations(count: int, rounds: int) -> list[dict]:
    """A random operation on the central 7x7 patch of each 32x32 image; the peers do without those that they lack, and
    begin with patches that are cut and float, but where only operations that both have are raced.
    """
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator).to(DEVICE)
    ids, chosen = torch.arange(count, device=DEVICE), torch.randint(0, 9, (count,), generator=generator)
    cut = images[:, :, 12:19, 12:19]
    floats, pick = cut.float() / 255, chosen.to(DEVICE)
    pictures = cut.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    kornia = kornia_operations(7)
    few = slice(0, max(count // 10, 1))  # a Python loop over all of them would take minutes

    batched = race(
        {
            "reprolib": lambda: {"images": len(patches.make_patches(images, ids, 7, 1, 0))},
            "kornia, per sample": lambda: {"images": len(kornia_patches(kornia, floats, pick % len(kornia)))},
        },
        rounds,
    )
    seven = torch.randint(0, 7, (count,), generator=generator).to(DEVICE)
    both = torch.tensor([0, 1, 2, 4, 6, 7, 8], device=DEVICE)[seven]  # all but Poisson and speckle noise
    draws = dataclasses.replace(patches.sample(ids, 1, 0)[0], operation=both)
    theirs = torch.tensor([0, 1, 2, 0, 3, 0, 4, 5, 6], device=DEVICE)[both]  # of two flips, the one that ours draws
    theirs = torch.where((both == 8) & ~draws.horizontal, 7, theirs)
    alike = race(
        {
            "reprolib": lambda: {"images": len(patches.apply(floats, draws))},
            "kornia, per sample": lambda: {"images": len(kornia_patches(kornia, floats, theirs))},
        },
        rounds,
    )
    loops = race(
        {
            "reprolib": lambda: {"images": len(patches.make_patches(images[few], ids[few], 7, 1, 0))},
            "torchvision v2, image by image": lambda: {"images": len(torchvision_patches(floats[few], chosen[few]))},
            "Pillow, image by image": lambda: {"images": len(pil_patches(pictures[few], chosen[few].numpy()))},
        },
        rounds,
    )
    job = "nine patch operations, per-image draws"
    return [
        {"job": job, "target": 10.0, "size": f"{count} images of 32x32", "rows": batched},
        {"job": "the seven patch operations that kornia has", "target": 1.0, "size": f"{count} patches", "rows": alike},
        {"job": f"{job}, few", "target": None, "size": f"{len(floats[few])} images of 32x32", "rows": loops},
    ]


def epoch(rounds: int) -> dict:
    """Fine-tuning on N images and N patched copies, against a bare loop over 2N ready float images."""
    epochs = 2
    drawn = sample()  # four times over: an epoch should not be so short that what comes before it counts
    many = data.Split(drawn.train.images.repeat(4, 1, 1, 1), drawn.train.labels.repeat(4))
    dataset = dataclasses.replace(drawn, train=many)
    made = patches.make_patches(dataset.train.images, torch.arange(len(dataset.train), device=DEVICE), 7, 1, 0)
    copies = patches.paste(dataset.train.images, made, torch.ones(len(dataset.train), dtype=torch.bool, device=DEVICE))
    ready = torch.cat([dataset.train.images, copies]).float() / 255
    labels = dataset.train.labels.repeat(2)

    def ours() -> dict:
        net, test = reproduced.build("fmnistconv").to(DEVICE), (dataset.test.images, dataset.test.labels)
        defence, recipe = defenses.Patched(size=7, count=1), training.Recipe("rmsprop")
        training.fit(
            net, dataset.train.images, dataset.train.labels, defence, recipe, epochs=epochs, test=test, progress=False
        )
        return {"images": epochs * len(ready)}

    def bare() -> dict:
        net = reproduced.build("fmnistconv").to(DEVICE).train()
        optimizer = torch.optim.RMSprop(net.parameters(), lr=1e-3, alpha=0.9, eps=1e-7)
        for _ in range(epochs):
            for rows in torch.randperm(len(ready)).to(DEVICE).split(128):
                with torch.autocast(DEVICE.type, torch.bfloat16, enabled=has_fast_bfloat16(DEVICE)):
                    logits = net(ready[rows])
                loss = F.cross_entropy(logits.float(), labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            training.clean_accuracy(
                net, dataset.test.images, dataset.test.labels
            )  # which ours measures after each epoch
        return {"images": epochs * len(ready)}

    rows = race({"reprolib": ours, "bare loop over ready images": bare}, rounds)
    return {
        "job": "fine-tuning, N images + N patch copies",
        "target": 0.95,
        "size": f"{epochs} epochs, N = {len(dataset.train)}",
        "rows": rows,
    }


def memory(count: int) -> dict:
    """Peak memory of a process that attacks CIFAR-10-sized images with ten restarts; a few steps show the peak."""
    rows = [{"who": who, "megabytes": _peak(who, count)} for who in ("reprolib", "torchattacks, loop of ten")]
    for row in rows:
        row["ratio"] = round(row["megabytes"] / rows[0]["megabytes"], 3)
    return {
        "job": "peak memory, 10 restarts, CIFARconv (EMPIR)",
        "target": 1.0,
        "size": f"{count} images",
        "rows": rows,
    }


def memory_224(work: str, count: int) -> dict:
    """Peak memory of a process that trains on, or attacks, images as large as ImageNet's; a few steps show the peak.
    The peer is what a small machine has to spare."""
    ours = _peak(f"reprolib, {work}", count)
    rows = [{"who": "reprolib", "megabytes": ours, "ratio": 1.0}]
    rows += [{"who": "6 GiB", "megabytes": LARGEST, "ratio": round(LARGEST / ours, 3)}]
    size = f"{count} images of 224x224"
    return {"job": f"peak memory at 224 px, {work}, SqueezeNet 1.1", "target": 1.0, "size": size, "rows": rows}


def _peak(who: str, count: int) -> float:
    done = subprocess.run(
        [sys.executable, __file__, who, str(count)], capture_output=True, text=True, check=True
    )  # a process of its own: memory once taken is not given back
    return float(done.stdout.split()[-1])


def _work_and_tell_the_peak(who: str, count: int) -> None:
    run = {"eps": 0.03, "alpha": 0.01, "steps": 2, "restarts": 10}
    if who.startswith("reprolib, "):
        _work_at_224(who.removeprefix("reprolib, "), count)
    else:
        net = cifarconv("cifarconv-empir")
        images, labels = random_images(count, net)
        if who == "reprolib":
            attacks.pgd(net, **run, loss="logits", decision="last").run(images, labels)
        else:
            torchattacks_restarts(net, *run.values(), images, labels)
    if torch.cuda.is_available():
        print(torch.cuda.max_memory_allocated() / 2**20)
    else:  # of this program alone: getrusage would also count the process that started it
        (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
        print(int(line.split()[1]) / 2**10)


def _work_at_224(work: str, count: int) -> None:
    """Auto-PGD, of all attacks the one that keeps most for each image; or an epoch of the default batches, with as many
    test images."""
    net, generator = squeezenet(), torch.Generator().manual_seed(5)
    images = torch.randint(0, 256, (count, 3, 224, 224), dtype=torch.uint8, generator=generator).to(DEVICE)
    if work == "training":
        labels = torch.randint(0, 10, (count,), generator=generator).to(DEVICE)
        training.fit(net, images, labels, epochs=1, test=(images, labels), progress=False)
    else:
        shown = images.float() / 255
        with torch.no_grad():
            labels = torch.cat([net(some).argmax(1) for some in shown.split(10)])
        attacks.AutoAttack(net, 1e-4, parts=("APGD-CE",), steps=2).run(shown, labels)


def since(job: str, size: str, work: Callable[[Checkout], dict], rounds: int) -> dict:
    """The same work by the newest commit and by the one before the slot engine, with all that a run needs beside it."""
    with tempfile.TemporaryDirectory() as folder:
        today, before = Checkout("HEAD", folder), Checkout(COMMIT, folder)
        contestants = {"reprolib": lambda: work(today), f"reprolib at {COMMIT}": lambda: work(before)}
        rows = race(contestants, rounds, warm_up=False)
    return {"job": job, "target": 1.0, "size": size, "rows": rows}


def _right(net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([net(some).argmax(1) for some in images.split(500)]) == labels


def _percent(kept: Tensor) -> float:
    return round(100 * float(kept.float().mean()), 2)


def everything(scale: float, rounds: int, only: str = ""):
    """All jobs, one after the other, or those whose name begins with `only`; `scale` multiplies the numbers of images.

    What fails is told and the rest goes on: a lent GPU has no second hour. Raises SystemExit for a name that no job
    begins with, and at the end where a job failed.
    """
    chosen = {name: job for name, job in JOBS.items() if name.startswith(only)}
    if not chosen:
        sys.exit(f"error: no job begins with {only!r}; expected one of {', '.join(JOBS)}")
    failed = []
    for name, job in chosen.items():
        try:
            yield from job(lambda count: max(int(count * scale), 8), rounds)
        except Exception:
            traceback.print_exc()
            failed.append(name)
    if failed:
        sys.exit(f"error: {', '.join(failed)} failed, see above; the results of the others are written")


def _steps(images: Callable[[int], int], rounds: int):
    yield steps("CIFARconv", cifarconv(), images(256), rounds)
    yield steps("VGG-16", vgg16(), images(32), rounds)


def _compilation(images: Callable[[int], int], rounds: int):
    yield compilation("CIFARconv", cifarconv(), images(256), rounds)
    yield compilation("VGG-16", vgg16(), images(64), rounds)


def _restarts(images: Callable[[int], int], rounds: int):
    shown = correct_images(undefended(), sample().test, images(200))
    radius = radius_for(undefended(), *shown, 1)
    yield restarts("undefended [<= 2 %]", undefended(), *shown, radius, (60, 8), rounds)
    shown = correct_images(sturdy(), sample().test, images(200))
    radius = radius_for(sturdy(), *shown, 46)
    yield restarts("adversarially trained [45 %]", sturdy(), *shown, radius, (4, 2), rounds)
    if has_fast_bfloat16(DEVICE):
        name = "adversarially trained [45 %], ours by margin, in bfloat16 first"
        yield restarts(name, sturdy(), *shown, radius, (None, 1.4), rounds, loss="margin", bfloat16=True)


def _autoattack(images: Callable[[int], int], rounds: int):
    shown = correct_images(sturdy(), sample().test, images(500))
    yield autoattack(sturdy(), *shown, radius_for(sturdy(), *shown, 46), 1)  # minutes each


def _precision(images: Callable[[int], int], rounds: int):
    shown = first_images(sample().test, images(1000))  # misclassified ones too: a percentage of all of them
    saturated = load_published("results/cpu/networks/table06_fashion_mnist_7-P1.safetensors").to(DEVICE)
    for name, net in (
        ("undefended", undefended()),
        ("adversarially trained net", sturdy()),
        ("saturated net", saturated),
    ):
        eps = 0.3 if net is saturated else radius_for(net, *shown, 46)
        for loss in ("margin", "logits"):
            yield precision(name, net, *shown, eps, loss, 1)
    yield training_precision("vgg16", 0.25, images(20), rounds)
    yield training_precision("resnet20", 1.0, images(20), rounds)


def _quick_batch(images: Callable[[int], int], rounds: int):
    yield since("the quick batch", f"{len(NOTEBOOKS)} notebooks", Checkout.quick_batch, min(rounds, 2))


def _table06(images: Callable[[int], int], rounds: int):
    count = images(300)
    size = f"{count} images, 3 networks"
    yield since("attacks of Table 6's cpu run", size, lambda code: code.table06(count), min(rounds, 2))


JOBS = {
    "steps": _steps,
    "compilation": _compilation,
    "restarts": _restarts,
    "autoattack": _autoattack,
    "cascade": lambda images, rounds: quick(images),  # minutes each, so one round
    "precision": _precision,
    "operations": lambda images, rounds: operations(images(20_000), rounds),
    "epoch": lambda images, rounds: [epoch(rounds)],
    "memory": lambda images, rounds: [memory(images(10_000))],
    "large-memory": lambda images, rounds: [
        memory_224(work, images(count)) for work, count in (("training", 256), ("attack", 48))
    ],
    "quick-batch": _quick_batch,
    "table06": _table06,
}


if __name__ == "__main__":
    _work_and_tell_the_peak(sys.argv[1], int(sys.argv[2]))
