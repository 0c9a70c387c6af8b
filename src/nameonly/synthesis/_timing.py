"""How long drawing will take: a few steps are tried on the device at hand, and multiplied."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from nameonly.synthesis._pipelines import guided
from nameonly.synthetic import ImageFormat, ImageRequest, write_image

# of which the first warms up
TRIED = 4


@dataclass(frozen=True)
class _Tried:
    """How long one call took, in seconds.

    Attributes:
        step: A step after the first.
        n_steps: How many there were; some schedulers take one more than they are asked for.
        rest: From the last step to the images.
    """

    step: float
    n_steps: int
    rest: float


def seconds_to_draw(
    batches: Sequence[Sequence[ImageRequest]],
    steps: int,
    draw: Callable[..., Any],
    image_format: ImageFormat,
    tells_steps: bool = True,
) -> float:
    """Return about how long batches take.

    The largest of them and its first image alone are drawn in a few steps, so that what a call
    costs is told from what an image costs; nobody sees them, and no chance but their own is used.

    Args:
        batches: To be drawn.
        steps: Of each.
        draw: Makes a batch; takes what a pipeline of diffusers takes besides.
        image_format: Of the files.
        tells_steps: Whether what makes a batch tells of every step; else a step is timed as its
            share of a whole call.
    """
    if not batches:
        return 0.0
    full, few = max(batches, key=_passes), min(steps, TRIED)
    alone = full[:1]
    # what only a first call costs must not be taken for what every batch costs
    _try(alone, few, draw, tells_steps)
    small, pictures = _try(alone, few, draw, tells_steps)
    large = small if len(full) == 1 else _try(full, few, draw, tells_steps)[0]
    step = _line((_passes(alone), small.step), (_passes(full), large.step))
    rest = _line((1, small.rest), (len(full), large.rest))
    n_steps = large.n_steps + steps - few
    writing = sum(map(len, batches)) * _seconds_to_write(pictures[0], image_format)
    return writing + sum(n_steps * step(_passes(b)) + rest(len(b)) for b in batches)


def _try(
    batch: Sequence[ImageRequest], steps: int, draw: Callable[..., Any], tells_steps: bool
) -> tuple[_Tried, Float[np.ndarray, "b h w 3"]]:
    """Draw a batch, and return how long that took and what came."""
    ends = [time.perf_counter()]

    def step_ends(_pipeline: Any, _step: int, _time: Any, values: dict[str, Any]) -> dict[str, Any]:
        values["latents"].flatten()[0].item()  # an accelerator answers when it is done
        ends.append(time.perf_counter())
        return values

    heard = {"callback_on_step_end": step_ends} if tells_steps else {}
    with torch.random.fork_rng(devices=[]):
        pictures, _ = draw(batch, num_inference_steps=steps, **heard)
    end = time.perf_counter()
    if not tells_steps:
        return _Tried((end - ends[0]) / steps, steps, 0.0), pictures
    warm = ends[1:] if steps > 1 else ends
    return _Tried((warm[-1] - warm[0]) / (len(warm) - 1), len(ends) - 1, end - ends[-1]), pictures


def _line(small: tuple[int, float], large: tuple[int, float]) -> Callable[[int], float]:
    """Return the line through two points, not falling and nowhere below zero.

    Noise may have it otherwise; the point of the larger one is kept then.
    """
    steepest = large[1] / large[0]
    slope = steepest
    if large[0] > small[0]:
        slope = min(max((large[1] - small[1]) / (large[0] - small[0]), 0.0), steepest)
    return lambda x: large[1] + slope * (x - large[0])


def in_words(seconds: float) -> str:
    """Return a time as a person says it."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = seconds / 60
    return f"{round(minutes)} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _passes(batch: Sequence[ImageRequest]) -> int:
    """Return how many images the denoiser sees in a step: guided ones twice."""
    return len(batch) * (2 if guided(batch[0].guidance_scale) else 1)


def _seconds_to_write(picture: Float[np.ndarray, "h w 3"], image_format: ImageFormat) -> float:
    """Return how long it takes to write an image that is not the first of its process."""
    pixels = np.rint(np.nan_to_num(picture) * 255).astype(np.uint8)
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"tried.{image_format}"
        write_image(pixels, path, {})
        begun = time.perf_counter()
        write_image(pixels, path, {})
        return time.perf_counter() - begun
