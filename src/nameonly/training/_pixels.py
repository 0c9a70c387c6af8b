"""Images as bytes of one size, decoded once, and the random crops that a network is shown of them.

An image is squeezed to a square and keeps its aspect as a number, so that a crop is cut in its own
shape. All crops of a batch are cut in one operation, on the device.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from nameonly.images import BadImageError, Quarantined, load
from nameonly.ops.room import nameless_array
from nameonly.ops.views import ASPECT, CROP_TRIES, rand_augment
from nameonly.types import ImageSet

LOADERS = 4
# a user who stops waits for no more than these
AT_ONCE = 256
# images larger than the crops are kept an eighth larger, so that no crop is cut from too few pixels
MARGIN = 8 / 7


@dataclass(frozen=True)
class StoredPixels:
    """Decoded images.

    Attributes:
        pixels: Bytes of all images in a file, mapped into memory.
        aspects: Width over height of every image that could be read.
        rows: Which of all images these are.
        unreadable: The others, and why.
    """

    pixels: UInt8[np.ndarray, "n2 s s 3"]
    aspects: Float[Tensor, " n"]
    rows: Int[Tensor, " n"]
    unreadable: tuple[Quarantined, ...]

    def batch(self, rows: Int[Tensor, " b"]) -> UInt8[np.ndarray, "b s s 3"]:
        """Return a copy of some of the images that could be read."""
        found: np.ndarray = self.pixels[self.rows[rows].numpy()]
        return found


def store_pixels(
    images: ImageSet,
    size: int,
    folder: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> StoredPixels:
    """Decode images into a file of bytes; what cannot be read is told, not raised.

    Disk: 3 (8/7 size)^2 bytes an image, 196 KB at a size of 224.

    Args:
        images: What to decode.
        size: Side of the crops that will be cut.
        folder: Of the file; None for the system's for temporary files, which often is memory.
        on_progress: Called with the images decoded so far and in all.

    Raises:
        ValueError: If none can be read.
        OSError: If the folder has no room for the file.
    """
    n, side = len(images), _side(images, size)
    where = Path(gettempdir()) if folder is None else folder
    try:
        pixels = nameless_array((n, side, side, 3), np.uint8, where)
    except OSError as error:
        needed = 3 * n * side**2
        why = f"no room for {n} decoded images of {needed:,} bytes in all ({error.strerror})"
        raise OSError(error.errno, why, str(where)) from error
    aspects, bad = torch.ones(n), dict[int, str]()

    def one(row: int) -> None:
        try:
            image = load(images, row)
        except BadImageError as error:
            bad[row] = str(error)
            return
        aspects[row] = image.width / image.height
        pixels[row] = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))

    with ThreadPoolExecutor(LOADERS) as pool:
        for start in range(0, n, AT_ONCE):
            end = min(start + AT_ONCE, n)
            list(pool.map(one, range(start, end)))
            if on_progress is not None:
                on_progress(end, n)
    rows = torch.tensor([row for row in range(n) if row not in bad], dtype=torch.long)
    told = tuple(Quarantined(images.sources[row], bad[row]) for row in sorted(bad))
    return StoredPixels(pixels, aspects[rows], rows, told)


def _side(images: ImageSet, size: int) -> int:
    """Return the side to keep images at, as the first that can be read tells."""
    problem = ""
    for row in range(len(images)):
        try:
            larger = min(load(images, row).size) > size
        except BadImageError as error:
            problem = problem or f"{images.sources[row]}: {error}"
            continue
        return round(size * MARGIN) if larger else size
    raise ValueError(f"none of the {len(images)} images can be read: {problem}")


def random_crops(
    aspects: Float[Tensor, " b"], least_area: float, flip: bool, generator: torch.Generator
) -> Float[Tensor, "b 2 3"]:
    """Return random crops as maps from a square of [-1, 1] into an image of the same.

    Their area and aspect are drawn as torchvision's RandomResizedCrop draws them: the area in
    ``least_area`` to 1 of the image, the aspect in 3:4 to 4:3 evenly in its logarithm, the first of
    ten tries that fits, and where none does the largest middle piece.

    Args:
        aspects: Width over height of the images.
        least_area: Share of the image.
        flip: Mirror every other crop.
        generator: On the CPU.
    """
    b, low, high = len(aspects), math.log(ASPECT[0]), math.log(ASPECT[1])
    area = least_area + (1 - least_area) * torch.rand(b, CROP_TRIES, generator=generator)
    shape = torch.exp(low + (high - low) * torch.rand(b, CROP_TRIES, generator=generator))
    relative = shape / aspects[:, None]
    widths, heights = (area * relative).sqrt(), (area / relative).sqrt()
    fits = (widths <= 1) & (heights <= 1)
    first = fits.float().argmax(dim=1, keepdim=True)
    nearest = aspects.clamp(ASPECT[0], ASPECT[1]) / aspects
    none = ~fits.any(dim=1)
    width = torch.where(none, nearest.clamp(max=1), widths.gather(1, first)[:, 0])
    height = torch.where(none, (1 / nearest).clamp(max=1), heights.gather(1, first)[:, 0])
    place = 2 * torch.rand(b, 2, generator=generator) - 1
    mirrored = torch.where(torch.rand(b, generator=generator) < 0.5, -1.0, 1.0)
    maps = torch.zeros(b, 2, 3)
    maps[:, 0, 0] = width * (mirrored if flip else 1)
    maps[:, 1, 1] = height
    centred = none[:, None].logical_not() * place
    maps[:, 0, 2], maps[:, 1, 2] = centred[:, 0] * (1 - width), centred[:, 1] * (1 - height)
    return maps


def cut(
    pixels: UInt8[Tensor, "b s s2 3"], maps: Float[Tensor, "b 2 3"], size: int
) -> Float[Tensor, "b 3 h w"]:
    """Return crops at a size, of 0 to 255, on the pixels' device."""
    grid = affine_grid(maps.to(pixels.device), [len(pixels), 3, size, size], align_corners=False)
    planes = pixels.permute(0, 3, 1, 2).float()
    return grid_sample(planes, grid, padding_mode="border", align_corners=False)


def with_operations(
    pixels: UInt8[np.ndarray, "b s s 3"],
    n_operations: int,
    magnitude: float,
    generator: torch.Generator,
) -> UInt8[np.ndarray, "b s s 3"]:
    """Return images to each of which RandAugment has been applied (``ops/views.py``)."""
    seeds = torch.randint(2**62, (len(pixels),), generator=generator).tolist()

    def one(row: int) -> np.ndarray:
        chance = np.random.default_rng(seeds[row])
        made = rand_augment(Image.fromarray(pixels[row]), chance, n_operations, magnitude)
        return np.asarray(made)

    with ThreadPoolExecutor(LOADERS) as pool:
        return np.stack(list(pool.map(one, range(len(pixels)))))
