import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import (
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
)
from diffusion_models import CLASSES, bare, changed, generator, new_model, new_sdxl, requests
from PIL import Image
from safetensors.torch import load_file, save_file

from nameonly.images import load, open_images
from nameonly.loop import Schedule
from nameonly.ops.diffusion import noise_loss
from nameonly.synthesis._adaptation import lora_id
from nameonly.synthesis._latents import Latents, encode_latents, square
from nameonly.synthesis.domain_lora import DomainLora
from nameonly.types import PseudoLabels

FILE = "pytorch_lora_weights.safetensors"
SHORT = Schedule(2, 4, 1e-2, clip=1.0)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Twelve pictures, grey levels by class, and their labels."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(12):
        values = rng.normal(60 * (i % 3) + 60, 10, (40, 32, 3)).clip(0, 255)
        Image.fromarray(values.astype(np.uint8)).save(folder / f"{i:02d}.png")
    images, _ = open_images(folder)
    return images, labels_of(images, [i % 3 for i in range(12)])


def labels_of(images, labels):
    """Return hard pseudo-labels, -1 = left out."""
    candidates = torch.zeros(len(images), 3, dtype=torch.bool)
    for i, label in enumerate(labels):
        if label >= 0:
            candidates[i, label] = True
    probs = torch.full((len(images), 3), 1 / 3)
    return PseudoLabels(images.ids, probs, candidates, torch.ones(len(images)))


def learner(**fields):
    settings = {"rank": 2, "schedule": SHORT, "dtype": "float32", "device": "cpu", "flip": False}
    return DomainLora(**{**settings, **fields})


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- the maths


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_a_model_that_knows_the_noise_has_no_loss(kind):
    scheduler = DDPMScheduler(prediction_type=kind)
    latents = torch.randn(5, 4, 2, 2, generator=torch.Generator().manual_seed(1))
    alphas = scheduler.alphas_cumprod

    def knowing(noisy, steps, states):
        a = alphas[steps][:, None, None, None]
        noise = (noisy - a.sqrt() * latents) / (1 - a).sqrt()
        velocity = a.sqrt() * noise - (1 - a).sqrt() * latents
        sample = noise if kind == "epsilon" else velocity
        return type("Output", (), {"sample": sample})

    def at(denoiser):
        generator = torch.Generator().manual_seed(0)
        return noise_loss(denoiser, scheduler, latents, torch.zeros(5, 1, 1), generator).item()

    assert at(knowing) < 1e-4
    silent = at(lambda noisy, *_: type("Output", (), {"sample": torch.zeros_like(noisy)}))
    assert 0.5 < silent < 2, "the variance of noise is one"


def test_what_is_neither_noise_nor_velocity_is_refused():
    scheduler = DDPMScheduler(prediction_type="sample")
    with pytest.raises(ValueError, match="predicts 'sample'; LoRA training knows epsilon"):
        noise_loss(
            lambda *_: None,
            scheduler,
            torch.zeros(1, 4, 2, 2),
            torch.zeros(1, 1, 1),
            torch.Generator().manual_seed(0),
        )


def test_latents_are_drawn_from_their_own_distribution_and_side():
    mean = torch.arange(6.0).reshape(2, 3, 1, 1, 1).expand(2, 3, 4, 50, 50)
    latents = Latents(mean, torch.full_like(mean, 0.01))
    rows = torch.tensor([2, 0, 2, 1] * 10)
    drawn = latents.draw(rows, torch.Generator().manual_seed(0))
    middle = drawn.mean(dim=(1, 2, 3))
    side = (middle - rows) / 3
    assert set(side.round().tolist()) == {0.0, 1.0}, "mirrored half of the time"
    assert (side - side.round()).abs().max() < 1e-3
    assert drawn.std(dim=(1, 2, 3)).mean().item() == pytest.approx(0.01, rel=0.05)


def test_latents_are_those_of_diffusers_and_kept(model, pictures, tmp_path):
    images, _ = pictures
    pipeline, kept = bare(model), tmp_path / "latents.safetensors"
    found = encode_latents(images, pipeline, "m", True, kept)
    assert found.mean.shape == (2, 12, 4, 8, 8)
    image = square(load(images, 3), 32)
    pixels = pipeline.image_processor.preprocess(image)
    with torch.no_grad():
        for side, seen in enumerate((pixels, pixels.flip(-1))):
            want = pipeline.vae.encode(seen).latent_dist
            scale = pipeline.vae.config.scaling_factor
            torch.testing.assert_close(found.mean[side, 3], want.mean[0] * scale, atol=1e-4, rtol=0)
            torch.testing.assert_close(found.std[side, 3], want.std[0] * scale, atol=1e-4, rtol=0)
    pipeline.vae.encode = None  # the second time nothing is encoded
    again = encode_latents(images, pipeline, "m", True, kept)
    assert torch.equal(again.mean, found.mean) and torch.equal(again.std, found.std)
    with pytest.raises(TypeError):
        encode_latents(images, pipeline, "another", True, kept)
    with pytest.raises(TypeError):
        encode_latents(images.subset([0]), pipeline, "m", True, kept)


# --- the training


def test_the_lora_is_read_by_diffusers_and_changes_images(model, pictures, tmp_path):
    images, labels = pictures
    before = digest(model / "unet" / "diffusion_pytorch_model.safetensors")
    folder = learner().adapt(images, labels, CLASSES, model, tmp_path)
    assert sorted(p.name for p in folder.iterdir()) == [FILE], "the training's state is gone"
    assert digest(model / "unet" / "diffusion_pytorch_model.safetensors") == before
    plain, _ = generator(model).draw(requests(1))
    adapted, _ = generator(model, lora=str(folder)).draw(requests(1))
    assert np.abs(plain - adapted).max() > 2 / 255
    pipeline = bare(model)
    pipeline.load_lora_weights(folder)
    wanted = requests(1)
    theirs = pipeline(
        [r.prompt for r in wanted],
        generator=[torch.Generator().manual_seed(r.seed) for r in wanted],
        num_inference_steps=3,
        output_type="np",
    ).images
    assert np.abs(theirs - adapted).max() < 1e-5
    named = {name.split(".")[-3] for name in load_file(folder / FILE)}
    assert len(load_file(folder / FILE)) % 8 == 0, named
    assert generator(model, lora=str(folder)).facts["lora"] != ""


def test_training_lowers_the_loss(model, pictures, tmp_path):
    means = []
    trained = learner(schedule=Schedule(12, 4, 2e-2, clip=1.0), rank=8)
    trained.adapt(*pictures, CLASSES, model, tmp_path, on_epoch=lambda _, mean: means.append(mean))
    assert len(means) == 12
    assert np.mean(means[-3:]) < 0.97 * np.mean(means[:2])


def test_a_training_that_was_stopped_goes_on_to_the_same_bytes(model, pictures, tmp_path):
    class StoppedError(Exception):
        pass

    def stop(epoch, _):
        if epoch == 2:
            raise StoppedError

    long = learner(schedule=Schedule(4, 4, 1e-2, clip=1.0))
    long.adapt(*pictures, CLASSES, model, tmp_path / "whole")
    with pytest.raises(StoppedError):
        long.adapt(*pictures, CLASSES, model, tmp_path / "broken", on_epoch=stop)
    assert not (tmp_path / "broken" / FILE).exists()
    heard = []
    long.adapt(
        *pictures,
        CLASSES,
        model,
        tmp_path / "broken",
        on_epoch=lambda epoch, _: heard.append(epoch),
    )
    assert heard == [3, 4]
    assert lora_id(tmp_path / "broken") == lora_id(tmp_path / "whole")


def test_a_training_on_other_labels_does_not_go_on_from_it(model, pictures, tmp_path):
    def stop(*_):
        raise KeyboardInterrupt

    images, labels = pictures
    with pytest.raises(KeyboardInterrupt):
        learner().adapt(images, labels, CLASSES, model, tmp_path / "mixed", on_epoch=stop)
    other = labels_of(images, [(i + 1) % 3 for i in range(12)])
    for name in ("mixed", "fresh"):
        learner().adapt(images, other, CLASSES, model, tmp_path / name)
    assert lora_id(tmp_path / "mixed") == lora_id(tmp_path / "fresh")


def test_neither_order_nor_images_left_out_change_it(model, pictures, tmp_path):
    images, labels = pictures
    few = labels_of(images, [i % 3 if i < 8 else -1 for i in range(12)])
    learner().adapt(images, few, CLASSES, model, tmp_path / "one")
    order = [11, 3, 5, 0, 1, 7, 2, 9, 6, 4, 10, 8]
    learner().adapt(
        images.subset(order), few.subset(torch.tensor(order)), CLASSES, model, tmp_path / "two"
    )
    learner().adapt(
        images.subset(range(8)), few.subset(torch.arange(8)), CLASSES, model, tmp_path / "three"
    )
    first = lora_id(tmp_path / "one")
    assert lora_id(tmp_path / "two") == first == lora_id(tmp_path / "three")
    learner().adapt(images, labels, CLASSES, model, tmp_path / "all")
    assert lora_id(tmp_path / "all") != first


@pytest.mark.parametrize(
    "fields",
    [
        {"template": "a drawing of {}"},
        {"flip": True},
        {"seed": 1},
        {"rank": 4},
    ],
)
def test_every_setting_is_heeded(model, pictures, tmp_path, fields):
    short = replace(learner(), schedule=Schedule(1, 4, 1e-2))
    short.adapt(*pictures, CLASSES, model, tmp_path / "one")
    replace(short, **fields).adapt(*pictures, CLASSES, model, tmp_path / "two")
    assert lora_id(tmp_path / "one") != lora_id(tmp_path / "two")


@pytest.mark.parametrize(
    "sampler", [DPMSolverMultistepScheduler, EulerDiscreteScheduler, PNDMScheduler]
)
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_noise_is_that_of_pretraining_whatever_sampler_the_model_names(
    model, pictures, tmp_path, sampler, kind
):
    """A sampler's own add_noise may be on another scale, or have its levels in another order."""

    def named(new):
        def change(pipeline):
            config = {**pipeline.scheduler.config, "prediction_type": kind}
            pipeline.scheduler = new.from_config(config)

        return change

    losses = {}
    for name, new in (("ddpm", DDPMScheduler), ("sampler", sampler)):
        folder, heard = changed(model, tmp_path / name, named(new)), losses.setdefault(name, [])
        learner().adapt(
            *pictures,
            CLASSES,
            folder,
            tmp_path / f"{name}-lora",
            on_epoch=lambda _, x: heard.append(x),  # noqa: B023
        )
    assert losses["ddpm"] == losses["sampler"] != []
    assert lora_id(tmp_path / "ddpm-lora") == lora_id(tmp_path / "sampler-lora")


def test_captions_are_the_pseudo_labels(model, pictures, tmp_path):
    images, labels = pictures
    learner().adapt(images, labels, CLASSES, model, tmp_path / "one")
    other = labels_of(images, [(i + 1) % 3 for i in range(12)])
    learner().adapt(images, other, CLASSES, model, tmp_path / "two")
    assert lora_id(tmp_path / "one") != lora_id(tmp_path / "two")


def test_gradient_checkpointing_and_bfloat16_train_nearly_the_same(model, pictures, tmp_path):
    learner().adapt(*pictures, CLASSES, model, tmp_path / "exact")
    exact = load_file(tmp_path / "exact" / FILE)
    for name, fields, limit in (
        ("saving", {"gradient_checkpointing": True}, 1e-4),
        ("rounded", {"dtype": "bfloat16"}, 0.3),
    ):
        learner(**fields).adapt(*pictures, CLASSES, model, tmp_path / name)
        found = load_file(tmp_path / name / FILE)
        apart = sum((found[k] - exact[k]).square().sum() for k in exact).sqrt()
        size = sum(exact[k].square().sum() for k in exact).sqrt()
        assert apart / size < limit, name


# --- what is refused


def test_a_lora_of_another_model_is_refused(model, pictures, tmp_path):
    folder = learner().adapt(*pictures, CLASSES, model, tmp_path / "lora")
    other = new_model(tmp_path / "other", seed=1)
    with pytest.raises(ValueError, match=r"was trained for the model \w+ and this one is"):
        _ = generator(other, lora=str(folder)).pipeline
    weights = folder / FILE
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(ValueError, match="is damaged"):
        _ = generator(model, lora=str(folder)).pipeline
    with pytest.raises(ValueError, match="there is no LoRA at"):
        _ = generator(model, lora=str(tmp_path / "nowhere")).pipeline
    (tmp_path / "lora.bin").write_bytes(b"pickle")
    with pytest.raises(ValueError, match=r"lora.bin is not safetensors"):
        _ = generator(model, lora=str(tmp_path / "lora.bin")).pipeline


def test_a_lora_that_names_no_model_and_does_not_fit_is_refused(model, pictures, tmp_path):
    folder = learner().adapt(*pictures, CLASSES, model, tmp_path / "lora")
    grown = {k: torch.cat([v, v], dim=1) for k, v in load_file(folder / FILE).items()}
    save_file(grown, tmp_path / "grown.safetensors")
    with pytest.raises(ValueError, match="does not fit this model"):
        _ = generator(model, lora=str(tmp_path / "grown.safetensors")).pipeline


def test_models_without_a_plain_unet_are_refused(pictures, tmp_path):
    folder = new_sdxl(tmp_path / "model")
    with pytest.raises(
        ValueError, match=r"Stable Diffusion 1.x and 2.x, this is a StableDiffusionXL"
    ):
        learner().adapt(*pictures, CLASSES, folder, tmp_path / "lora")


def test_no_image_and_other_images_are_refused(model, pictures, tmp_path):
    images, labels = pictures
    with pytest.raises(ValueError, match="none of the 12 images has a pseudo-label"):
        learner().adapt(images, labels_of(images, [-1] * 12), CLASSES, model, tmp_path)
    with pytest.raises(ValueError, match="different images or orders"):
        learner().adapt(images.subset([0, 1]), labels, CLASSES, model, tmp_path)


def test_an_image_that_has_gone_is_named(model, tmp_path):
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    Image.new("RGB", (32, 32), "red").save(tmp_path / "b.png")
    images, _ = open_images(tmp_path)
    (tmp_path / "a.png").unlink()
    with pytest.raises(ValueError, match=r"a\.png cannot be read"):
        learner().adapt(images, labels_of(images, [0, 1]), CLASSES, model, tmp_path / "lora")


def test_latents_that_are_not_finite_are_an_error(model, pictures, tmp_path):
    def poison(pipeline):
        pipeline.vae.encoder.conv_in.weight[0, 0, 0, 0] = torch.nan

    folder = changed(model, tmp_path / "model", poison)
    with pytest.raises(FloatingPointError, match="latents that are not finite"):
        learner().adapt(*pictures, CLASSES, folder, tmp_path / "lora")


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="rank must be at least 1"):
        DomainLora(rank=0)
    with pytest.raises(ValueError, match=r"template has exactly one {}"):
        DomainLora(template="no gap")
