"""A set of rendered glyphs, kept on disk so that a run that goes on need not render again."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8
from safetensors.torch import load_file, save_file
from torch import Tensor

from nameonly.tiny import glyphs, strokes


@dataclass(frozen=True)
class GlyphSet:
    """Rendered glyphs.

    Attributes:
        images: Grey pictures.
        labels: Index into ``glyphs.CLASS_NAMES``.
        seen: True where a style of ``glyphs.STYLES`` can be seen.
    """

    images: UInt8[Tensor, "n 32 32"]
    labels: Int[Tensor, " n"]
    seen: Bool[Tensor, "n s"]


def render_set(
    n: int, fonts: tuple[str, ...], seed: int, work: Path, hardness: float = 1.0
) -> GlyphSet:
    """Return ``n`` random glyphs, from the work folder where an earlier run rendered them."""
    code = Path(glyphs.__file__).read_bytes() + Path(strokes.__file__).read_bytes()
    recipe = code + repr((n, fonts, seed, hardness)).encode()
    path = work / f"glyphs-{hashlib.sha256(recipe).hexdigest()[:16]}.safetensors"
    if not path.exists():
        images, labels, seen = [], [], []
        for i in range(n):
            rng = np.random.default_rng((seed, i))
            glyph = glyphs.sample_glyph(rng, fonts, hardness)
            images.append(glyphs.draw_glyph(glyph, rng))
            labels.append(glyph.label)
            seen.append([style in glyph.styles for style in glyphs.STYLES])
        tensors = {
            "images": torch.from_numpy(np.stack(images)),
            "labels": torch.tensor(labels),
            "seen": torch.tensor(seen),
        }
        work.mkdir(parents=True, exist_ok=True)
        save_file(tensors, path.with_suffix(".partial"))
        path.with_suffix(".partial").replace(path)
    return GlyphSet(**load_file(path))
