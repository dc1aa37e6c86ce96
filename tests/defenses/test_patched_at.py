"""The budget study's recipe: the paper's union of images and copies, each at the end of one step."""

import torch
from defenses.small import EPS, started
from small_networks import new

from reprolib import attacks, defenses
from reprolib.training import Batch


def test_each_image_and_each_copy_takes_fast_ats_step_from_its_own_place(tiny):
    images, labels = tiny.train.images, tiny.train.labels
    run = started(new(), defenses.PatchedAT(7, 1, eps=EPS, alpha=0.125), images, labels)
    plain = started(new(), defenses.Patched(7, 1), images, labels)
    rows = torch.tensor([4, 90, 4, 33])
    batch = Batch(images[rows], labels[rows].clone(), rows, torch.tensor([False, False, True, True]))
    union = plain.defence.images(plain, batch)
    assert not torch.equal(union[0], union[2])  # the image and its copy
    batch.labels.copy_(run.model.eval()(union).argmax(1))  # an attack that judges leaves alone what is wrong
    attack = attacks.pgd(run.model, EPS, 0.125, 1, 1, loss="logits", decision="last", seed=run.step_seed())
    found = run.defence.images(run, batch)
    assert torch.equal(found, attack.run(union, batch.labels, rows).adversarial)
    assert run.defence.passes == 2 and (found - union).abs().max() > 0.5 * EPS
