"""Train the bundled text-to-image model: ``python -m nameonly.tiny.train_diffusion``.

It is trained on the rendered glyphs and captions of the bundled CLIP, whose text tower it reads,
and never sees a handwritten digit. An interrupted run goes on where it stopped when it is started
again with the same ``--work``. Needs the extra ``synth``.
"""

import argparse
import hashlib
import time
from dataclasses import astuple, dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import mse_loss

from nameonly.loop import Schedule, minimise
from nameonly.tiny import DIFFUSION, glyphs
from nameonly.tiny.diffusion_files import (
    build_autoencoder,
    build_denoiser,
    build_scheduler,
    load_text_tower,
    save_folder,
)
from nameonly.tiny.diffusion_losses import NoiseLoss, PictureLoss
from nameonly.tiny.glyph_set import GlyphSet, render_set


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights.

    Attributes:
        n_glyphs: Pictures, rendered once.
        autoencoder_epochs: Passes of the autoencoder over them, each time a little moved.
        denoiser_epochs: Passes of the denoiser over their latents, each time with other captions.
        batch_size: Pictures per step.
        autoencoder_rate: Peak learning rate.
        denoiser_rate: Peak learning rate.
        autoencoder_widths: Channels at 32, 16 and 8 pixels.
        denoiser_widths: Channels at 8 and 4 latent pixels.
        kl_weight: Weight of the latents' divergence from normal.
        blank: Share of captions left empty.
        seed: Of pictures, captions, initial weights, noise and order.
    """

    n_glyphs: int = 40_000
    autoencoder_epochs: int = 4
    denoiser_epochs: int = 14
    batch_size: int = 128
    autoencoder_rate: float = 1e-3
    denoiser_rate: float = 1e-3
    autoencoder_widths: tuple[int, ...] = (32, 32, 64)
    denoiser_widths: tuple[int, int] = (64, 128)
    kl_weight: float = 1e-3
    blank: float = 0.1
    seed: int = 0


def train(recipe: Recipe, out: Path, work: Path) -> None:
    """Train by the recipe and write the model folder; checkpoints and pictures go to ``work``."""
    started = time.monotonic()
    data = render_set(recipe.n_glyphs, tuple(glyphs.TRAINING_FONTS), recipe.seed, work)
    _log(f"{recipe.n_glyphs} glyphs rendered", started)
    digest = hashlib.sha256(repr(astuple(recipe)).encode()).hexdigest()[:16]
    autoencoder = build_autoencoder(recipe.autoencoder_widths, recipe.seed)
    minimise(
        PictureLoss(autoencoder, data, recipe.kl_weight, recipe.seed),
        list(autoencoder.parameters()),
        recipe.n_glyphs,
        _schedule(recipe, recipe.autoencoder_epochs, recipe.autoencoder_rate),
        seed=recipe.seed,
        checkpoint=work / f"autoencoder-{digest}.safetensors",
        on_epoch=lambda epoch, mean: _log(f"autoencoder, epoch {epoch}: {mean:.5f}", started),
    )
    latents, error = encode(autoencoder, data)
    scale = 1 / latents.std().item()
    autoencoder.register_to_config(scaling_factor=scale)
    _log(f"reconstruction error {error:.4f}, scaling factor {scale:.4f}", started)
    text_encoder, tokenizer = load_text_tower()
    denoiser = build_denoiser(recipe.denoiser_widths, text_encoder.config.hidden_size, recipe.seed)
    minimise(
        NoiseLoss(
            denoiser,
            build_scheduler(),
            text_encoder,
            tokenizer,
            latents * scale,
            data,
            recipe.blank,
            recipe.seed,
        ),
        list(denoiser.parameters()),
        recipe.n_glyphs,
        _schedule(recipe, recipe.denoiser_epochs, recipe.denoiser_rate),
        seed=recipe.seed,
        checkpoint=work / f"denoiser-{digest}.safetensors",
        on_epoch=lambda epoch, mean: _log(f"denoiser, epoch {epoch}: {mean:.5f}", started),
    )
    save_folder(autoencoder, denoiser, out)
    _log(f"written to {out}", started)


@torch.no_grad()
def encode(
    autoencoder: AutoencoderKL, data: GlyphSet, batch_size: int = 500
) -> tuple[Float[Tensor, "n 4 8 8"], float]:
    """Return the mean latents of all pictures, and the squared error of the first thousand."""
    autoencoder.eval()
    parts = []
    for images in torch.split(data.images, batch_size):
        pixels = (images[:, None].float() / 127.5 - 1).expand(-1, 3, -1, -1)
        parts.append(autoencoder.encode(pixels).latent_dist.mean)
    latents = torch.cat(parts)
    few = (data.images[:1000, None].float() / 127.5 - 1).expand(-1, 3, -1, -1)
    return latents, mse_loss(autoencoder.decode(latents[: len(few)]).sample, few).item()


def _schedule(recipe: Recipe, epochs: int, rate: float) -> Schedule:
    return Schedule(
        epochs=epochs,
        batch_size=recipe.batch_size,
        learning_rate=rate,
        warmup_epochs=min(1.0, epochs / 4),
        weight_decay=0.01,
        clip=1.0,
    )


def _log(line: str, started: float) -> None:
    print(f"[{time.monotonic() - started:7.1f} s] {line}", flush=True)


def main() -> None:
    """Train by the default recipe."""
    parser = argparse.ArgumentParser(
        prog="python -m nameonly.tiny.train_diffusion", description=__doc__
    )
    parser.add_argument("--out", type=Path, default=DIFFUSION, help="model folder to write")
    parser.add_argument("--work", type=Path, default=Path("runs/tiny"), help="checkpoint folder")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    train(Recipe(), args.out, args.work)


if __name__ == "__main__":
    main()
