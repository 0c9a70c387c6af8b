import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoImageProcessor

from nameonly.tiny.clip_files import (
    END,
    START,
    build_model,
    encode_images,
    encode_texts,
    folder_logits,
    reference_images,
    save_folder,
    train_tokenizer,
)

TEXTS = ["a photo of a three.", "the letter k", "a blurred photo of the digit seven"] * 20


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS)


@pytest.fixture(scope="module")
def model(tokenizer):
    return build_model(tokenizer, image_layers=1, text_layers=2, width=16, seed=0).eval()


def test_words_of_the_corpus_are_one_token(tokenizer):
    ids = tokenizer("a photo of a THREE.")["input_ids"]
    tokens = tokenizer.convert_ids_to_tokens(ids)
    assert tokens == [START, "a</w>", "photo</w>", "of</w>", "a</w>", "three</w>", ".</w>", END]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a photo of a three ."


@pytest.mark.parametrize("text", ["größe", "三", "🙂🙂", "№ 5\u00a0ﬁ", "\x00\u200d", "ÿĀ\ud7ff"])
def test_any_unicode_has_its_own_tokens(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert ids[-1] == tokenizer.eos_token_id
    assert len(ids) > 2
    assert tokenizer.unk_token_id not in ids[1:-1]


def test_end_mark_of_model_and_tokenizer_agree(tokenizer, model):
    eos = tokenizer.eos_token_id
    assert eos == tokenizer.convert_tokens_to_ids(END) == len(tokenizer) - 1 != 2
    assert model.config.text_config.eos_token_id == model.text_model.eos_token_id == eos
    assert model.config.text_config.bos_token_id == tokenizer.bos_token_id


def test_same_seed_same_weights_and_global_chance_untouched(tokenizer):
    arguments = {"image_layers": 1, "text_layers": 1, "width": 16}
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first = build_model(tokenizer, **arguments, seed=5)
    assert torch.equal(torch.rand(3), expected)
    second, other = (build_model(tokenizer, **arguments, seed=s) for s in (5, 6))
    assert torch.equal(first.visual_projection.weight, second.visual_projection.weight)
    assert not torch.equal(first.visual_projection.weight, other.visual_projection.weight)


def test_padding_and_company_do_not_change_a_text(tokenizer, model):
    alone = encode_texts(model, tokenizer, ["three"])
    beside = encode_texts(model, tokenizer, ["three", "a photo of a three " * 60])
    assert beside.shape == (2, 16)
    assert torch.allclose(alone[0], beside[0], atol=1e-6)
    assert torch.allclose(beside.norm(dim=1), torch.ones(2))


def test_reference_images_follow_the_formula():
    for k, image in enumerate(reference_images()):
        pixels = np.asarray(image)
        assert image.mode == "RGB"
        assert pixels.shape == (64, 64, 3)
        for y, x, channel in ((0, 0, 0), (63, 63, 2), (10, 50, 1)):
            value = (x * (k + 1) * 3 + y * (2 * k + 1) * 5 + channel * 85) % 256
            assert pixels[y, x, channel] == value


def test_saved_folder_gives_the_logits_of_the_model(tokenizer, model, tmp_path):
    save_folder(model, tokenizer, tmp_path / "clip")
    weights = load_file(tmp_path / "clip" / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float16}
    reference = json.loads((tmp_path / "clip" / "reference.json").read_text())
    assert np.shape(reference["logits"]) == (3, 3)
    logits = folder_logits(tmp_path / "clip", reference_images(), reference["texts"])
    assert np.allclose(logits, reference["logits"], atol=1e-4)
    # Half precision moves no logit by more than a small part of its range.
    processor = AutoImageProcessor.from_pretrained(tmp_path / "clip", backend="pil")
    pixels = processor(reference_images(), return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        texts = encode_texts(model, tokenizer, reference["texts"])
        exact = model.logit_scale.exp() * encode_images(model, pixels) @ texts.T
    assert torch.allclose(logits, exact, atol=0.05)
    assert exact.std() > 0.5


def test_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(OSError, match=r"no file named model\.safetensors"):
        folder_logits(tmp_path, reference_images(), ["three"])


def test_learning_is_a_function_of_the_texts():
    # All pairs occur equally often and begin alike, so that every merge is a tie.
    texts = ["ab ac ad ae af ag ah ai aj ak al am an"] * 25
    first, *others = [train_tokenizer(texts).backend_tokenizer.to_str() for _ in range(6)]
    assert "ab</w>" in first
    assert others == [first] * 5


def test_saved_tokenizer_neither_pads_nor_cuts_by_itself(tokenizer, model, tmp_path):
    encode_texts(model, tokenizer, ["three", "the letter k"])
    save_folder(model, tokenizer, tmp_path)
    rules = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    assert (rules["padding"], rules["truncation"]) == (None, None)
