import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, CLIPModel, SiglipModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from nameonly.backbones.clip import ClipBackbone, choose_device, choose_dtype

IMAGES = [
    Image.fromarray(np.random.default_rng(i).integers(0, 256, (40 + i, 50, 3), dtype=np.uint8))
    for i in range(3)
]
TEXTS = ["zero", "a photo of a three.", "ein Haus über dem Meer"]


def test_features_are_those_of_transformers(clip_folder):
    backbone = ClipBackbone(str(clip_folder), device="cpu", dtype="float32")
    model = CLIPModel.from_pretrained(clip_folder).eval()
    processor = CLIPImageProcessorPil.from_pretrained(clip_folder)
    tokenizer = AutoTokenizer.from_pretrained(clip_folder)
    with torch.no_grad():
        tokens = tokenizer(TEXTS, padding=True, return_tensors="pt")
        pixels = processor(images=IMAGES, return_tensors="pt")
        want = model(**tokens, **pixels)
    torch.testing.assert_close(backbone.encode_images(IMAGES), want.image_embeds)
    torch.testing.assert_close(backbone.encode_texts(TEXTS), want.text_embeds)
    logits = backbone.logit_scale * want.image_embeds @ want.text_embeds.T
    torch.testing.assert_close(logits, want.logits_per_image)
    assert backbone.dim == 24


def test_siglip_pads_to_full_length(siglip_folder):
    backbone = ClipBackbone(str(siglip_folder), device="cpu", dtype="float32")
    model = SiglipModel.from_pretrained(siglip_folder).eval()
    processor = SiglipImageProcessorPil.from_pretrained(siglip_folder)
    tokenizer = AutoTokenizer.from_pretrained(siglip_folder)
    with torch.no_grad():
        tokens = tokenizer(
            TEXTS, padding="max_length", max_length=16, truncation=True, return_tensors="pt"
        )
        want = model(
            input_ids=tokens["input_ids"],
            pixel_values=processor(images=IMAGES, return_tensors="pt").pixel_values,
        )
    torch.testing.assert_close(backbone.encode_images(IMAGES), want.image_embeds)
    torch.testing.assert_close(backbone.encode_texts(TEXTS), want.text_embeds)
    assert backbone.dim == 32


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_features_leave_as_unit_rows_in_float32(clip_folder, dtype):
    backbone = ClipBackbone(str(clip_folder), device="cpu", dtype=dtype)
    for rows in (backbone.encode_images(IMAGES), backbone.encode_texts(TEXTS)):
        assert rows.dtype == torch.float32
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(3))
    assert backbone.text_key["dtype"] == dtype


def test_long_texts_are_cut_and_many_are_chunked(clip_folder, monkeypatch):
    monkeypatch.setattr("nameonly.backbones.clip.TEXTS_PER_CHUNK", 2)
    backbone = ClipBackbone(str(clip_folder), device="cpu", dtype="float32")
    texts = ["a photo of " + "very " * 100 + "much", *TEXTS]
    alone = torch.cat([backbone.encode_texts([t]) for t in texts])
    torch.testing.assert_close(backbone.encode_texts(texts), alone, atol=1e-5, rtol=1e-5)


def test_changed_weights_or_preprocessing_change_the_key(clip_folder, tmp_path):
    before = ClipBackbone(str(clip_folder), dtype="float32").image_key
    copy = tmp_path / "copy"
    shutil.copytree(clip_folder, copy)
    data = bytearray((copy / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (copy / "model.safetensors").write_bytes(data)
    assert ClipBackbone(str(copy), dtype="float32").image_key["revision"] != before["revision"]
    text = (clip_folder / "preprocessor_config.json").read_text()
    (copy / "preprocessor_config.json").write_text(text.replace("0.48145466", "0.5"))
    after = ClipBackbone(str(copy), dtype="float32").image_key
    assert after["preprocessing"] != before["preprocessing"]


def test_a_model_that_is_nowhere_says_how_to_pass_a_folder(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        ValueError, match=r"cannot load backbone 'nobody/nothing'.*--backbone /path"
    ):
        _ = ClipBackbone("nobody/nothing").dim


def test_a_folder_that_is_no_model_says_what_it_needs(tmp_path):
    with pytest.raises(ValueError, match=r"cannot load backbone folder.*config\.json"):
        _ = ClipBackbone(str(tmp_path)).dim


def test_weights_that_are_pickled_are_refused(clip_folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(clip_folder, copy)
    model = CLIPModel.from_pretrained(clip_folder)
    torch.save(model.state_dict(), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="cannot load backbone folder"):
        _ = ClipBackbone(str(copy)).dim


def test_a_model_of_another_kind_is_refused(tmp_path):
    from transformers import BertConfig

    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is a 'bert' model; expected one of clip"):
        _ = ClipBackbone(str(tmp_path)).dim


def test_values_that_are_not_finite_are_refused(clip_folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(clip_folder, copy)
    model = CLIPModel.from_pretrained(clip_folder)
    with torch.no_grad():
        model.visual_projection.weight.fill_(torch.nan)
    model.save_pretrained(copy)
    with pytest.raises(FloatingPointError, match="try --dtype float32"):
        ClipBackbone(str(copy), dtype="bfloat16").encode_images(IMAGES)


def test_devices_and_dtypes():
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(ValueError, match="try --device cpu"):
        choose_device("cuda:99")
    with pytest.raises(ValueError, match="cannot be used here"):
        choose_device("abacus")
    assert choose_dtype("float16", torch.device("cpu")) == torch.float16
    assert choose_dtype("auto", torch.device("cpu")) in {torch.float32, torch.bfloat16}


def test_tiny_says_what_it_knows():
    assert "glyphs" in ClipBackbone("tiny").note and ClipBackbone("other").note == ""


def test_a_model_without_its_tokenizer_is_refused(clip_folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(clip_folder, copy)
    for path in copy.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ValueError, match="has no tokenizer"):
        ClipBackbone(str(copy), dtype="float32").encode_texts(TEXTS)


def test_missing_weights_are_not_made_up(clip_folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(clip_folder, copy)
    tensors = load_file(copy / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 weights.*visual_projection"):
        _ = ClipBackbone(str(copy)).dim


def test_truncated_weights_are_refused(clip_folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(clip_folder, copy)
    data = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="cannot load backbone folder"):
        _ = ClipBackbone(str(copy)).dim


def test_the_reference_is_no_part_of_the_fingerprint(clip_folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(clip_folder, copy)
    before = ClipBackbone(str(copy)).resolved_revision
    (copy / "reference.json").write_text("{}")
    assert ClipBackbone(str(copy)).resolved_revision == before


def test_a_text_has_the_same_features_whatever_stands_beside_it(clip_folder):
    backbone = ClipBackbone(str(clip_folder), device="cpu", dtype="float32")
    long = "a photo of a very large letter in an old book"
    alone, beside = backbone.encode_texts(["zero"]), backbone.encode_texts(["zero", long])
    torch.testing.assert_close(alone[0], beside[0], atol=1e-6, rtol=0)


HUB = """
from PIL import Image
from nameonly.backbones.clip import ClipBackbone
backbone = ClipBackbone("someone/small-clip", device="cpu", dtype="float32")
print(backbone.encode_images([Image.new("RGB", (40, 40), "red")])[0, :3].tolist())
print(backbone.encode_texts(["zero"]).shape, backbone.resolved_revision)
"""


def test_a_model_in_the_hubs_cache_is_the_one_in_a_folder(clip_folder, tmp_path):
    """The layout that the hub's client writes, read offline: the path of every hub id."""
    repository = tmp_path / "hub" / "models--someone--small-clip"
    commit = "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(clip_folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    got = subprocess.run(
        [sys.executable, "-c", HUB], capture_output=True, text=True, env=environment
    )
    assert got.returncode == 0, got.stderr
    local = ClipBackbone(str(clip_folder), device="cpu", dtype="float32")
    assert got.stdout.split()[-1] == local.resolved_revision
