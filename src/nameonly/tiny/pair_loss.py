"""The contrastive loss of pictures and captions, aware of class and style.

Pictures of one class are no negatives of each other's captions, whatever the caption says of style:
a second term, among the pictures of one class alone, teaches the style words.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional
from transformers import CLIPModel, PreTrainedTokenizerBase

from nameonly.tiny import glyphs
from nameonly.tiny.captions import write_caption
from nameonly.tiny.clip_files import encode_images, encode_texts
from nameonly.tiny.glyph_set import GlyphSet

LARGEST_SCALE = float(np.log(100.0))
# Characters that no picture tells apart; they are never negatives of each other.
LOOK_ALIKES = ("0o", "1il")


def distinct_classes() -> Bool[Tensor, "c c"]:
    """Return True where two classes can be told apart by a picture."""
    distinct = ~torch.eye(len(glyphs.CLASS_NAMES), dtype=torch.bool)
    for group in LOOK_ALIKES:
        rows = torch.tensor([glyphs.class_of(character) for character in group])
        distinct[rows[:, None], rows] = False
    return distinct


def contrastive_loss(
    logits: Float[Tensor, "n n"],
    negative: Bool[Tensor, "n n"],
) -> Float[Tensor, ""]:
    """Return the symmetric cross-entropy of each pair against its negatives alone.

    Args:
        logits: Of image i and caption j; the diagonal holds the pairs.
        negative: True where caption j is wrong for image i; all else off the diagonal is left out.
    """
    own = torch.eye(len(logits), dtype=torch.bool)
    masked = logits.masked_fill(~(negative | own), -torch.inf)
    rows = torch.arange(len(logits))
    by_image = functional.cross_entropy(masked, rows)
    by_caption = functional.cross_entropy(masked.T, rows)
    return (by_image + by_caption) / 2


def false_captions(named: Bool[Tensor, "n s"], seen: Bool[Tensor, "n s"]) -> Bool[Tensor, "n n"]:
    """Return True where caption j names a style that image i does not show."""
    return ((~seen).float() @ named.float().T) > 0


def move_images(
    images: UInt8[Tensor, "n 32 32"], generator: torch.Generator
) -> Float[Tensor, "n 3 32 32"]:
    """Return the pictures a little shifted, turned, scaled and dimmed, as the model reads them."""
    n = len(images)
    chance = torch.rand(6, n, generator=generator) * 2 - 1
    turn, zoom = chance[0] * 0.1, 1 + chance[1] * 0.1
    rows = [
        torch.stack([turn.cos() * zoom, -turn.sin() * zoom, chance[2] * 0.1], dim=1),
        torch.stack([turn.sin() * zoom, turn.cos() * zoom, chance[3] * 0.1], dim=1),
    ]
    grid = functional.affine_grid(torch.stack(rows, dim=1), [n, 1, 32, 32], align_corners=False)
    grey = images[:, None].float() / 127.5 - 1
    moved = functional.grid_sample(grey, grid, padding_mode="border", align_corners=False)
    gain, lift = 1 + 0.1 * chance[4, :, None, None, None], 0.1 * chance[5, :, None, None, None]
    return (moved * gain + lift).clamp(-1, 1).expand(-1, 3, -1, -1)


def chance_of(rows: Int[Tensor, " b"], seed: int) -> int:
    """Return a seed that follows from the rows of a batch and their order, so a run can resume."""
    return int((rows * torch.arange(1, len(rows) + 1)).sum()) + seed


def true_styles(seen: list[bool]) -> list[str]:
    """Return the names of the styles that can be seen."""
    return [style for style, on in zip(glyphs.STYLES, seen, strict=True) if on]


@dataclass(frozen=True)
class PairLoss:
    """The loss of a batch of rows; its chance depends on the rows alone, so a run can resume."""

    model: CLIPModel
    tokenizer: PreTrainedTokenizerBase
    data: GlyphSet
    style_weight: float = 0.25
    seed: int = 0

    def __call__(self, rows: Int[Tensor, " b"]) -> Float[Tensor, ""]:
        """Return the loss of fresh captions and moved pictures of these rows."""
        chance = chance_of(rows, self.seed)
        generator = torch.Generator().manual_seed(chance)
        rng = np.random.default_rng(chance)
        labels, seen = self.data.labels[rows], self.data.seen[rows]
        texts, named = [], []
        for label, shown in zip(labels.tolist(), seen.tolist(), strict=True):
            text, words = write_caption(label, true_styles(shown), rng)
            texts.append(text)
            named.append([style in words for style in glyphs.STYLES])
        with torch.autocast("cpu", torch.bfloat16):
            images = encode_images(self.model, move_images(self.data.images[rows], generator))
            captions = encode_texts(self.model, self.tokenizer, texts)
        logits = self.model.logit_scale.clamp(max=LARGEST_SCALE).exp() * images @ captions.T
        wrong_class = distinct_classes()[labels[:, None], labels]
        same_class = labels[:, None] == labels
        wrong_style = same_class & false_captions(torch.tensor(named), seen)
        style_loss = contrastive_loss(logits, wrong_style)
        return contrastive_loss(logits, wrong_class) + self.style_weight * style_loss
