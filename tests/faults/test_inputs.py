"""Images that go away while they are read, clocks that jump, caches of others, models that fail."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from nameonly import store
from nameonly.backbones.clip import ClipBackbone
from nameonly.classifier import load
from nameonly.jobs import label
from nameonly.tiny.digits import CLASS_NAMES

DAY = 86_400


def at_stage(wanted, action):
    return lambda stage: action() if stage == wanted else None


def test_an_image_that_vanishes_before_it_is_encoded_costs_no_other(photos, undisturbed, tiny):
    gone = sorted(photos.iterdir())[5]
    run = label(photos, CLASS_NAMES, backbone=tiny, on_stage=at_stage("encode", gone.unlink))
    assert [(q.source, q.reason[:12]) for q in run.quarantined] == [(gone.name, "no such file")]
    paths = run.table["path"].to_pylist()
    assert gone.name not in paths and len(paths) == len(undisturbed[0]) - 1


def test_a_folder_that_vanishes_before_it_is_encoded_is_one_error(photos, tiny, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="none of the 48 images could be read"):
        label(
            photos,
            CLASS_NAMES,
            backbone=tiny,
            out=out,
            on_stage=at_stage("encode", lambda: shutil.rmtree(photos)),
        )
    assert not out.exists()


@pytest.mark.parametrize("stage", ["assess", "report"])
def test_images_that_vanish_after_they_are_encoded_cost_no_label(photos, undisturbed, tiny, stage):
    vanish = at_stage(stage, lambda: shutil.rmtree(photos))
    run = label(photos, CLASS_NAMES, backbone=tiny, on_stage=vanish)
    assert run.table.equals(undisturbed[0])


@pytest.mark.parametrize("moment", [0, -20 * 365 * DAY, 20 * 365 * DAY])
def test_what_a_clock_says_decides_nothing(photos, undisturbed, tiny, tmp_path, moment):
    options = {"backbone": tiny, "cache": tmp_path / "cache", "out": tmp_path / "out"}
    label(photos, CLASS_NAMES, **options)
    now = time.time()
    for path in [*tmp_path.rglob("*")]:
        os.utime(path, (now + moment if moment else 0,) * 2)
    run = label(photos, CLASS_NAMES, **options, overwrite=True)
    assert run.table.equals(undisturbed[0]) and run.summary["counts"]["encoded_now"] == 0
    assert run.summary["repairs"] == []


def test_a_clock_that_jumps_back_while_a_run_goes_on(photos, undisturbed, tiny, monkeypatch):
    start, calls = time.time(), iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: start - DAY * next(calls))
    run = label(photos, CLASS_NAMES, backbone=tiny)
    assert run.table.equals(undisturbed[0])
    assert all(seconds >= 0 for seconds in run.summary["timings"].values())


RUN = """
import sys
from nameonly import encoding
from nameonly.backbones.clip import ClipBackbone
from nameonly.jobs import label
from nameonly.tiny.digits import CLASS_NAMES
encoding.ROWS_PER_SHARD = 16
backbone = ClipBackbone("tiny", device="cpu", dtype="float32", batch_size=16)
_ = backbone.network
print("ready", flush=True)
sys.stdin.readline()
photos, cache, out = sys.argv[1:]
label(photos, CLASS_NAMES, backbone=backbone, cache=cache, out=out)
"""


@pytest.mark.slow
def test_two_runs_on_one_cache_at_the_same_time(photos, undisturbed, tiny, tmp_path):
    cache, outs = tmp_path / "cache", [tmp_path / "one", tmp_path / "two"]
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", RUN, str(photos), str(cache), str(out)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for out in outs
    ]
    for run in runs:
        assert run.stdout.readline() == "ready\n"
    for run in runs:
        run.stdin.write("go\n")
        run.stdin.flush()
    for run in runs:
        with run:
            assert run.wait(timeout=120) == 0
    one, two = ((out / "labels.parquet").read_bytes() for out in outs)
    third = label(photos, CLASS_NAMES, backbone=tiny, cache=cache, out=tmp_path / "three")
    assert one == two == (tmp_path / "three" / "labels.parquet").read_bytes()
    assert third.table.equals(undisturbed[0]) and third.summary["counts"]["encoded_now"] == 0
    assert third.summary["repairs"] == []


def test_a_cache_of_an_older_version_is_left_alone(
    photos, undisturbed, tiny, tmp_path, monkeypatch
):
    cache = tmp_path / "cache"
    with monkeypatch.context() as older:
        older.setattr(store, "FORMAT", "0")
        label(photos, CLASS_NAMES, backbone=tiny, cache=cache)
    before = {path: path.read_bytes() for path in cache.rglob("*.npy")}
    run = label(photos, CLASS_NAMES, backbone=tiny, cache=cache)
    assert run.table.equals(undisturbed[0]) and run.summary["counts"]["encoded_now"] == 48
    assert before and all(path.read_bytes() == data for path, data in before.items())


def test_an_older_store_in_the_place_of_a_newer_is_refused(photos, tiny, tmp_path):
    label(photos, CLASS_NAMES, backbone=tiny, cache=tmp_path / "cache")
    key = next((tmp_path / "cache" / "images").glob("*/key.json"))
    key.write_text(json.dumps(json.loads(key.read_text()) | {"format": "0"}))
    with pytest.raises(ValueError, match=r"belongs to another model or is damaged.*delete"):
        label(photos, CLASS_NAMES, backbone=tiny, cache=tmp_path / "cache")


def test_a_classifier_of_another_version_is_refused(photos, tiny, tmp_path):
    label(photos, CLASS_NAMES, backbone=tiny, out=tmp_path / "out")
    path = tmp_path / "out" / "classifier" / "classifier.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 0}))
    with pytest.raises(ValueError, match="format 0, this version reads 1"):
        load(tmp_path / "out")


@pytest.fixture
def poisoned(tmp_path):
    """Make a copy of the bundled model with values that are no numbers in a tensor."""

    def poison(part, value):
        folder = tmp_path / "poisoned"
        shutil.copytree(ClipBackbone("tiny").folder, folder)
        state = load_file(folder / "model.safetensors")
        name = next(name for name in sorted(state) if part in name and state[name].ndim == 2)
        state[name][0] = value
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        return ClipBackbone(str(folder), device="cpu", dtype="float32", batch_size=16)

    return poison


@pytest.mark.parametrize("part", ["visual_projection", "text_projection", "vision_model"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_that_gives_no_numbers_is_one_error_and_nothing_is_kept(
    photos, poisoned, tmp_path, part, value
):
    with pytest.raises((ValueError, FloatingPointError), match="finite"):
        label(
            photos,
            CLASS_NAMES,
            backbone=poisoned(part, value),
            cache=tmp_path / "cache",
            out=tmp_path / "out",
        )
    assert not (tmp_path / "out").exists()
    shards = [np.load(path) for path in Path(tmp_path / "cache").rglob("*.npy")]
    assert all(np.isfinite(shard).all() for shard in shards)
