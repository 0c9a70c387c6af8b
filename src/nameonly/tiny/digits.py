"""The demo's target: 1,797 handwritten digits that come with scikit-learn.

The 8 x 8 pictures are scaled to 24 pixels and padded to 32, light on dark as they come. Nothing in
this package is trained on them. Labels are for evaluation alone.

The digits are cut once into two halves by a hash of their id. Whatever is chosen with a look at
digits is chosen on the development half; final figures come from the other.
"""

import csv
import hashlib
from pathlib import Path

import numpy as np
from jaxtyping import Int
from PIL import Image
from sklearn.datasets import load_digits

CLASS_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
N_DIGITS = 1797
N_DEVELOPMENT = 898
SIDE, INNER = 32, 24


def load_digits_images() -> tuple[list[Image.Image], Int[np.ndarray, " n"], tuple[str, ...]]:
    """Return the pictures, their labels for evaluation, and their ids.

    Returns:
        1,797 grey images of 32 x 32; indices into ``CLASS_NAMES``; ids such as ``"digit-0000"``,
        in scikit-learn's order.
    """
    bunch = load_digits()
    images = [_enlarge(grid) for grid in bunch.images]
    ids = tuple(f"digit-{i:04d}" for i in range(len(images)))
    return images, np.asarray(bunch.target, dtype=np.int64), ids


def halves() -> tuple[Int[np.ndarray, " a"], Int[np.ndarray, " b"]]:
    """Return the rows of the development half (898) and of the final half (899), each ascending.

    The halves depend on the ids alone: rows in order of the SHA-256 of their id, cut after 898.
    """
    names = [f"digit-{i:04d}" for i in range(N_DIGITS)]
    order = sorted(range(N_DIGITS), key=lambda i: hashlib.sha256(names[i].encode()).hexdigest())
    rows = np.asarray(order, dtype=np.int64)
    return np.sort(rows[:N_DEVELOPMENT]), np.sort(rows[N_DEVELOPMENT:])


def export(folder: Path) -> tuple[Path, Path]:
    """Write the pictures as PNG files and, apart from them, the truth.

    Args:
        folder: Made where it is not there; ``images/digit-0000.png`` and so on go into it, names
            that tell nothing of the class.

    Returns:
        The folder of the images, and ``truth.csv`` with columns ``path`` (relative to the folder of
        the images) and ``label`` (a word of ``CLASS_NAMES``).

    Raises:
        ValueError: If ``images/`` already holds other files.
    """
    pictures, labels, ids = load_digits_images()
    target, truth = folder / "images", folder / "truth.csv"
    names = [f"{name}.png" for name in ids]
    target.mkdir(parents=True, exist_ok=True)
    others = sorted(p.name for p in target.iterdir() if p.name not in set(names))
    if others:
        raise ValueError(
            f"{target} holds {len(others)} other files, {others[0]!r} first; choose an empty folder"
        )
    for name, picture in zip(names, pictures, strict=True):
        picture.save(target / name)
    with truth.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label"))
        writer.writerows(zip(names, (CLASS_NAMES[i] for i in labels), strict=True))
    return target, truth


def _enlarge(grid: np.ndarray) -> Image.Image:
    """Return an 8 x 8 picture with values 0 to 16 in the middle of 32 x 32, black around it."""
    small = Image.fromarray(np.rint(grid * (255 / 16)).astype(np.uint8))
    edge = (SIDE - INNER) // 2
    large = Image.new("L", (SIDE, SIDE))
    large.paste(small.resize((INNER, INNER), Image.Resampling.BICUBIC), (edge, edge))
    return large
