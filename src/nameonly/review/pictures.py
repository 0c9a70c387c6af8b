"""The run's images as the page shows them: small, encoded once, kept within bounds."""

import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int
from PIL import Image

from nameonly.images import BadImageError, load, open_images
from nameonly.review.labels import RunLabels
from nameonly.types import ImageSet

ImageSpec = str | Path | Sequence[str | Path]
SMALL_SIDE, LARGE_SIDE = 192, 768
# up to this side an image is kept pixel by pixel, and enlarged by the browser
PIXELATED_SIDE = 64
CACHE_BYTES = 64 << 20


def find_images(
    labels: RunLabels,
    spec: ImageSpec | None,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[ImageSet, Int[np.ndarray, " n"]]:
    """Find the run's images by a hash of their bytes.

    Args:
        labels: Of the run.
        spec: Where the images lie now; None for where they lay.
        on_progress: Called with the images read so far and the images in all.

    Returns:
        The images there, and the row of each of the run's images among them, -1 where it is gone.

    Raises:
        ValueError: If none is found.
    """
    try:
        found, _ = open_images(
            labels.source if spec is None else spec,
            column=labels.column,
            on_progress=on_progress,
        )
    except ValueError as error:
        raise ValueError(
            f"the images that {labels.folder} labels are not there ({error}); name them with "
            "--images"
        ) from error
    first = found.first_rows()
    rows = np.array([first.get(image_id, -1) for image_id in labels.ids])
    if (rows < 0).all():
        raise ValueError(
            f"none of the {len(found)} images is one that {labels.folder} labels; name them with "
            "--images"
        )
    return found, rows


class Pictures:
    """Small copies of images, as WebP. Those asked for last are kept in memory."""

    def __init__(
        self, images: ImageSet, rows: Int[np.ndarray, " n"], cache_bytes: int = CACHE_BYTES
    ) -> None:
        """Make small copies of images.

        Args:
            images: That were found.
            rows: Where each of the run's images is among them, -1 for nowhere.
            cache_bytes: How much is kept.
        """
        self._images, self._rows, self._room = images, rows, cache_bytes
        self._kept: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._mutex = threading.Lock()
        self.kept_bytes = 0

    def __len__(self) -> int:
        return len(self._rows)

    def kept(self, image: int, side: int) -> bytes | None:
        """Return a copy that was made before, None if there is none."""
        with self._mutex:
            data = self._kept.get((image, side))
            if data is not None:
                self._kept.move_to_end((image, side))
            return data

    def make(self, image: int, side: int) -> bytes:
        """Return a copy of an image of at most this side.

        Raises:
            BadImageError: If the image cannot be read or has changed.
        """
        if (data := self.kept(image, side)) is not None:
            return data
        row = int(self._rows[image])
        if row < 0:
            raise BadImageError("not found where the images lie now")
        data = encoded(load(self._images, row), side)
        with self._mutex:
            if (image, side) not in self._kept:
                self._kept[image, side] = data
                self.kept_bytes += len(data)
            while self.kept_bytes > self._room and self._kept:
                self.kept_bytes -= len(self._kept.popitem(last=False)[1])
        return data


def encoded(image: Image.Image, side: int) -> bytes:
    """Return an RGB image as WebP of at most this side; tiny ones keep every pixel."""
    tiny = max(image.size) <= PIXELATED_SIDE
    if not tiny:
        image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=tiny, quality=80, method=2)
    return buffer.getvalue()
