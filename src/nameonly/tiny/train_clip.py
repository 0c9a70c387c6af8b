"""Train the bundled CLIP on rendered glyphs: ``python -m nameonly.tiny.train_clip``.

The network never sees a handwritten digit; what is chosen is chosen on fonts held out of training.
An interrupted run goes on where it stopped when it is started again with the same ``--work``.
"""

import argparse
import hashlib
import time
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from nameonly.loop import Schedule, minimise
from nameonly.tiny import MODEL, glyphs
from nameonly.tiny.captions import write_caption
from nameonly.tiny.clip_files import (
    build_model,
    folder_logits,
    save_folder,
    train_tokenizer,
)
from nameonly.tiny.glyph_set import GlyphSet, render_set
from nameonly.tiny.pair_loss import LARGEST_SCALE, PairLoss, true_styles

TEMPLATE = "a photo of a {}."


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights.

    Attributes:
        n_glyphs: Pictures rendered once and seen in every epoch, each time a little moved.
        epochs: Passes over them.
        batch_size: Picture and caption pairs per step.
        learning_rate: Peak rate of AdamW.
        weight_decay: Of AdamW.
        style_weight: Weight of the term that teaches style words.
        image_layers: Layers of the image tower.
        text_layers: Layers of the text tower.
        width: Of both towers and of the shared space.
        seed: Of pictures, captions, initial weights and order.
    """

    n_glyphs: int = 60_000
    epochs: int = 24
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    style_weight: float = 0.25
    image_layers: int = 5
    text_layers: int = 2
    width: int = 128
    seed: int = 0


def train(recipe: Recipe, out: Path, work: Path) -> None:
    """Train by the recipe and write the model folder; checkpoints and pictures go to ``work``."""
    started = time.monotonic()
    data = render_set(recipe.n_glyphs, tuple(glyphs.TRAINING_FONTS), recipe.seed, work)
    _log(f"{recipe.n_glyphs} glyphs rendered", started)
    tokenizer = train_tokenizer(caption_corpus(data, recipe.seed))
    model = build_model(
        tokenizer,
        image_layers=recipe.image_layers,
        text_layers=recipe.text_layers,
        width=recipe.width,
        seed=recipe.seed,
    )
    schedule = Schedule(
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        warmup_epochs=min(1.0, recipe.epochs / 4),
        weight_decay=recipe.weight_decay,
        clip=1.0,
    )
    digest = hashlib.sha256(repr(astuple(recipe)).encode()).hexdigest()[:16]
    minimise(
        PairLoss(model, tokenizer, data, recipe.style_weight, recipe.seed),
        list(model.parameters()),
        recipe.n_glyphs,
        schedule,
        seed=recipe.seed,
        checkpoint=work / f"checkpoint-{digest}.safetensors",
        on_epoch=lambda epoch, mean: _log(f"epoch {epoch}: mean loss {mean:.4f}", started),
    )
    with torch.no_grad():
        model.logit_scale.clamp_(max=LARGEST_SCALE)
    save_folder(model, tokenizer, out)
    _log(f"{len(tokenizer)} tokens, logit scale {model.logit_scale.exp().item():.1f}", started)


def caption_corpus(data: GlyphSet, seed: int, n: int = 20_000) -> list[str]:
    """Return captions of the first ``n`` glyphs, for the tokenizer to learn from."""
    rng = np.random.default_rng((seed, n))
    labels, seen = data.labels[:n].tolist(), data.seen[:n].tolist()
    return [write_caption(a, true_styles(b), rng)[0] for a, b in zip(labels, seen, strict=True)]


def held_out_accuracy(folder: Path, work: Path, n: int = 4_000) -> tuple[float, float]:
    """Return zero-shot accuracy on hard glyphs in fonts never trained on.

    Returns:
        Share right among all classes, and among the ten digits for the pictures of digits.
    """
    data = render_set(n, tuple(glyphs.HELD_OUT_FONTS), 1_000_001, work, hardness=1.5)
    images = [Image.fromarray(image) for image in data.images.numpy()]
    logits = folder_logits(folder, images, [TEMPLATE.format(name) for name in glyphs.CLASS_NAMES])
    n_digits = len(glyphs.DIGIT_NAMES)
    digits = data.labels < n_digits
    among_all = (logits.argmax(dim=1) == data.labels).float().mean()
    among_ten = (logits[digits, :n_digits].argmax(dim=1) == data.labels[digits]).float().mean()
    return among_all.item(), among_ten.item()


def _log(line: str, started: float) -> None:
    print(f"[{time.monotonic() - started:7.1f} s] {line}", flush=True)


def main() -> None:
    """Train by the default recipe and print the accuracy on held-out fonts."""
    parser = argparse.ArgumentParser(prog="python -m nameonly.tiny.train_clip", description=__doc__)
    parser.add_argument("--out", type=Path, default=MODEL, help="model folder to write")
    parser.add_argument("--work", type=Path, default=Path("runs/tiny"), help="checkpoint folder")
    args = parser.parse_args()
    torch.set_num_threads(2)
    train(Recipe(), args.out, args.work)
    among_all, among_ten = held_out_accuracy(args.out, args.work)
    print(f"held-out fonts: {among_all:.4f} among 36 classes, {among_ten:.4f} among ten digits")


if __name__ == "__main__":
    main()
