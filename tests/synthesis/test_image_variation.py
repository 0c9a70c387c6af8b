from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import AutoPipelineForImage2Image
from diffusion_models import CLASSES, generator
from PIL import Image

from nameonly.images import load, open_images
from nameonly.synthesis._latents import square
from nameonly.synthesis.image_variation import ImageVariation
from nameonly.types import PseudoLabels


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(6):
        low = rng.integers(0, 255, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(low).resize((50, 40), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    images, _ = open_images(folder)
    confidence = torch.tensor([0.5, 0.9, 0.8, 0.7, 0.6, 0.1])
    candidates = torch.zeros(6, 3, dtype=torch.bool)
    for i, label in enumerate([0, 0, 1, 1, 2]):
        candidates[i, label] = True
    return images, PseudoLabels(images.ids, torch.full((6, 3), 1 / 3), candidates, confidence)


def test_the_most_confident_images_of_a_class_have_their_turn_first(pictures):
    images, labels = pictures
    found = ImageVariation().requests(labels, CLASSES, 3)
    assert [images.ids.index(r.source) for r in found] == [1, 0, 1, 2, 3, 2, 4, 4, 4]
    assert [r.class_name for r in found[::3]] == list(CLASSES.class_names)
    assert {r.prompt for r in found[:3]} == {"an image of a zero"}
    assert {(r.trick, r.strength) for r in found} == {("variation", 0.6)}
    assert len({(r.source, r.seed) for r in found}) == 9, "no image is varied twice the same way"


def test_variations_are_those_of_diffusers(model, pictures, tmp_path):
    images, labels = pictures
    variation, made = ImageVariation(strength=0.7), generator(model)
    wanted = variation.requests(labels, CLASSES, 1)
    found = variation.generate(wanted, tmp_path, images, made)
    pipeline = AutoPipelineForImage2Image.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    rows = images.first_rows()
    theirs = pipeline(
        [r.prompt for r in wanted],
        image=[square(load(images, rows[r.source]), 32) for r in wanted],
        strength=0.7,
        generator=[torch.Generator().manual_seed(r.seed) for r in wanted],
        num_inference_steps=3,
        output_type="np",
    ).images
    for i in range(3):
        ours = np.asarray(load(found.images, i), dtype=float)
        assert np.abs(ours - theirs[i] * 255).max() <= 1
    assert [row["source"] for row in found.rows] == [r.source for r in wanted]
    assert {row["strength"] for row in found.rows} == {0.7}


def test_the_weaker_the_nearer_to_the_image(model, pictures, tmp_path):
    images, labels = pictures
    made = generator(model, steps=20)
    rows = images.first_rows()
    apart = []
    for strength in (0.05, 0.5, 1.0):
        variation = ImageVariation(strength=strength)
        wanted = variation.requests(labels, CLASSES, 1)
        found = variation.generate(wanted, tmp_path / f"{strength}", images, made)
        for i, request in enumerate(wanted):
            kept = through(made.pipeline, square(load(images, rows[request.source]), 32))
            apart.append(np.abs(np.asarray(load(found.images, i)) - kept).mean())
    weak, middle, strong = np.array(apart).reshape(3, 3).mean(axis=1)
    assert weak < middle < strong


@torch.no_grad()
def through(pipeline, image):
    """Return what the autoencoder alone makes of an image."""
    pixels = torch.from_numpy(np.asarray(image, dtype=np.float32) / 127.5 - 1)
    mean = pipeline.vae.encode(pixels.permute(2, 0, 1)[None]).latent_dist.mean
    made = pipeline.vae.decode(mean).sample[0].permute(1, 2, 0)
    return ((made / 2 + 0.5).clamp(0, 1) * 255).numpy()


def test_it_resumes(model, pictures, tmp_path):
    images, labels = pictures
    variation, made = ImageVariation(), generator(model)
    wanted = variation.requests(labels, CLASSES, 2)
    first = variation.generate(wanted, tmp_path, images, made)
    (tmp_path / first.images.sources[2]).unlink()
    assert variation.generate(wanted, tmp_path, images, made) == first


def test_bad_requests_are_refused(model, pictures, tmp_path):
    images, labels = pictures
    with pytest.raises(ValueError, match="at least 1, got 0"):
        ImageVariation().requests(labels, CLASSES, 0)
    without = replace(labels, candidates=labels.candidates & torch.tensor([True, True, False]))
    with pytest.raises(ValueError, match="no image was pseudo-labelled 'seven'"):
        ImageVariation().requests(without, CLASSES, 1)
    wanted = ImageVariation().requests(labels, CLASSES, 1)
    with pytest.raises(ValueError, match="2 requests vary other images"):
        ImageVariation().generate(wanted, tmp_path, images.subset([1]), generator(model))
    for strength in (0.0, 1.1):
        with pytest.raises(ValueError, match=r"strength must be in \(0, 1\]"):
            ImageVariation(strength=strength)
    with pytest.raises(ValueError, match="template has exactly one"):
        ImageVariation(template="an image")
