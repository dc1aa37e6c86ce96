"""BPDA around nothing is PGD, and what a page says of it is counted."""

from reprolib.paper import show
from reprolib.paper.show import bpda


def test_around_nothing_bpda_makes_the_images_that_pgd_makes(table_6):
    said = show.bpda_beside_pgd(table_6, "PGD-v2", "7-P1", count=5)
    assert said.startswith("Of 5 test images, PGD-v2 by margin on 7-P1 moves 5; 5 come out bitwise the same")


def test_around_something_it_makes_others(table_6, monkeypatch):
    monkeypatch.setattr(bpda, "unchanged", lambda images: (4 * images).round() / 4)
    said = show.bpda_beside_pgd(table_6, "PGD-v2", "7-P1", count=5)
    assert "moves 5; 0 come out bitwise the same" in said
