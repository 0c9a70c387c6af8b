"""What an image processor of the transformers library does to one image, bit for bit.

The processor takes ten times as long: it turns pictures into arrays and back, in 64-bit floats.
Every step but the resizing is a function of one byte, so a table of 256 values does the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from PIL import Image
from torch import Tensor

KINDS = ("CLIPImageProcessor", "SiglipImageProcessor")
STEPS = ("do_resize", "do_rescale", "do_normalize")


@dataclass(frozen=True)
class Preprocessing:
    """Resizes, crops and normalises.

    Attributes:
        size: Height and width that an image is resized to; one number for its shorter edge.
        resample: Pillow's filter.
        crop: Height and width cut from the middle; None for none.
        table: What becomes of every byte, by channel.
    """

    size: tuple[int, int] | int
    resample: Image.Resampling
    crop: tuple[int, int] | None
    table: Float32[np.ndarray, "3 256"]

    def __call__(self, image: Image.Image) -> Float[Tensor, "3 h w"]:
        """Return one RGB image as the network takes it."""
        height, width = self._target(image)
        resized = image.resize((width, height), self.resample)
        if self.crop is not None:
            top, left = (height - self.crop[0]) // 2, (width - self.crop[1]) // 2
            resized = resized.crop((left, top, left + self.crop[1], top + self.crop[0]))
        pixels = np.asarray(resized)
        out = np.empty((3, *pixels.shape[:2]), dtype=np.float32)
        for channel in range(3):
            np.take(self.table[channel], pixels[:, :, channel], out=out[channel])
        return torch.from_numpy(out)

    def _target(self, image: Image.Image) -> tuple[int, int]:
        if not isinstance(self.size, int):
            return self.size
        width, height = image.size
        longer = int(self.size * max(image.size) / min(image.size))
        return (longer, self.size) if width <= height else (self.size, longer)


def preprocessing_of(settings: Mapping[str, Any]) -> Preprocessing | None:
    """Return what a processor with these settings does; None where it does something else too.

    Args:
        settings: What the processor's ``to_dict`` gives.
    """
    size, crop = dict(settings.get("size") or {}), None
    if settings.get("do_center_crop"):
        crop = _edges(settings.get("crop_size"))
    target = size["shortest_edge"] if set(size) == {"shortest_edge"} else _edges(size)
    known = settings.get("image_processor_type") in KINDS and all(map(settings.get, STEPS))
    cropped = not settings.get("do_center_crop") or crop is not None
    if target is None or not known or not cropped or settings.get("do_pad"):
        return None
    least = (target, target) if isinstance(target, int) else target
    if crop is not None and (crop[0] > least[0] or crop[1] > least[1]):
        return None  # it would fill up with black
    values = np.arange(256).astype(np.float64) * settings["rescale_factor"]
    mean, std = (np.array(settings[k], np.float32) for k in ("image_mean", "image_std"))
    if mean.shape != (3,) or std.shape != (3,):
        return None
    table = (values.astype(np.float32) - mean[:, None]) / std[:, None]
    return Preprocessing(target, Image.Resampling(settings["resample"]), crop, table)


def _edges(size: Any) -> tuple[int, int] | None:
    if not isinstance(size, Mapping) or set(size) != {"height", "width"}:
        return None
    return int(size["height"]), int(size["width"])
