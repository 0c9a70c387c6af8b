"""How long drawing will take: a few steps are tried on the device at hand, and multiplied."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from nameonly.synthesis._pipelines import guided
from nameonly.synthetic import ImageFormat, ImageRequest, write_image

# of which the first warms up
TRIED = 4


def seconds_to_draw(
    batches: Sequence[Sequence[ImageRequest]],
    steps: int,
    draw: Callable[..., Any],
    image_format: ImageFormat,
    tells_steps: bool = True,
) -> float:
    """Return about how long batches take.

    One of them is drawn in a few steps; it is seen by nobody, and no chance but its own is used.

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
    tried = max(batches, key=lambda batch: len(batch) * _passes(batch))
    few, ends = min(steps, TRIED), [time.perf_counter()]

    def step_ends(_pipeline: Any, _step: int, _time: Any, values: dict[str, Any]) -> dict[str, Any]:
        values["latents"].flatten()[0].item()  # an accelerator answers when it is done
        ends.append(time.perf_counter())
        return values

    heard = {"callback_on_step_end": step_ends} if tells_steps else {}
    with torch.random.fork_rng(devices=[]):
        pictures, _ = draw(tried, num_inference_steps=few, **heard)
    if not tells_steps:
        ends += [ends[0] + (time.perf_counter() - ends[0]) * (k + 1) / few for k in range(few)]
    decoding = (
        time.perf_counter() - ends[-1] + len(tried) * _seconds_to_write(pictures, image_format)
    )
    warm = ends[1:] if few > 1 else ends
    step = (warm[-1] - warm[0]) / (len(warm) - 1)
    # some schedulers take a step more than they are asked for
    denoising = step * (len(ends) - 1 + steps - few)
    return sum(
        len(batch) / len(tried) * (decoding + denoising * _passes(batch) / _passes(tried))
        for batch in batches
    )


def in_words(seconds: float) -> str:
    """Return a time as a person says it."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = seconds / 60
    return f"{round(minutes)} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _passes(batch: Sequence[ImageRequest]) -> int:
    """Return how often the denoiser sees an image in a step."""
    return 2 if guided(batch[0].guidance_scale) else 1


def _seconds_to_write(pictures: np.ndarray, image_format: ImageFormat) -> float:
    pixels = np.rint(np.nan_to_num(pictures[0]) * 255).astype(np.uint8)
    with TemporaryDirectory() as folder:
        begun = time.perf_counter()
        write_image(pixels, Path(folder) / f"tried.{image_format}", {})
        return time.perf_counter() - begun
