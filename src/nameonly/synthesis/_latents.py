"""Latents of real images, encoded once."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image, ImageOps
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from nameonly.images import BadImageError, load
from nameonly.synthesis._pipelines import picture_side
from nameonly.types import ImageSet

AT_ONCE = 8


@dataclass(frozen=True)
class Latents:
    """What an autoencoder says of images: a normal distribution for each, and for each mirrored.

    Attributes:
        mean: f = 2 where images are also seen mirrored, else 1; scaled as the denoiser takes them.
        std: Of the same normal distributions.
    """

    mean: Float[Tensor, "f n k h w"]
    std: Float[Tensor, "f n k h w"]

    def draw(self, rows: Int[Tensor, " b"], generator: torch.Generator) -> Float[Tensor, "b k h w"]:
        """Return one latent of every row, mirrored or not by chance."""
        side = torch.randint(len(self.mean), rows.shape, generator=generator)
        mean, std = self.mean[side, rows], self.std[side, rows]
        return mean + std * torch.randn(mean.shape, generator=generator)


def square(image: Image.Image, side: int) -> Image.Image:
    """Return the middle square of an image at a side in pixels."""
    return ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS)


def encode_latents(images: ImageSet, pipeline: Any, model: str, flip: bool, cache: Path) -> Latents:
    """Encode the middle squares of images.

    Args:
        images: Readable images.
        pipeline: A latent diffusion pipeline of diffusers.
        model: Its fingerprint.
        flip: Encode them mirrored as well.
        cache: File in which the latents are kept; what it holds for these images is taken.

    Raises:
        ValueError: If an image cannot be read.
        FloatingPointError: If a latent is not finite.
    """
    facts = f"{flip} {pipeline.vae.dtype} {model} " + " ".join(images.ids)
    key = hashlib.sha256(facts.encode()).hexdigest()
    if (found := _kept(cache, key)) is not None:
        return found
    parts: list[list[Float[Tensor, "f b k h w"]]] = [[], []]
    for start in range(0, len(images), AT_ONCE):
        rows = range(start, min(start + AT_ONCE, len(images)))
        pixels = torch.stack([_pixels(images, row, picture_side(pipeline)) for row in rows])
        seen = torch.stack([pixels, pixels.flip(-1)] if flip else [pixels])
        for kept, values in zip(parts, _encode(seen, pipeline), strict=True):
            kept.append(values)
    latents = Latents(*(torch.cat(part, dim=1) for part in parts))
    if not torch.isfinite(latents.mean).all():
        raise FloatingPointError(
            f"the autoencoder gave latents that are not finite in {pipeline.vae.dtype}; use "
            "bfloat16 or float32"
        )
    cache.parent.mkdir(parents=True, exist_ok=True)
    partial = cache.with_suffix(".partial")
    save_file({"mean": latents.mean, "std": latents.std}, partial, {"key": key})
    partial.replace(cache)
    return latents


def _kept(cache: Path, key: str) -> Latents | None:
    try:
        with safe_open(cache, framework="pt") as file:
            if (file.metadata() or {}).get("key") != key:
                return None
            return Latents(file.get_tensor("mean"), file.get_tensor("std"))
    except (OSError, SafetensorError):
        return None


def _pixels(images: ImageSet, row: int, side: int) -> Float[Tensor, "3 h w"]:
    try:
        image = load(images, row)
    except BadImageError as error:
        raise ValueError(
            f"{images.sources[row]} cannot be read ({error}); adapt to the readable images"
        ) from error
    values = np.asarray(square(image, side), dtype=np.float32) / 127.5 - 1
    return torch.from_numpy(values).permute(2, 0, 1)


@torch.no_grad()
def _encode(
    seen: Float[Tensor, "f b 3 h w"], pipeline: Any
) -> tuple[Float[Tensor, "f b k y x"], Float[Tensor, "f b k y x"]]:
    vae = pipeline.vae
    found = vae.encode(seen.flatten(0, 1).to(vae.device, vae.dtype)).latent_dist
    scale, shift = vae.config.scaling_factor, getattr(vae.config, "shift_factor", None) or 0.0
    mean = ((found.mean.float() - shift) * scale).cpu()
    std = (found.std.float() * scale).cpu()
    return mean.unflatten(0, seen.shape[:2]), std.unflatten(0, seen.shape[:2])
