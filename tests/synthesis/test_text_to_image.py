import os
import resource
import signal
import subprocess
import sys
import time
from shutil import copytree

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from diffusion_models import CLASSES, bare, changed, generator, new_sd3, new_sdxl, requests
from filelock import FileLock
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor

from nameonly.synthesis._pipelines import SCHEDULERS
from nameonly.synthesis.text_to_image import TextToImage
from nameonly.synthetic import read_facts, read_synthetic, read_table


def plainly(pipeline, wanted, **more):
    """Return what diffusers' own call makes of requests, one batch."""
    made = pipeline(
        [request.prompt for request in wanted],
        generator=[torch.Generator().manual_seed(request.seed) for request in wanted],
        num_inference_steps=3,
        guidance_scale=wanted[0].guidance_scale,
        output_type="np",
        **more,
    )
    return made.images


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*.webp")}


# --- what is made


@pytest.mark.parametrize("scale", [7.5, 1.0])
def test_images_are_those_of_diffusers(model, scale):
    wanted = requests(2, guidance_scale=scale)
    values, refused = generator(model).draw(wanted)
    assert np.array_equal(values, plainly(bare(model), wanted))
    assert refused == [False] * 6


@pytest.mark.parametrize(("new", "side"), [(new_sdxl, 32), (new_sd3, None)])
def test_other_architectures_take_their_texts_encoded_once(tmp_path, new, side):
    folder = new(tmp_path / "model")
    wanted = requests(1)
    size = {} if side is None else {"height": side, "width": side}
    values, _ = generator(folder, side=side).draw(wanted)
    assert np.abs(values - plainly(bare(folder), wanted, **size)).max() < 1e-4
    made = generator(folder, side=side).generate(wanted, tmp_path / "out")
    assert made.class_names == CLASSES.class_names


def test_an_image_is_the_same_in_any_batch(model):
    wanted, made = requests(3), generator(model)
    together, _ = made.draw(wanted)
    for i, request in enumerate(wanted):
        alone, _ = made.draw([request])
        assert np.abs(alone[0] - together[i]).max() * 255 < 2
    again, _ = made.draw(wanted)
    assert np.array_equal(again, together), "the same bytes in the same shapes"


def test_every_seed_and_prompt_makes_its_own_image(model):
    values, _ = generator(model).draw(requests(2))
    flat = values.reshape(len(values), -1)
    apart = np.abs(flat[:, None] - flat[None]).max(axis=2) + np.eye(len(flat))
    assert apart.min() > 2 / 255


@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))
def test_every_scheduler_makes_images(model, scheduler):
    values, _ = generator(model, scheduler=scheduler, steps=4).draw(requests(1))
    assert values.shape == (3, 32, 32, 3) and np.isfinite(values).all()
    found = generator(model, scheduler=scheduler).facts["scheduler"]
    assert found == SCHEDULERS[scheduler]


def test_steps_and_side_are_heeded(model):
    few, _ = generator(model, steps=2).draw(requests(1))
    many, _ = generator(model, steps=9).draw(requests(1))
    assert np.abs(few - many).max() > 2 / 255
    wide, _ = generator(model, side=64).draw(requests(1))
    assert wide.shape == (3, 64, 64, 3)


def test_bfloat16(model):
    exact, _ = generator(model).draw(requests(2))
    rounded, _ = generator(model, dtype="bfloat16").draw(requests(2))
    assert rounded.dtype == np.float32
    assert 0 < np.abs(exact - rounded).mean() < 0.05


# --- the folder


@pytest.mark.parametrize("image_format", ["webp", "png"])
def test_the_folder_holds_images_that_know_how_they_came_to_be(model, tmp_path, image_format):
    wanted = requests(4, ("merged",))
    made = generator(model, image_format=image_format).generate(wanted, tmp_path)
    assert len(made) == 12 and made.class_names[:4] == ("zero",) * 4
    rows = pq.read_table(tmp_path / "synthetic.parquet").to_pylist()
    values, _ = generator(model).draw([wanted[0]])
    for request, row in zip(wanted, rows, strict=True):
        path = tmp_path / row["path"]
        assert path.suffix == f".{image_format}"
        assert read_facts(path) == row, "the table can be made again from the images"
        assert row["prompt"] == request.prompt and row["seed"] == request.seed
        assert row["trick"] == request.trick and row["guidance_scale"] == request.guidance_scale
        assert row["steps"] == 3 and row["dtype"] == "float32" and row["lora"] == ""
        assert row["model"] == str(model) and len(row["revision"]) == 32
        with Image.open(path) as image:
            assert image.mode == "RGB" and image.size == (32, 32)
    with Image.open(tmp_path / rows[0]["path"]) as image:
        assert np.abs(np.asarray(image) - values[0] * 255).max() <= 2, "lossless, but for the batch"
    assert made.labels(CLASSES).tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_a_run_goes_on_where_it_stopped_to_the_same_bytes(model, tmp_path):
    wanted, made = requests(6, ("merged",)), generator(model, batch_size=4)
    made.generate(wanted, tmp_path / "whole")
    made.generate(wanted, tmp_path / "broken")
    paths = sorted((tmp_path / "broken").rglob("*.webp"))
    paths[0].unlink()
    paths[7].write_bytes(paths[7].read_bytes()[:200])
    paths[9].write_bytes(b"")
    old = {path: path.stat().st_mtime_ns for path in paths[1:]}
    heard = []
    made.generate(wanted, tmp_path / "broken", lambda *counts: heard.append(counts))
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")
    redrawn = sum(path.stat().st_mtime_ns != old.get(path) for path in paths)
    assert redrawn == 3, "what is there is never written again"
    assert heard[-1] == (18, 18) and heard[0][0] > 15
    heard.clear()
    made.generate(wanted, tmp_path / "broken", lambda *counts: heard.append(counts))
    assert not heard, "nothing is left to make"


def test_more_images_of_a_class_leave_the_first_ones(model, tmp_path):
    made = generator(model)
    made.generate(requests(2), tmp_path)
    before = contents(tmp_path)
    assert len(made.generate(requests(5), tmp_path)) == 15
    after = contents(tmp_path)
    assert before.items() <= after.items()


def test_other_images_in_the_place_are_not_overwritten(model, tmp_path):
    generator(model).generate(requests(2), tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"another image.*steps 3 there, 5 here.*new folder"):
        generator(model, steps=5).generate(requests(2), tmp_path)
    with pytest.raises(ValueError, match="another image than the one asked for"):
        generator(model).generate(requests(2, ("class_prompt",)), tmp_path)
    assert contents(tmp_path) == before


def test_a_second_run_in_the_folder_is_refused(model, tmp_path):
    with FileLock(tmp_path / ".lock"), pytest.raises(ValueError, match="another run is writing"):
        generator(model).generate(requests(1), tmp_path)


# killed twice: the second child is a fork too, for imports take far longer than the drawing
TWICE = """
import os, sys, torch
sys.path.insert(0, sys.argv[3])
torch.set_num_threads(1)
from pathlib import Path
from diffusion_models import generator, requests
for _ in range(2):
    child = os.fork()
    if child == 0:
        generator(sys.argv[1], batch_size=2).generate(requests(6), Path(sys.argv[2]))
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_killed_at_any_moment_it_resumes_to_the_same_bytes(model, tmp_path):
    words = [sys.executable, "-c", TWICE, str(model), str(tmp_path / "killed"), "tests"]
    images = 0
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as run:
        for wanted in (1, 7):
            child, deadline = int(run.stdout.readline()), time.monotonic() + 100
            while images < wanted and run.poll() is None and time.monotonic() < deadline:
                images = len(contents(tmp_path / "killed"))
                time.sleep(0.002)
            os.kill(child, signal.SIGKILL)
            assert int(run.stdout.readline()) == -signal.SIGKILL
    assert not (tmp_path / "killed" / "synthetic.parquet").exists()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name in ("killed", "whole"):
            generator(model, batch_size=2).generate(requests(6), tmp_path / name)
    finally:
        torch.set_num_threads(threads)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert len(contents(tmp_path / "whole")) == 18


def test_no_space_left_is_an_error_and_no_half_image(model, tmp_path):
    made = generator(model)
    _ = made.facts
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            made.generate(requests(1), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.name != ".lock"]
    assert len(made.generate(requests(1), tmp_path)) == 3


# --- images that show nothing


def with_checker(model, folder, threshold):
    """Write the model with a real safety checker that refuses what is above a threshold."""
    size = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    vision = {**size, "num_hidden_layers": 1, "image_size": 32, "patch_size": 16}
    torch.manual_seed(0)
    checker = StableDiffusionSafetyChecker(
        CLIPConfig(vision_config=vision, text_config=size, projection_dim=8)
    )
    checker.concept_embeds.data.normal_()
    checker.special_care_embeds.data.normal_()
    checker.special_care_embeds_weights.data.fill_(2.0)
    checker.concept_embeds_weights.data.fill_(threshold)
    pipeline = bare(model)
    StableDiffusionPipeline(
        **{
            **pipeline.components,
            "safety_checker": checker,
            "feature_extractor": CLIPImageProcessor(size=32, crop_size=32),
        },
        requires_safety_checker=True,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def refusing(model, tmp_path_factory):
    """A model whose checker refuses about half of the images of ``requests(6)``, and which."""
    for threshold in (0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95):
        folder = with_checker(model, tmp_path_factory.mktemp("refusing") / "model", threshold)
        refused = generator(folder).draw(requests(6))[1]
        if 0 < sum(refused) < len(refused):
            return folder, refused
    raise AssertionError("no threshold parts the images")


def test_what_the_safety_checker_refuses_is_drawn_again(refusing, tmp_path):
    wanted, (folder, refused) = requests(6), refusing
    generator(folder, draws=1).generate(wanted, tmp_path / "once")
    once = pq.read_table(tmp_path / "once" / "synthetic.parquet").to_pylist()
    assert [row["kept"] for row in once] == [not r for r in refused]
    assert {row["reason"] for row in once} == {"", "refused by the safety checker in 1 draws"}
    generator(folder, draws=30).generate(wanted, tmp_path / "often")
    often = pq.read_table(tmp_path / "often" / "synthetic.parquet").to_pylist()
    for row, was_refused in zip(often, refused, strict=True):
        assert row["draws"] == row["unsafe_draws"] + row["kept"]
        assert (row["unsafe_draws"] > 0) == was_refused
    assert sum(row["kept"] for row in often) > sum(row["kept"] for row in once)


def test_what_was_given_up_is_not_drawn_again(refusing, tmp_path):
    wanted, out, folder = requests(6), tmp_path / "out", refusing[0]
    generator(folder, draws=1).generate(wanted, out)
    rows = read_table(out)
    assert 0 < sum(row["kept"] for row in rows) < len(rows)
    drawn = []

    class Watched(TextToImage):
        def draw(self, requests, **more):
            drawn.append(len(requests))
            return super().draw(requests, **more)

    settings = {"model": str(folder), "steps": 3, "dtype": "float32"}
    again = Watched(**settings, draws=1)
    assert again.seconds(wanted, out) == 0
    again.generate(wanted, out)
    assert not drawn and "pipeline" not in vars(again), "nothing was drawn, so nothing was loaded"
    assert read_table(out) == rows
    Watched(**settings, draws=2).generate(wanted, out)
    assert drawn, "more draws are worth another try"


def test_a_damaged_image_of_a_finished_folder_is_made_again(model, tmp_path):
    wanted, out = requests(2), tmp_path / "out"
    generator(model).generate(wanted, out)
    path = out / wanted[0].path("webp")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    generator(model).generate(wanted, out)
    assert path.read_bytes() == whole


def test_where_all_are_refused_nothing_is_left(model, tmp_path):
    folder = with_checker(model, tmp_path / "model", -2.0)
    with pytest.raises(ValueError, match=r"none of the 3 images of .* was kept"):
        generator(folder, draws=2).generate(requests(1), tmp_path / "out")
    rows = pq.read_table(tmp_path / "out" / "synthetic.parquet").to_pylist()
    assert [row["unsafe_draws"] for row in rows] == [2, 2, 2]
    assert not list((tmp_path / "out").rglob("*.webp"))


def test_blank_images_are_thrown_out(model, tmp_path):
    def blank(pipeline):
        pipeline.vae.decoder.conv_out.weight.zero_()

    folder = changed(model, tmp_path / "model", blank)
    with pytest.raises(ValueError, match="none of the 3 images"):
        generator(folder, draws=2).generate(requests(1), tmp_path / "out")
    rows = pq.read_table(tmp_path / "out" / "synthetic.parquet").to_pylist()
    assert {row["reason"] for row in rows} == {"blank in 2 draws"}


def test_values_that_are_not_finite_are_an_error(model, tmp_path):
    def poison(pipeline):
        pipeline.unet.conv_out.weight[0, 0, 0, 0] = torch.nan

    folder = changed(model, tmp_path / "model", poison)
    with pytest.raises(FloatingPointError, match="not finite in float32; use bfloat16 or float32"):
        generator(folder).generate(requests(1), tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.webp"))


# --- what cannot be had


def test_without_the_package_one_error_names_the_extra(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ValueError, match=r"pip install 'nameonly\[synth\]'"):
        generator(model).generate(requests(1), tmp_path)


def test_a_package_that_does_not_import_says_why(model, tmp_path, monkeypatch):
    (tmp_path / "diffusers").mkdir()
    (tmp_path / "diffusers" / "__init__.py").write_text("raise RuntimeError('nms is missing')")
    monkeypatch.delitem(sys.modules, "diffusers")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"does not work here .nms is missing.*nameonly doctor"):
        _ = generator(model).folder


def test_models_that_cannot_be_had(model, tmp_path):
    with pytest.raises(ValueError, match="hub did not give 'nobody/nothing'"):
        _ = TextToImage("nobody/nothing").folder
    with pytest.raises(ValueError, match=r"no pipeline of diffusers: it has no model_index.json"):
        _ = TextToImage(str(tmp_path)).folder
    copy = copytree(model, tmp_path / "truncated")
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"cannot load .* as a text-to-image model"):
        _ = generator(copy).pipeline


def test_pickled_weights_are_never_loaded(model, tmp_path):
    copy = copytree(model, tmp_path / "pickled")
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save({"w": torch.zeros(1)}, weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(ValueError, match=r"cannot load .* as a text-to-image model"):
        _ = generator(copy).pipeline


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="side must be at least 8 pixels, got -64"):
        TextToImage("tiny", side=-64)
    for name in ("steps", "batch_size", "draws"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            TextToImage(**{name: 0})


def test_no_requests_are_refused(model, tmp_path):
    with pytest.raises(ValueError, match="no requests"):
        generator(model).generate([], tmp_path)


def test_read_back(model, tmp_path):
    made = generator(model).generate(requests(2), tmp_path)
    again, unreadable = read_synthetic(tmp_path)
    assert again == made and not unreadable


def test_a_model_spelt_another_way_is_the_same_model(model, tmp_path, monkeypatch):
    first = generator(model).generate(requests(2), tmp_path)
    monkeypatch.chdir(model.parent)
    again = generator(model.name).generate(requests(2), tmp_path)
    assert again.images.ids == first.images.ids
    moved = copytree(model, tmp_path / "moved")
    assert generator(moved).generate(requests(3), tmp_path).images.ids[:2] == first.images.ids[:2]
