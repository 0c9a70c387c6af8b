from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from nameonly.tiny import MODEL, glyphs, train_diffusion
from nameonly.tiny.captions import styles_named
from nameonly.tiny.diffusion_files import (
    build_autoencoder,
    build_denoiser,
    build_scheduler,
    load_text_tower,
)
from nameonly.tiny.diffusion_losses import NoiseLoss, PictureLoss, encode_prompts
from nameonly.tiny.glyph_set import render_set
from nameonly.tiny.train_diffusion import Recipe, encode, train

SMALL = Recipe(
    n_glyphs=64,
    autoencoder_epochs=2,
    denoiser_epochs=2,
    batch_size=32,
    autoencoder_widths=(8, 8, 16),
    denoiser_widths=(16, 32),
    seed=7,
)
PARTS = ("vae", "unet")


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory, one_thread):
    folder = tmp_path_factory.mktemp("whole")
    train(SMALL, folder / "out", folder / "work")
    return folder


def weights(folder):
    found = {}
    for part in PARTS:
        tensors = load_file(folder / part / "diffusion_pytorch_model.safetensors")
        found |= {f"{part}.{name}": value for name, value in tensors.items()}
    return found


@pytest.mark.parametrize("moment", ["autoencoder, epoch 1", "denoiser, epoch 1"])
def test_killed_and_resumed_run_gives_the_same_weights(
    whole_run, tmp_path, monkeypatch, capsys, moment
):
    log = train_diffusion._log

    def kill(line, started):
        log(line, started)
        if line.startswith(moment):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train_diffusion, "_log", kill)
        with pytest.raises(KeyboardInterrupt):
            train(SMALL, tmp_path / "out", tmp_path / "work")
    assert not (tmp_path / "out").exists()
    capsys.readouterr()
    train(SMALL, tmp_path / "out", tmp_path / "work")
    assert f"{moment}:" not in capsys.readouterr().out
    resumed, whole = weights(tmp_path / "out"), weights(whole_run / "out")
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_both_networks_are_trained(whole_run, tmp_path):
    none = replace(SMALL, autoencoder_epochs=0, denoiser_epochs=0)
    train(none, tmp_path / "out", whole_run / "work")
    before, after = weights(tmp_path / "out"), weights(whole_run / "out")
    same = [name for name in before if torch.equal(before[name], after[name])]
    # attention to a group norm's shift and to keys' biases cancels
    assert len(same) < len(before) / 20, same


def test_the_text_tower_is_the_bundled_clips(whole_run):
    pipeline = StableDiffusionPipeline.from_pretrained(whole_run / "out")
    mine = pipeline.text_encoder.state_dict()
    clip = load_file(MODEL / "model.safetensors")
    for name, value in mine.items():
        key = name if name.startswith("text_model.") else f"text_model.{name}"
        assert torch.equal(value, clip[key].float()), name
    assert not pipeline.scheduler.config.clip_sample and pipeline.safety_checker is None


def test_prompts_are_encoded_as_the_pipeline_does(whole_run):
    pipeline = StableDiffusionPipeline.from_pretrained(whole_run / "out")
    texts = ["a three", "", "a bold, blurred photo of the digit 7."]
    ours = encode_prompts(*load_text_tower(), texts)
    theirs, _ = pipeline.encode_prompt(texts, "cpu", 1, False)
    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)


def test_latents_have_unit_variance_once_scaled(whole_run):
    pipeline = StableDiffusionPipeline.from_pretrained(whole_run / "out")
    data = render_set(64, tuple(glyphs.TRAINING_FONTS), SMALL.seed, whole_run / "work")
    latents, error = encode(pipeline.vae, data)
    assert latents.shape == (64, 4, 8, 8) and error > 0
    assert (latents * pipeline.vae.config.scaling_factor).std().item() == pytest.approx(1, abs=0.01)


def test_captions_are_true_and_some_are_empty(whole_run):
    data = render_set(64, tuple(glyphs.TRAINING_FONTS), SMALL.seed, whole_run / "work")
    tower, tokenizer = load_text_tower()
    latents = torch.zeros(64, 4, 8, 8)
    denoiser = build_denoiser((16, 32), 128, 0)
    loss = NoiseLoss(denoiser, build_scheduler(), tower, tokenizer, latents, data, 0.25, 0)
    rows = torch.arange(64).repeat(10)
    captions = loss.captions(rows, np.random.default_rng(0))
    assert 0.18 < captions.count("") / len(captions) < 0.32
    for row, caption in zip(rows.tolist(), captions, strict=True):
        seen = {s for s, on in zip(glyphs.STYLES, data.seen[row].tolist(), strict=True) if on}
        assert styles_named(caption) <= seen


def test_the_picture_loss_is_error_and_divergence(whole_run):
    data = render_set(64, tuple(glyphs.TRAINING_FONTS), SMALL.seed, whole_run / "work")
    autoencoder = build_autoencoder((8, 8, 16), 0)
    rows = torch.arange(8)
    alone = PictureLoss(autoencoder, data, 0.0, 0)(rows)
    weighed = PictureLoss(autoencoder, data, 10.0, 0)(rows)
    assert torch.isfinite(alone) and weighed > alone
    assert torch.equal(alone, PictureLoss(autoencoder, data, 0.0, 0)(rows)), "chance is seeded"
