"""Augmented views of images, each a function of the image and a seeded generator alone.

A weak view is the training transform of CoOp and UPL: a random resized crop and a flip. A strong
view is RandAugment on top of it (Cubuk et al. 2020, arXiv 1909.13719, two operations of magnitude 9
out of 30). Crops are square and left to the backbone's own preprocessing to resize.
"""

import hashlib
import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

ViewKind = Literal["weak", "strong"]

# part of the feature store's key: raise it when a view comes out otherwise than before
VERSION = "1"
LEAST_AREA = 0.08
ASPECT = (3 / 4, 4 / 3)
CROP_TRIES = 10
N_OPERATIONS = 2
MAGNITUDE = 9 / 30
GREY = (128, 128, 128)


def view_generator(
    image_id: str, kind: ViewKind, number: int, seed: int = 0
) -> np.random.Generator:
    """Return the generator of one view of one image: no order and no batch can change it."""
    key = f"{image_id} {kind} {number} {seed}".encode()
    digest = hashlib.blake2b(key, digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


def make_view(image: Image.Image, kind: ViewKind, generator: np.random.Generator) -> Image.Image:
    """Return a view of the kind."""
    return weak_view(image, generator) if kind == "weak" else strong_view(image, generator)


def weak_view(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Crop at random to a square and flip every other time.

    The crop has 8 to 100 % of the area and an aspect of 3:4 to 4:3, which squaring takes away.

    Args:
        image: RGB.
        generator: Decides the crop and the flip.
    """
    x, y, width, height = _crop_box(image.width, image.height, generator)
    side = max(width, height)
    box = (x, y, x + width, y + height)
    view = image.resize((side, side), Image.Resampling.BICUBIC, box=box)
    return ImageOps.mirror(view) if generator.random() < 0.5 else view


def strong_view(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Apply two random operations on colour or shape to a weak view.

    Args:
        image: RGB.
        generator: Decides the weak view, the operations and their signs.
    """
    return rand_augment(weak_view(image, generator), generator)


def rand_augment(
    image: Image.Image,
    generator: np.random.Generator,
    n_operations: int = N_OPERATIONS,
    magnitude: float = MAGNITUDE,
) -> Image.Image:
    """Apply random operations on colour or shape, one after the other.

    Args:
        image: RGB.
        generator: Decides the operations and their signs.
        n_operations: How many.
        magnitude: Of each, in [0, 1].
    """
    for name in generator.choice(sorted(OPERATIONS), n_operations):
        signed = magnitude * (1 if generator.random() < 0.5 else -1)
        image = OPERATIONS[name](image, signed)
    return image


def _crop_box(width: int, height: int, generator: np.random.Generator) -> tuple[int, int, int, int]:
    """Return left, top, width and height of a random crop; the middle where none fits."""
    for _ in range(CROP_TRIES):
        area = generator.uniform(LEAST_AREA, 1.0) * width * height
        aspect = math.exp(generator.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
        w = max(1, round(math.sqrt(area * aspect)))
        h = max(1, round(math.sqrt(area / aspect)))
        if w <= width and h <= height:
            x, y = generator.integers(width - w + 1), generator.integers(height - h + 1)
            return int(x), int(y), w, h
    w = max(1, min(width, round(height * ASPECT[1])))
    h = max(1, min(height, round(width / ASPECT[0])))
    return (width - w) // 2, (height - h) // 2, w, h


def _affine(image: Image.Image, *matrix: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, fillcolor=GREY)


def _enhance(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> "Operation":
    return lambda image, level: kind(image).enhance(1 + 0.9 * level)


# level is the magnitude with a random sign, in [-1, 1]; the largest effects are RandAugment's
Operation = Callable[[Image.Image, float], Image.Image]
OPERATIONS: dict[str, Operation] = {
    "autocontrast": lambda image, level: ImageOps.autocontrast(image),
    "brightness": _enhance(ImageEnhance.Brightness),
    "colour": _enhance(ImageEnhance.Color),
    "contrast": _enhance(ImageEnhance.Contrast),
    "equalise": lambda image, level: ImageOps.equalize(image),
    "identity": lambda image, level: image,
    "posterise": lambda image, level: ImageOps.posterize(image, 8 - round(4 * abs(level))),
    "rotate": lambda image, level: image.rotate(30 * level, fillcolor=GREY),
    "sharpness": _enhance(ImageEnhance.Sharpness),
    "shear_x": lambda image, level: _affine(image, 1.0, 0.3 * level, 0.0, 0.0, 1.0, 0.0),
    "shear_y": lambda image, level: _affine(image, 1.0, 0.0, 0.0, 0.3 * level, 1.0, 0.0),
    "solarise": lambda image, level: ImageOps.solarize(image, round(256 * (1 - abs(level)))),
    "translate_x": lambda image, level: _affine(
        image, 1.0, 0.0, 0.45 * level * image.width, 0.0, 1.0, 0.0
    ),
    "translate_y": lambda image, level: _affine(
        image, 1.0, 0.0, 0.0, 0.0, 1.0, 0.45 * level * image.height
    ),
}
