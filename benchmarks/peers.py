"""The same jobs, done with the libraries that people use for them; each the way its documentation shows."""

from __future__ import annotations

import numpy as np
import torch
import torchattacks
from torch import Tensor, nn

BATCH = 256


def torchattacks_pgd(net: nn.Module, eps: float, alpha: float, steps: int, images: Tensor, labels: Tensor) -> Tensor:
    """One PGD from a random start in a plain loop over batches; adversarial images."""
    attack = torchattacks.PGD(net, eps=eps, alpha=alpha, steps=steps, random_start=True)
    batches = zip(images.split(BATCH), labels.split(BATCH), strict=True)
    return torch.cat([attack(some, truth) for some, truth in batches])


def torchattacks_restarts(
    net: nn.Module, eps: float, alpha: float, steps: int, restarts: int, images: Tensor, labels: Tensor
) -> Tensor:
    """bool [B]: survives all of `restarts` PGDs, each run on all images."""
    survives = torch.ones(len(images), dtype=torch.bool, device=images.device)
    for restart in range(restarts):
        torch.manual_seed(restart)
        survives &= is_right(net, torchattacks_pgd(net, eps, alpha, steps, images, labels), labels)
    return survives


def torchattacks_multi(
    net: nn.Module, eps: float, alpha: float, steps: int, restarts: int, images: Tensor, labels: Tensor
) -> Tensor:
    """bool [B]: survives torchattacks' MultiAttack, which hands each PGD only what survived those before."""
    torch.manual_seed(0)
    pgds = [torchattacks.PGD(net, eps=eps, alpha=alpha, steps=steps, random_start=True) for _ in range(restarts)]
    attack = torchattacks.MultiAttack(pgds)
    batches = zip(images.split(BATCH), labels.split(BATCH), strict=True)
    return is_right(net, torch.cat([attack(some, truth) for some, truth in batches]), labels)


def foolbox_pgd(net: nn.Module, eps: float, alpha: float, steps: int, images: Tensor, labels: Tensor) -> Tensor:
    import foolbox

    model = foolbox.PyTorchModel(net, bounds=(0, 1), device=images.device)
    attack = foolbox.attacks.LinfPGD(abs_stepsize=alpha, steps=steps, random_start=True)
    batches = zip(images.split(BATCH), labels.split(BATCH), strict=True)
    return torch.cat([attack(model, some, truth, epsilons=eps)[1] for some, truth in batches])


def art_pgd(net: nn.Module, eps: float, alpha: float, steps: int, images: Tensor, labels: Tensor) -> Tensor:
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    classifier = PyTorchClassifier(
        net, nn.CrossEntropyLoss(), tuple(images.shape[1:]), 10, clip_values=(0, 1), device_type=images.device.type
    )
    attack = ProjectedGradientDescentPyTorch(
        classifier, eps=eps, eps_step=alpha, max_iter=steps, num_random_init=1, batch_size=BATCH, verbose=False
    )
    return torch.from_numpy(attack.generate(images.cpu().numpy(), labels.cpu().numpy())).to(images.device)


def torchattacks_autoattack(net: nn.Module, eps: float, images: Tensor, labels: Tensor) -> Tensor:
    """bool [B]: survives AutoAttack's four parts with their standard settings, each on the survivors of those
    before.
    """
    common = {"norm": "Linf", "eps": eps, "n_restarts": 1, "seed": 0}
    targets = {"n_classes": min(net(images[:1]).shape[1], 10)}
    fab = {"alpha_max": 0.1, "eta": 1.05, "beta": 0.9, "multi_targeted": True}
    parts = [
        torchattacks.APGD(net, steps=100, loss="ce", rho=0.75, **common),
        torchattacks.APGDT(net, steps=100, rho=0.75, **targets, **common),
        torchattacks.FAB(net, steps=100, **fab, **targets, **common),
        torchattacks.Square(net, n_queries=5000, p_init=0.8, loss="margin", resc_schedule=False, **common),
    ]
    survives = is_right(net, images, labels)
    for attack in parts:
        for rows in survives.nonzero().squeeze(1).split(BATCH):
            survives[rows] = is_right(net, attack(images[rows], labels[rows]), labels[rows])
    return survives


def is_right(net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        batches = zip(images.split(BATCH), labels.split(BATCH), strict=True)
        return torch.cat([net(some).argmax(1) == truth for some, truth in batches])


def kornia_operations(size: int) -> list:
    """Those of the nine operations that kornia has, drawn per image; Poisson and speckle noise it lacks."""
    import kornia.augmentation as K

    always = {"p": 1.0, "same_on_batch": False}
    shift = (2 / size, 2 / size)
    return [
        K.RandomRotation((-10.0, -10.0), resample="bicubic", **always),
        K.RandomAffine(degrees=0.0, translate=shift, **always),
        K.RandomGaussianNoise(std=0.05**0.5, **always),
        K.RandomSaltAndPepperNoise(amount=(0.5, 0.5), **always),
        K.RandomGaussianBlur((7, 7), (1.5, 1.5), **always),
        K.RandomErasing(scale=(0.9, 1.0), ratio=(1.0, 1.0), **always),
        K.RandomHorizontalFlip(**always),
        K.RandomVerticalFlip(**always),
    ]


def kornia_patches(operations: list, patches: Tensor, chosen: Tensor) -> Tensor:
    """Each patch [B, C, n, n] through the operation that was drawn for it."""
    result = patches.clone()
    for index, operation in enumerate(operations):
        rows = (chosen == index).nonzero().squeeze(1)
        if len(rows):
            result[rows] = operation(patches[rows])
    return result


def torchvision_patches(patches: Tensor, chosen: Tensor) -> Tensor:
    """The same with torchvision v2, whose operations take one draw per call: image by image."""
    from torchvision.transforms import v2

    size = patches.shape[-1]
    operations = [
        v2.RandomRotation((-10, -10), interpolation=v2.InterpolationMode.BILINEAR),
        v2.RandomAffine(0, translate=(2 / size, 2 / size)),
        v2.GaussianNoise(sigma=0.05**0.5),
        v2.GaussianBlur(7, 1.5),
        v2.RandomErasing(p=1.0, scale=(0.9, 1.0), ratio=(1.0, 1.0)),
        v2.RandomHorizontalFlip(1.0),
        v2.RandomVerticalFlip(1.0),
    ]
    picks = (chosen % len(operations)).tolist()
    return torch.stack([operations[pick](patch) for patch, pick in zip(patches, picks, strict=True)])


def pil_patches(patches: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The same with Pillow, uint8 [B, n, n, 3], image by image, as a data loader's workers would."""
    from PIL import Image, ImageFilter

    operations = [
        lambda image: image.rotate(-10, Image.Resampling.BICUBIC),
        lambda image: image.transform(image.size, Image.Transform.AFFINE, (1, 0, -2, 0, 1, -2)),
        lambda image: image.filter(ImageFilter.GaussianBlur(1.5)),
        lambda image: image.point(lambda value: 0),
        lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    ]
    picks = zip(patches, chosen % len(operations), strict=True)
    return np.stack([np.asarray(operations[pick](Image.fromarray(patch))) for patch, pick in picks])
