"""What the two networks of the bundled text-to-image model are trained to do."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import mse_loss
from transformers import CLIPTextModel, PreTrainedTokenizerBase

from nameonly.ops.diffusion import noise_loss
from nameonly.tiny.captions import write_caption
from nameonly.tiny.clip_files import POSITIONS
from nameonly.tiny.glyph_set import GlyphSet
from nameonly.tiny.pair_loss import chance_of, move_images, true_styles


@dataclass(frozen=True)
class PictureLoss:
    """How far an autoencoder's pictures are from what it was shown, and its latents from normal.

    Attributes:
        autoencoder: In training.
        data: Pictures, each time a little moved.
        kl_weight: Weight of the latents' divergence from a standard normal.
        seed: Of chance.
    """

    autoencoder: AutoencoderKL
    data: GlyphSet
    kl_weight: float
    seed: int

    def __call__(self, rows: Int[Tensor, " b"]) -> Float[Tensor, ""]:
        """Return the loss of these rows: squared error of pixels in [-1, 1] plus divergence."""
        generator = torch.Generator().manual_seed(chance_of(rows, self.seed))
        pixels = move_images(self.data.images[rows], generator)
        with torch.autocast("cpu", torch.bfloat16):
            latents = self.autoencoder.encode(pixels).latent_dist
            noise = torch.randn(latents.mean.shape, generator=generator)
            made = self.autoencoder.decode(latents.mean + latents.std * noise).sample
        divergence = latents.kl().mean() / pixels[0].numel()
        loss: Tensor = mse_loss(made.float(), pixels) + self.kl_weight * divergence
        return loss


@dataclass(frozen=True)
class NoiseLoss:
    """How far a denoiser's guess of the noise is from what was put in (Ho et al. 2020, eq. 14).

    Attributes:
        denoiser: In training.
        scheduler: How much noise a step has.
        text_encoder: Frozen.
        tokenizer: Of the text encoder.
        latents: Of the pictures, scaled to unit variance.
        data: Labels and styles, for captions.
        blank: Share of captions left empty, so that guidance can subtract what needs no caption.
        seed: Of captions and chance.
    """

    denoiser: UNet2DConditionModel
    scheduler: Any
    text_encoder: CLIPTextModel
    tokenizer: PreTrainedTokenizerBase
    latents: Float[Tensor, "n 4 8 8"]
    data: GlyphSet
    blank: float
    seed: int

    def __call__(self, rows: Int[Tensor, " b"]) -> Float[Tensor, ""]:
        """Return the mean squared error of the noise of these rows."""
        chance = chance_of(rows, self.seed)
        captions = self.captions(rows, np.random.default_rng(chance))
        with torch.autocast("cpu", torch.bfloat16):
            states = encode_prompts(self.text_encoder, self.tokenizer, captions)
            return noise_loss(
                self.denoiser,
                self.scheduler,
                self.latents[rows],
                states,
                torch.Generator().manual_seed(chance),
            )

    def captions(self, rows: Int[Tensor, " b"], rng: np.random.Generator) -> list[str]:
        """Return a random true caption of every row, some of them empty."""
        texts = []
        labels, seen = self.data.labels[rows].tolist(), self.data.seen[rows].tolist()
        for label, shown in zip(labels, seen, strict=True):
            text, _ = write_caption(label, true_styles(shown), rng)
            texts.append("" if rng.random() < self.blank else text)
        return texts


@torch.no_grad()
def encode_prompts(
    text_encoder: CLIPTextModel, tokenizer: PreTrainedTokenizerBase, texts: list[str]
) -> Float[Tensor, "t 77 d"]:
    """Return a state of every token, padded as Stable Diffusion pads its prompts."""
    tokens = tokenizer(
        texts, padding="max_length", truncation=True, max_length=POSITIONS, return_tensors="pt"
    )
    states: Tensor = text_encoder(tokens["input_ids"])[0]
    return states
