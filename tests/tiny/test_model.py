import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

from nameonly.tiny import MODEL, glyphs
from nameonly.tiny.captions import FRAMES
from nameonly.tiny.clip_files import folder_logits, reference_images
from nameonly.tiny.glyph_set import render_set

# Measured on these 500 glyphs: 0.686 among 36 classes, 0.872 for digits among the ten.
FLOOR_AMONG_ALL = 0.64
FLOOR_AMONG_DIGITS = 0.83


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    return render_set(
        500, tuple(glyphs.HELD_OUT_FONTS), 1_000_001, tmp_path_factory.mktemp("work"), 1.5
    )


def accuracy(data, texts):
    images = [Image.fromarray(image) for image in data.images.numpy()]
    right = folder_logits(MODEL, images, texts)[:, : len(texts)].argmax(dim=1) == data.labels
    return right.float()


def test_folder_is_small_and_holds_no_pickle():
    files = sorted(MODEL.iterdir())
    assert sum(f.stat().st_size for f in files) <= 5_000_000
    assert {f.name for f in files} == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "reference.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_loads_in_float32_with_77_positions_and_matching_marks():
    model = CLIPModel.from_pretrained(MODEL, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(MODEL, local_files_only=True)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.config.text_config.max_position_embeddings == tokenizer.model_max_length == 77
    assert model.config.text_config.vocab_size == len(tokenizer)
    assert model.config.text_config.eos_token_id == tokenizer.eos_token_id != 2
    assert model.logit_scale.exp() <= 100.1
    ids = tokenizer(["three " * 100], truncation=True)["input_ids"][0]
    assert len(ids) == 77
    assert ids[-1] == tokenizer.eos_token_id


def test_processor_gives_32_pixels_without_torchvision():
    processor = AutoImageProcessor.from_pretrained(MODEL, local_files_only=True, backend="pil")
    for picture in (
        Image.new("RGB", (31, 400), "red"),
        Image.new("RGB", (1, 1)),
        Image.new("RGB", (640, 480), "white"),
    ):
        pixels = processor(picture, return_tensors="pt")["pixel_values"]
        assert pixels.shape == (1, 3, 32, 32)
        assert pixels.abs().max() <= 1.0


def test_reference_logits_are_met():
    reference = json.loads((MODEL / "reference.json").read_text(encoding="utf-8"))
    logits = folder_logits(MODEL, reference_images(), reference["texts"])
    assert reference["texts"] == ["zero", "a photo of a three.", "the letter k"]
    assert reference["tolerance"] == 0.05
    assert np.abs(np.asarray(reference["logits"]) - logits.numpy()).max() < reference["tolerance"]
    assert logits.std() > 10 * reference["tolerance"]


@pytest.mark.parametrize("text", ["größe", "数字の三", "🙂", "ноль"])
def test_unicode_text_is_read(text):
    tokenizer = AutoTokenizer.from_pretrained(MODEL, local_files_only=True)
    ids = tokenizer(text)["input_ids"]
    assert 2 < len(ids) <= 77
    assert tokenizer.unk_token_id not in ids[1:-1]
    assert torch.isfinite(folder_logits(MODEL, reference_images(), [text])).all()


def test_reads_hard_glyphs_in_fonts_it_was_not_trained_on(held_out):
    right = accuracy(held_out, [f"a photo of a {name}." for name in glyphs.CLASS_NAMES])
    assert right.mean() > FLOOR_AMONG_ALL
    assert right[held_out.labels < 10].mean() > FLOOR_AMONG_ALL


@pytest.mark.parametrize(
    "names",
    [
        glyphs.DIGIT_NAMES,
        tuple("0123456789"),
        tuple(f"digit {name}" for name in glyphs.DIGIT_NAMES),
        tuple(f"number {i}" for i in range(10)),
    ],
)
def test_every_wording_of_the_digits_is_read(held_out, names):
    rows = held_out.labels < 10
    digits = type(held_out)(held_out.images[rows], held_out.labels[rows], held_out.seen[rows])
    for template in ("{}", "a photo of a {}.", "itap of the {}.", "a {} in a video game."):
        right = accuracy(digits, [template.format(name) for name in names])
        assert right.mean() > FLOOR_AMONG_DIGITS, template


def test_sentences_agree_on_what_is_seen(held_out):
    images = [Image.fromarray(image) for image in held_out.images[:100].numpy()]
    best = torch.stack(
        [
            folder_logits(MODEL, images, [frame.format(n) for n in glyphs.DIGIT_NAMES]).argmax(1)
            for frame in FRAMES[::6]
        ]
    )
    assert (best == best.mode(dim=0).values).float().mean() > 0.97


@pytest.mark.parametrize(
    ("style", "opposite"),
    [
        ("bold", "thin"),
        ("inverted", "plain"),
        ("large", "small"),
        ("dark", "bright"),
        ("outlined", "plain"),
    ],
)
def test_style_words_are_understood(style, opposite):
    texts = [f"a {word} photo of the digit three." for word in (style, opposite)]
    images = []
    for i, word in enumerate([style, opposite] * 20):
        rng = np.random.default_rng(i)
        effects = frozenset() if word == "plain" else frozenset({word})
        images.append(
            Image.fromarray(glyphs.draw_glyph(glyphs.style_glyph("3", "cmss10", effects), rng))
        )
    best = folder_logits(MODEL, images, texts).argmax(dim=1)
    assert (best == torch.tensor([0, 1] * 20)).float().mean() > 0.8
