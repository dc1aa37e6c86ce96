"""Draw the sample of Fashion-MNIST that is shipped in the package: the same number of images of every class.

    python tools/make_sample.py           write the sample in reprolib/data/ (needs the full Fashion-MNIST)
    python tools/make_sample.py --check   verify that the committed files are what this script draws

Training images come from the official training set, test images from the official test set. Images of one class are
drawn without replacement and laid out with the classes in turn (0, 1, ... 9, 0, 1, ...), so that every prefix is as
balanced as its length allows. `train_indices` and `test_indices` say which official images they are.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # works in a checkout where the package is not installed

from reprolib.data import DataError, Split, load  # noqa: E402

SEED = 2023
TRAIN_PER_CLASS, TEST_PER_CLASS = 300, 100
SAMPLE = ROOT / "reprolib" / "data" / "fashion_mnist_sample.npz"
LICENCE = ROOT / "reprolib" / "data" / "LICENSE-fashion-mnist"
LICENCE_TEXT = """\
fashion_mnist_sample.npz holds images and labels of Fashion-MNIST
(https://github.com/zalandoresearch/fashion-mnist), which come under this licence:

The MIT License (MIT)

Copyright (c) 2017 Zalando SE, https://tech.zalando.com

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""


def draw_indices(labels: np.ndarray, per_class: int, rng: np.random.RandomState) -> np.ndarray:
    """Indices [10 * per_class]: `per_class` random images of each class, the classes in turn."""
    drawn = [rng.permutation(np.flatnonzero(labels == label))[:per_class] for label in range(10)]
    return np.stack(drawn, axis=1).reshape(-1).astype(np.int32)


def draw() -> dict[str, np.ndarray]:
    """The arrays of the sample: images uint8 [N, 28, 28], labels uint8 [N], indices int32 [N], per split."""
    full = load("fashion-mnist")
    rng = np.random.RandomState(SEED)  # its stream is frozen for all numpy versions; default_rng's is not
    arrays: dict[str, np.ndarray] = {}
    for name, split, per_class in (("train", full.train, TRAIN_PER_CLASS), ("test", full.test, TEST_PER_CLASS)):
        arrays |= _take(name, split, draw_indices(split.labels.numpy(), per_class, rng))
    return arrays


def _take(name: str, split: Split, indices: np.ndarray) -> dict[str, np.ndarray]:
    return {
        f"{name}_images": split.images.numpy()[indices, 0],
        f"{name}_labels": split.labels.numpy()[indices].astype(np.uint8),
        f"{name}_indices": indices,
    }


def differences(arrays: dict[str, np.ndarray]) -> list[str]:
    """What in the committed files differs from `arrays` and the licence text; empty when all is the same."""
    if not SAMPLE.is_file() or not LICENCE.is_file():
        return ["a file is missing"]
    with np.load(SAMPLE, allow_pickle=False) as committed:
        found = [] if set(committed.files) == set(arrays) else ["the names of the arrays"]
        found += [key for key in committed.files if key in arrays and not np.array_equal(committed[key], arrays[key])]
    return found + ([] if LICENCE.read_text() == LICENCE_TEXT else [LICENCE.name])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare the committed sample with a new draw")
    options = parser.parse_args(arguments)
    try:
        arrays = draw()
    except DataError as error:
        print(error, file=sys.stderr)
        return 1
    if options.check:
        different = differences(arrays)
        if different:
            print(
                f"{SAMPLE.name} is not what this script draws: {', '.join(different)}; run it without --check",
                file=sys.stderr,
            )
            return 1
        print(f"{SAMPLE.name} and {LICENCE.name} are what this script draws")
        return 0
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # mypy takes one of them for allow_pickle
    SAMPLE.parent.mkdir(exist_ok=True)
    SAMPLE.write_bytes(buffer.getvalue())
    LICENCE.write_text(LICENCE_TEXT)
    print(
        f"wrote {SAMPLE.name}: {len(arrays['train_labels'])} training and {len(arrays['test_labels'])} test images, "
        f"{len(buffer.getvalue()) / 1e6:.2f} MB"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
