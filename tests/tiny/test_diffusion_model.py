"""The bundled text-to-image model draws what it is asked for."""

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from nameonly.images import load
from nameonly.synthesis.prompt_tricks import PromptTricks
from nameonly.synthesis.text_to_image import TextToImage
from nameonly.tiny import DIFFUSION, MODEL, glyphs
from nameonly.tiny.clip_files import folder_logits
from nameonly.types import LabelSpace

DIGITS = LabelSpace(glyphs.DIGIT_NAMES)
# measured on 500 at 20 steps: 0.998
FLOOR = 0.95
TEXTS = [f"a photo of a {name}." for name in DIGITS.class_names]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Return images by template and guidance, each set made once."""
    folder = tmp_path_factory.mktemp("drawn")
    generator = TextToImage("tiny", steps=15, batch_size=50, dtype="float32", device="cpu")
    made = {}

    def draw(template, scale=3.0, n=1):
        key = (template, scale, n)
        if key not in made:
            tricks = PromptTricks(("base",), template=template, guidance_scale=scale)
            found = generator.generate(tricks.requests(DIGITS, n), folder / str(len(made)))
            made[key] = [load(found.images, i) for i in range(len(found))]
        return made[key]

    return draw


def recognised(images):
    labels = torch.arange(10).repeat_interleave(len(images) // 10)
    return (folder_logits(MODEL, images, TEXTS).argmax(dim=1) == labels).float().mean().item()


def brightness(images):
    return np.mean([np.asarray(image.convert("L")) for image in images])


def test_the_folder_is_small_and_holds_no_pickle():
    files = [path for path in DIFFUSION.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 20_000_000
    assert {path.suffix for path in files} == {".json", ".safetensors"}


def test_diffusers_loads_it_in_float32():
    pipeline = StableDiffusionPipeline.from_pretrained(DIFFUSION)
    parts = (pipeline.vae, pipeline.unet, pipeline.text_encoder)
    assert {part.dtype for part in parts} == {torch.float32}
    assert pipeline.unet.config.sample_size * pipeline.vae_scale_factor == 32
    assert not pipeline.scheduler.config.clip_sample
    assert not pipeline.scheduler.config.set_alpha_to_one
    assert pipeline.scheduler.config.steps_offset == 1


@pytest.mark.slow
def test_digits_are_recognised_at_guidance_three(drawn):
    assert recognised(drawn("a photo of a {}.", n=5)) >= FLOOR


@pytest.mark.slow
def test_guidance_makes_them_easier_to_recognise(drawn):
    without, little = (recognised(drawn("a photo of a {}.", scale, 5)) for scale in (1.0, 3.0))
    assert little > without


@pytest.mark.slow
def test_style_words_are_obeyed(drawn):
    def ink(images):
        """Share of a picture that differs from its border."""
        grey = np.stack([np.asarray(image.convert("L"), dtype=float) for image in images])
        edge = np.median(grey[:, [0, -1]].reshape(len(grey), -1), axis=1)[:, None, None]
        return (np.abs(grey - edge) > 60).mean()

    def sharpness(images):
        grey = np.stack([np.asarray(image.convert("L"), dtype=float) for image in images])
        return np.abs(np.diff(grey, axis=2)).max(axis=(1, 2)).mean()

    assert ink(drawn("a bold {}")) > 1.2 * ink(drawn("a thin {}"))
    assert ink(drawn("a large {}")) > 1.3 * ink(drawn("a small {}"))
    assert brightness(drawn("a bright {}")) > brightness(drawn("a dark {}")) + 40
    assert sharpness(drawn("a plain {}")) > 1.2 * sharpness(drawn("a blurred {}"))
