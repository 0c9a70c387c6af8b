import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
import torch
from diffusion_models import generator, new_model

from nameonly import training_job
from nameonly.jobs import label, predict
from nameonly.journal import Journal
from nameonly.loop import Schedule
from nameonly.synthesis.prompt_tricks import PromptTricks
from nameonly.synthetic import read_table
from nameonly.tiny.digits import CLASS_NAMES
from nameonly.training.image_classifier import ImageClassifier
from nameonly.training_job import Training, joined, read_lesson
from nameonly.types import LabelSpace

QUICK = ImageClassifier(
    "test_resnet", size=32, schedule=Schedule(2, 16, 1e-3), dtype="float32", device="cpu"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of synthetic images, of a random model."""
    folder = tmp_path_factory.mktemp("made")
    model = new_model(folder / "model")
    requests = PromptTricks(("base",)).requests(LabelSpace(CLASS_NAMES), 3)
    generator(model, steps=1, batch_size=30).generate(requests, folder / "out")
    return folder / "out"


@pytest.fixture(scope="module")
def run(all_digits, tmp_path_factory):
    """A folder that ``label`` wrote."""
    out = tmp_path_factory.mktemp("labelled") / "run"
    label(all_digits[0], CLASS_NAMES, recipe="zero_shot", backbone="tiny", limit=60, out=out)
    return out


def test_a_command_trains_and_its_network_is_deployed(made, run, digits, tmp_path, nameonly):
    out = tmp_path / "out"
    command = ["train", made, run, "--arch", "test_resnet", "--size", 32, "--int8"]
    command += ["--epochs", 2, "--set", "training.flip=false", "--out", out, "--json"]
    code, said, errors = nameonly(*command)
    assert code == 0, errors
    found = json.loads(said)
    assert found["images"] == 90 and found["settings"]["flip"] is False
    assert found["settings"]["mixup"] == 0.2  # modern unless told
    assert found["onnx"]["model.onnx"]["max_difference"] < 1e-5
    assert found["onnx"]["model.onnx"]["same_labels"] == 1.0
    assert set(found["onnx"]) == {"model.onnx", "model.int8.onnx"}
    assert found["learnt"]["images"] == 90 and 0 <= found["learnt"]["share"] <= 1
    assert len(found["losses"]) == 2 and found["unreadable"] == []
    names = {p.name for p in (out / "classifier").iterdir()}
    assert names >= {"classifier.json", "classifier.safetensors", "README.md", *found["onnx"]}
    card = (out / "classifier" / "README.md").read_text()
    assert "from 90 images of these classes, 30 of them synthetic" in card
    by_torch = predict(out, str(digits), limit=20)
    by_onnx = predict(out / "classifier" / "model.onnx", str(digits), limit=20)
    assert by_torch.table["label"].to_pylist() == by_onnx.table["label"].to_pylist()


def test_probabilities_of_a_run_are_read_with_its_labels(run, all_digits):
    lesson = read_lesson(run)
    table = pq.read_table(run / "labels.parquet").to_pylist()
    by_id = {row["id"]: row for row in table}
    for i, image_id in enumerate(lesson.images.ids):
        row = by_id[image_id]
        assert CLASS_NAMES[int(lesson.labels.labels[i])] == row["label"]
        assert lesson.labels.probs[i, 3] == pytest.approx(row["p_three"])
    moved = read_lesson(run, str(all_digits[0]))
    assert moved.images.ids == lesson.images.ids


def test_columns_follow_the_first_folder(made):
    lesson = read_lesson(made)
    turned = replace(
        lesson,
        class_names=lesson.class_names[::-1],
        labels=replace(
            lesson.labels,
            probs=lesson.labels.probs.flip(1),
            candidates=lesson.labels.candidates.flip(1),
        ),
    )
    both = joined([lesson, turned])
    assert torch.equal(both.labels.labels[:30], both.labels.labels[30:])
    assert len(set(both.images.sources)) == 60


def test_classes_that_are_no_longer_asked_for_are_not_trained(made, tmp_path):
    copy = shutil.copytree(made, tmp_path / "made")
    fewer = PromptTricks(("base",)).requests(LabelSpace(CLASS_NAMES[2:5]), 2)
    model = read_table(made)[0]["model"]
    generator(model, steps=1, batch_size=30).generate(fewer, copy)
    lesson = read_lesson(copy)
    assert lesson.class_names == CLASS_NAMES[2:5] and len(lesson.images) == 6


def test_reading_and_decoding_tell_how_far_they_are(made, run, tmp_path):
    heard, stages = [], []
    journal = Journal(None, stages.append, lambda *told: heard.append((stages[-1], *told)))
    wanted = Training([made, run], QUICK, cache=tmp_path / "c")
    training_job.train(wanted, tmp_path / "out", journal)
    assert heard == [
        *(("ingest", 30, 30), ("ingest", 256, 1797)),
        *(("ingest", n, 1797) for n in (*range(512, 1797, 256), 1797)),
        *(("train", 90, 90), ("train", 1, 2), ("train", 2, 2)),
    ]


def test_a_class_that_cannot_be_read_is_told_before_training(made, tmp_path):
    copy = shutil.copytree(made, tmp_path / "made")
    for path in (copy / "images" / "zero").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    heard = []
    journal = Journal(on_progress=lambda *told: heard.append(told))
    with pytest.raises(ValueError, match="no image of 'zero' can be read; the network could never"):
        training_job.train(Training([copy], QUICK, cache=tmp_path / "c"), tmp_path / "out", journal)
    assert heard[-1] == (30, 30) and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_killed_training_goes_on_and_ends_the_same(made, tmp_path):
    wanted = Training([made], replace(QUICK, schedule=Schedule(12, 4, 1e-3)), cache=tmp_path / "c")
    whole = training_job.train(replace(wanted, cache=tmp_path / "d"), tmp_path / "whole")
    command = ["train", str(made), "--arch", "test_resnet", "--size", "32", "--recipe", "paper"]
    command += ["--epochs", "12", "--device", "cpu", "--dtype", "float32"]
    command += ["--set", "training.schedule.batch_size=4"]
    command += ["--set", "training.schedule.learning_rate=0.001"]
    command += ["--set", "training.schedule.weight_decay=0.0", "--cache", str(tmp_path / "c")]
    command += ["--out", str(tmp_path / "killed")]
    process = subprocess.Popen([sys.executable, "-m", "nameonly", *command])
    states = tmp_path / "c" / "training"
    while process.poll() is None and not list(states.glob("*/network.safetensors")):
        time.sleep(0.02)
    assert process.poll() is None
    process.kill()
    process.wait()
    assert not (tmp_path / "killed").exists()
    assert {p.suffix for p in states.glob("*/*")} <= {".safetensors", ".partial"}
    heard = []
    journal = Journal(on_progress=lambda done, total: heard.extend([done] * (total == 12)))
    resumed = training_job.train(wanted, tmp_path / "killed", journal)
    assert 0 < len(heard) < 12 and heard[-1] == 12
    assert len(resumed["losses"]) == 12 and resumed["losses"] == whole["losses"]
    a, b = (
        (tmp_path / name / "classifier" / "classifier.safetensors").read_bytes()
        for name in ("whole", "killed")
    )
    assert a == b
    assert not any(states.iterdir())


def test_images_that_are_broken_are_told_and_not_counted(made, tmp_path):
    copy = shutil.copytree(made, tmp_path / "made")
    broken = sorted((copy / "images" / "zero").iterdir())[0]
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    wanted = Training([copy], QUICK, cache=tmp_path / "c")
    found = training_job.train(wanted, tmp_path / "out")
    assert sum(found["per_class"].values()) == found["images"] == found["learnt"]["images"]
    (told,) = found["unreadable"]
    assert told["path"] == "images/zero/" + broken.name


def test_what_cannot_be_trained_on_is_told(made, run, tmp_path):
    none = Training([made], replace(QUICK, schedule=Schedule(0, 4, 1e-3)), cache=tmp_path / "c")
    with pytest.raises(ValueError, match=r"schedule\.epochs must be at least 1"):
        training_job.train(none, tmp_path / "none")
    with pytest.raises(ValueError, match="holds nothing to train on"):
        read_lesson(tmp_path)
    with pytest.raises(ValueError, match="none of the 30 images is one that"):
        read_lesson(run, str(made / "images"))
    with pytest.raises(ValueError, match="name them with --images"):
        read_lesson(run, str(tmp_path / "gone"))
    lesson = read_lesson(made)
    with pytest.raises(ValueError, match="folders of other classes cannot be joined"):
        joined([lesson, replace(lesson, class_names=("a", *lesson.class_names[1:]))])
    some = lesson.labels.candidates.clone()
    some[:, 4] = False
    with pytest.raises(ValueError, match="no image of 'four' to train on"):
        joined([replace(lesson, labels=replace(lesson.labels, candidates=some))])
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "labels.parquet").write_bytes(b"no table")
    (broken / "run.json").write_text("{}")
    with pytest.raises(ValueError, match="no whole run"):
        read_lesson(broken)
