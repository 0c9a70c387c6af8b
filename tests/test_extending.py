import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from nameonly import label, load, predict
from nameonly.backbones.clip import ClipBackbone
from nameonly.extending import draw
from nameonly.tiny.digits import CLASS_NAMES

TINY = ClipBackbone("tiny", device="cpu", dtype="float32")
VISUAL = {
    "prompt_learning": "visual_context",
    "prompt_learning.schedule.epochs": 1,
    "prompt_learning.schedule.warmup_epochs": 0.0,
    "prompt_learning.schedule.batch_size": 20,
}


def run(images, out=None, **options):
    return label(images, CLASS_NAMES, backbone=TINY, out=out, **options)


def tensors(out):
    return load_file(out / "classifier" / "classifier.safetensors")


def sampled(folder, n, seed=0):
    """Return the files of a folder that a run draws, told by a run's own ids."""
    table = run(folder).table
    by_id = sorted(zip(table["id"].to_pylist(), table["path"].to_pylist(), strict=True))
    return [str(folder / by_id[i][1]) for i in draw(len(by_id), n, seed, None).tolist()]


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [("up_adapter", {}), ("transclip", {}), ("upl", VISUAL), ("auto", {}), ("zero_shot", {})],
)
def test_all_are_labelled_by_what_was_learnt_from_some(digits, tmp_path, recipe, settings):
    options = {"recipe": recipe, "settings": settings}
    some = run(digits, tmp_path / "some", adapt_on=40, seed=3, **options)
    few = run(sampled(digits, 40, seed=3), tmp_path / "few", seed=3, **options)
    found, expected = tensors(some.out), tensors(few.out)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    rest = predict(few.classifier, digits)
    for column in ("path", "label", "probability", *(f"p_{name}" for name in CLASS_NAMES)):
        assert some.table[column].equals(rest.table[column]), column
    counts = some.summary["counts"]
    assert (counts["adapted_on"], counts["images"], counts["labelled"]) == (40, 120, 120)
    assert not some.summary["transductive"] and some.summary["adapt_on"] == 40
    assert some.classifier.made["images"] == 40


def test_all_are_encoded_by_the_backbone_that_was_chosen_on_some(digits, worse_backbone):
    """Labels, and what is said of them, are those of a run on that backbone alone."""
    tried = {"selection.recipes": ["transclip"], "selection.backbones": ["tiny"]}
    tried["selection.prompts"] = ["openai7"]
    options = {"adapt_on": 60, "seed": 0}
    some = label(
        digits, CLASS_NAMES, recipe="auto", backbone=worse_backbone, settings=tried, **options
    )
    assert some.summary["backbone"]["name"] == "tiny"
    (chosen,) = (row for row in some.summary["candidates"] if row.get("chosen"))
    prompts = {"prompts.templates": chosen.get("prompts", "single")}
    alone = label(
        digits, CLASS_NAMES, recipe="transclip", backbone="tiny", settings=prompts, **options
    )
    for column in ("label", "zero_shot_label", "confidence", "unknown_score"):
        assert some.table[column].equals(alone.table[column]), column


def test_all_labels_are_assessed(digits):
    some, whole = run(digits, adapt_on=60), run(digits)
    assert some.summary["trust"]["images"] == whole.summary["trust"]["images"] == 120
    assert some.summary["estimated_accuracy"] == pytest.approx(
        whole.summary["estimated_accuracy"], abs=0.1
    )
    # names and images are the same, so what fits no name is
    assert some.table["unknown_score"].equals(whole.table["unknown_score"])
    assert some.table["zero_shot_label"].equals(whole.table["zero_shot_label"])
    confidence = np.array(some.table["confidence"])
    assert confidence.mean() == pytest.approx(some.summary["estimated_accuracy"], abs=1e-3)


def test_a_sample_of_all_is_no_sample(digits, tmp_path):
    shutil.copy(digits / "digit-0001.png", digits / "copy.png")
    run(digits, tmp_path / "plain")
    run(digits, tmp_path / "all", adapt_on=120)  # distinct images are counted
    plain, all_ = (pq.read_table(tmp_path / n / "labels.parquet") for n in ("plain", "all"))
    assert plain.equals(all_)
    assert "adapted_on" not in json.loads((tmp_path / "all" / "run.json").read_text())["counts"]


def test_neither_names_nor_copies_change_the_sample(digits, tmp_path):
    plain = run(digits, adapt_on=40).table
    (tmp_path / "other").mkdir()
    for i, path in enumerate(sorted(digits.iterdir(), reverse=True)):
        shutil.copy(path, tmp_path / "other" / f"{i:03d}.png")
    shutil.copy(tmp_path / "other" / "005.png", tmp_path / "other" / "five.png")
    other = run(tmp_path / "other", adapt_on=40).table
    labels = dict(zip(other["id"].to_pylist(), other["label"].to_pylist(), strict=True))
    assert [labels[i] for i in plain["id"].to_pylist()] == plain["label"].to_pylist()
    rows = {row["path"]: row for row in other.to_pylist()}
    copies = rows["005.png"], rows["five.png"]
    assert copies[0] | {"path": ""} == copies[1] | {"path": ""}


def test_known_labels_are_always_among_what_is_learnt_from(digits, all_digits):
    truth = dict(line.split(",") for line in all_digits[1].read_text().split()[1:])
    known = {p.name: truth[p.name] for p in sorted(digits.iterdir())[:30]}
    found = run(digits, recipe="zlap", given=known, adapt_on=40)
    assert found.summary["counts"]["given"] == found.classifier.made["given"] == 30
    assert found.summary["trust"]["images"] == 90
    told = {row["path"]: row["given_label"] for row in found.table.to_pylist()}
    assert {path: name for path, name in told.items() if name} == known
    with pytest.raises(ValueError, match=r"30 images with given labels leave no room .* the 30 to"):
        run(digits, recipe="zlap", given=known, adapt_on=30)


def test_another_seed_draws_others():
    first, again, other = (draw(1_000, 100, seed, None).tolist() for seed in (0, 0, 1))
    assert first == again == sorted(set(first)) and len(first) == 100
    assert len(set(first) & set(other)) < 30


def test_memory_that_holds_no_scores_of_all_holds_those_of_some(digits, tmp_path, monkeypatch):
    monkeypatch.setattr("nameonly.jobs.free_memory", lambda: 20 * 10 * 50)
    with pytest.raises(ValueError, match=r"120 images .* --adapt-on N, where here about 50 fit"):
        run(digits)
    with pytest.raises(ValueError, match="60 images x 10 classes need"):
        run(digits, adapt_on=60)
    assert run(digits, adapt_on=50).summary["counts"]["labelled"] == 120
    monkeypatch.setattr("nameonly.ops.room.free_disk", lambda _: 100)
    monkeypatch.setattr("nameonly.jobs.free_memory", lambda: 4_000)
    with pytest.raises(ValueError, match=r"120 images x 10 classes need 4,800 bytes .* --cache"):
        run(digits, adapt_on=20)


def test_files_of_own_features_too(feature_file, toy, tmp_path):
    found = label(feature_file[0], adapt_on=24, out=tmp_path / "out")
    assert found.summary["counts"]["adapted_on"] == 24 and len(found.table) == 60
    names, y = toy[2].class_names, toy[3]
    right = [a == names[b] for a, b in zip(found.table["label"].to_pylist(), y, strict=True)]
    assert np.mean(right) > 0.9
    assert load(tmp_path / "out").made["adapt_on"] == 24


@pytest.mark.parametrize("wrong", [0, -5])
def test_a_sample_of_none_is_refused(digits, wrong):
    with pytest.raises(ValueError, match=f"adapt_on must be at least 1 image, got {wrong}"):
        run(digits, adapt_on=wrong)


def test_predict_learns_from_nothing(digits):
    made = run(digits).classifier
    with pytest.raises(ValueError, match="no option 'adapt_on'"):
        predict(made, digits, adapt_on=5)


def test_the_command_says_what_was_learnt_from(nameonly, digits, tmp_path):
    words = ["label", digits, "--classes", ",".join(CLASS_NAMES), "--backbone", "tiny"]
    done = nameonly(*words, "--adapt-on", 50, "--out", tmp_path / "out")
    assert done.returncode == 0
    assert "50 of 120 distinct images, at random, were learnt from" in done.stdout
    page = (tmp_path / "out" / "report.html").read_text()
    assert "120 different images, 50 at random learnt from" in page
