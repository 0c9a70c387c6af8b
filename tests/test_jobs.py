import csv
import json
import os
import random
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from awkward import make_awkward_folder
from PIL import Image

from nameonly import label, load, predict
from nameonly.backbones.clip import ClipBackbone
from nameonly.jobs import dry_run
from nameonly.label_space import read_label_space
from nameonly.tiny.digits import CLASS_NAMES

TINY = ClipBackbone("tiny", device="cpu", dtype="float32")
FILES = {
    "labels.parquet",
    "labels.csv",
    "classifier",
    "run.json",
    "log.jsonl",
    "quarantine.parquet",
    "report.html",
}


def run(images, out=None, **options):
    return label(images, CLASS_NAMES, backbone=TINY, out=out, **options)


def labels_by_id(table):
    return dict(zip(table["id"].to_pylist(), table["label"].to_pylist(), strict=True))


def test_the_folder_holds_what_was_promised(digits, tmp_path):
    out = tmp_path / "out"
    (digits / "broken.png").write_bytes(b"\x89PNG nothing")
    shutil.copy(digits / "digit-0001.png", digits / "copy.png")
    got = run(digits, out)
    assert set(os.listdir(out)) == FILES
    table = pq.read_table(out / "labels.parquet")
    assert table.equals(got.table) and len(table) == 121
    assert table.column_names == [
        "path", "id", "label", "probability", "confidence", "runner_up", "margin", "method",
        "zero_shot_label", "unknown_score", "suspected_unknown",
        *(f"p_{name}" for name in CLASS_NAMES),
    ]  # fmt: skip
    row = table.slice(5, 1).to_pylist()[0]
    probs = {name: row[f"p_{name}"] for name in CLASS_NAMES}
    best, second = sorted(probs, key=probs.get, reverse=True)[:2]
    assert (row["label"], row["runner_up"]) == (best, second)
    assert row["margin"] == pytest.approx(probs[best] - probs[second], abs=1e-6)
    assert sum(probs.values()) == pytest.approx(1, abs=1e-5)
    with (out / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["label"] for r in rows] == table["label"].to_pylist()
    bad = pq.read_table(out / "quarantine.parquet").to_pylist()
    assert [b["path"] for b in bad] == ["broken.png"] and bad[0]["reason"]
    summary = json.loads((out / "run.json").read_text())
    counts = summary["counts"]
    assert (counts["sources"], counts["images"], counts["duplicates"]) == (121, 120, 1)
    assert counts["quarantined"] == 1 and sum(counts["per_class"].values()) == 121
    assert summary["settings"]["pseudo_labels"]["method"] == "top_k_per_class"
    assert summary["versions"]["torch"] and summary["seed"] == 0
    events = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [e["stage"] for e in events if e["event"] == "end"] == [
        "load", "ingest", "encode", "text", "adapt", "decide", "assess", "write", "report",
    ]  # fmt: skip
    assert "glyphs" in (out / "classifier" / "README.md").read_text()
    by_path = dict(zip(table["path"].to_pylist(), table["label"].to_pylist(), strict=True))
    assert by_path["copy.png"] == by_path["digit-0001.png"]


def test_same_seed_same_bytes(digits, tmp_path):
    for name in "ab":
        run(digits, tmp_path / name, cache=tmp_path / f"cache-{name}")
    a, b = ((tmp_path / n / "labels.parquet").read_bytes() for n in "ab")
    assert a == b
    a, b = ((tmp_path / n / "classifier" / "classifier.safetensors").read_bytes() for n in "ab")
    assert a == b


def test_nothing_that_could_leak_is_read(digits, tmp_path):
    """Class folders, file stems and label columns tell the truth, then lie; no label changes."""
    files = sorted(digits.iterdir())
    plain = labels_by_id(run(digits).table)
    shuffle = random.Random(0)
    for lie in range(2):
        folder = tmp_path / f"poisoned-{lie}"
        names = shuffle.sample(files, len(files))
        for i, path in enumerate(names):
            said = CLASS_NAMES[(i + lie) % 10]
            target = folder / said / f"{said}_{i:03d}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        assert labels_by_id(run(folder, cache=tmp_path / f"cache-{lie}").table) == plain
        table = tmp_path / f"poisoned-{lie}.parquet"
        columns = {
            "image": [p.read_bytes() for p in names],
            "label": [CLASS_NAMES[(i * 7 + lie) % 10] for i in range(len(names))],
            "y_true": list(range(len(names))),
        }
        pq.write_table(pa.table(columns), table)
        assert labels_by_id(run(table, column="image", cache=tmp_path / f"t{lie}").table) == plain


def test_new_names_on_the_same_images_encode_nothing(digits):
    passes = []
    backbone = ClipBackbone("tiny", device="cpu", dtype="float32")
    handle = backbone.network.vision_model.register_forward_hook(lambda *_: passes.append(1))
    label(digits, CLASS_NAMES, backbone=backbone)
    assert passes
    passes.clear()
    got = label(digits, ["round", "straight", "open"], backbone=backbone)
    handle.remove()
    assert passes == [] and got.summary["counts"]["encoded_now"] == 0


def test_predict_gives_the_same_labels_and_files(digits, tmp_path):
    made = run(digits, tmp_path / "out")
    got = predict(tmp_path / "out", digits, out=tmp_path / "again")
    assert set(os.listdir(tmp_path / "again")) == FILES
    assert got.table["label"].equals(made.table["label"])
    torch.testing.assert_close(
        torch.tensor(got.table["probability"].to_pylist()),
        torch.tensor(made.table["probability"].to_pylist()),
    )
    assert got.table["zero_shot_label"].null_count == len(got.table)


def test_three_lines_of_python(digits, tmp_path):
    label(digits, classes=list(CLASS_NAMES), backbone="tiny", out=tmp_path / "out")
    image = Image.open(digits / "digit-0000.png")
    predictions = load(tmp_path / "out" / "classifier").predict([image])
    assert predictions.labels.shape == (1,)


def test_abstaining_leaves_the_label_empty(digits):
    settings = {"decisions": "abstain", "decisions.threshold": 0.7}
    got = run(digits, settings=settings)
    labels = got.table["label"].to_pylist()
    assert got.summary["counts"]["abstained"] == labels.count(None) > 0
    probs = torch.tensor([got.table[f"p_{name}"].to_pylist() for name in CLASS_NAMES]).T
    warm = got.classifier.calibrated(probs).amax(dim=1).tolist()
    assert all((p >= 0.7) == (name is not None) for name, p in zip(labels, warm, strict=True))
    # at the temperature probabilities are lower than the model's own, which are too sure
    assert sum(warm) < sum(got.table["probability"].to_pylist()) - 5


def test_a_run_estimates_how_good_it_is(digits, tmp_path):
    got = run(digits, tmp_path / "out")
    low, high = got.summary["estimated_accuracy_interval"]
    assert 0.5 < low < got.summary["estimated_accuracy"] < high < 1
    trust = got.summary["trust"]
    assert trust["temperature"] > 1.5 and trust["images"] == 120
    assert sum(trust["class_prior"].values()) == pytest.approx(1, abs=1e-3)
    assert list(trust["accuracy_of_labels"]) == list(CLASS_NAMES)
    assert sum(got.table["suspected_unknown"].to_pylist()) == trust["suspected_unknown"]
    confidence = got.table["confidence"].to_numpy()
    assert confidence.mean() == pytest.approx(got.summary["estimated_accuracy"], abs=1e-3)
    loaded = load(tmp_path / "out")
    assert loaded.temperature == pytest.approx(trust["temperature"])
    again = predict(tmp_path / "out", digits).table
    probs = torch.tensor([again[f"p_{name}"].to_pylist() for name in CLASS_NAMES]).T
    warm = loaded.calibrated(probs).amax(dim=1).numpy()
    assert again["confidence"].to_numpy() == pytest.approx(warm, abs=1e-5)
    assert "estimated_accuracy" not in predict(loaded, digits).summary


def test_where_no_label_is_given_nothing_is_estimated(digits):
    settings = {"decisions": "abstain", "decisions.threshold": 1.0}
    got = run(digits, settings=settings)
    assert got.summary["counts"]["labelled"] == 0
    assert got.summary["estimated_accuracy"] is None
    assert got.summary["estimated_accuracy_interval"] is None


def test_given_labels_are_left_out_of_the_estimate(digits):
    given = {f"digit-{i:04d}.png": "three" for i in range(50)}
    assert run(digits, given=given).summary["trust"]["images"] == 70


def test_strangers_can_be_left_without_a_label(digits):
    settings = {"decisions": "abstain", "decisions.threshold": 0.0, "decisions.deviations": 1.0}
    got = run(digits, settings=settings)
    labels = got.table["label"].to_pylist()
    assert 5 < labels.count(None) < 60


def test_limit_is_a_sample_that_the_seed_decides(digits):
    def some(seed):
        return run(digits, limit=20, seed=seed).table["path"].to_pylist()

    assert len(some(0)) == 20 and some(0) == some(0) != some(1)


def test_awkward_files_give_the_right_rows_and_quarantine(tmp_path):
    folder = tmp_path / "awkward"
    expected = make_awkward_folder(folder)
    got = run(folder, tmp_path / "out")
    good = {source for source, reason in expected.items() if reason is None}
    assert set(got.table["path"].to_pylist()) == good
    bad = {q.source: q.reason for q in got.quarantined}
    assert set(bad) == set(expected) - good
    assert all(expected[source] in reason for source, reason in bad.items())


def test_own_features_go_all_the_way(feature_file, toy, tmp_path):
    path, _ = feature_file
    out = tmp_path / "out"
    got = label(path, out=out)
    assert set(os.listdir(out)) == FILES
    assert got.table["path"].to_pylist() == list(toy[0].ids)
    names = toy[2].class_names
    right = [
        names[i] == said for i, said in zip(toy[3], got.table["label"].to_pylist(), strict=True)
    ]
    assert sum(right) >= 55
    again = predict(out / "classifier", path)
    assert again.table["label"].equals(got.table["label"])
    report = (out / "report.html").read_text()
    assert "<img" not in report and "ant" in report


def test_features_of_another_dimension_cannot_be_predicted(feature_file, tmp_path):
    import numpy as np

    path, _ = feature_file
    label(path, out=tmp_path / "out")
    np.savez(tmp_path / "other.npz", features=np.eye(5, dtype=np.float32))
    with pytest.raises(ValueError, match=r"precomputed-16.*precomputed-5"):
        predict(tmp_path / "out", tmp_path / "other.npz")


def test_more_than_a_hundred_classes_keep_the_five_most_probable(digits):
    names = [f"thing number {i}" for i in range(101)]
    got = label(digits, names, backbone=TINY)
    assert "p_thing number 0" not in got.table.column_names
    row = got.table.slice(0, 1).to_pylist()[0]
    assert len(row["top_labels"]) == len(row["top_probabilities"]) == 5
    assert row["top_labels"][:2] == [row["label"], row["runner_up"]]


def test_a_dry_run_writes_nothing_and_knows_what_is_there(digits, tmp_path):
    (digits / "broken.png").write_bytes(b"no image")
    space = read_label_space("zero,one")
    cache = tmp_path / "cache"
    before = sorted(tmp_path.rglob("*"))
    found = dry_run(digits, space, TINY, cache=cache)
    assert sorted(tmp_path.rglob("*")) == before
    assert (found["images"], found["to_encode"], found["in_store"]) == (120, 120, 0)
    assert [b["path"] for b in found["quarantined"]] == ["broken.png"]
    assert found["seconds_expected"] > 0 and found["bytes_expected"] > 120 * TINY.dim * 4
    run(digits, cache=cache)
    found = dry_run(digits, space, TINY, cache=cache)
    assert (found["to_encode"], found["in_store"]) == (0, 120)


@pytest.mark.parametrize("classes", ["cat", "cat,Cat", "cat,,dog", None])
def test_bad_names_stop_before_any_work(digits, classes, tmp_path):
    with pytest.raises(ValueError, match=r"class|name"):
        label(digits, classes, backbone=TINY, out=tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / "cache").exists()


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere"):
        run(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no image found"):
        run(tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_predicting_says_how_the_classifier_was_made(digits, tmp_path):
    run(digits, tmp_path / "out", recipe="zero_shot", limit=50)
    got = predict(tmp_path / "out", digits, out=tmp_path / "again")
    assert got.summary["recipe"] == "zero_shot" and set(got.table["method"].to_pylist()) == {
        "zero_shot"
    }
    cards = [(tmp_path / n / "classifier" / "README.md").read_text() for n in ("out", "again")]
    assert cards[0] == cards[1] and "50 unlabelled images" in cards[0]


def test_images_are_nothing_for_a_classifier_of_features(feature_file, digits, tmp_path):
    label(feature_file[0], out=tmp_path / "out")
    with pytest.raises(ValueError, match="made from own features of 16 dimensions"):
        predict(tmp_path / "out", digits)


def test_a_repaired_store_is_told(digits, tmp_path):
    run(digits)
    (shard,) = (tmp_path / "cache" / "images").glob("*/*.npy")
    shard.write_bytes(shard.read_bytes()[:-4])
    assert "damaged" in run(digits).summary["repairs"][0]


def test_what_a_run_wrote_is_no_input(digits, tmp_path):
    table = digits / "deep" / "data.parquet"
    table.parent.mkdir()
    images = [p.read_bytes() for p in sorted(digits.glob("*.png"))[:20]]
    pq.write_table(pa.table({"image": images}), table)
    for i in range(2):
        got = run(digits / "deep", digits / "deep" / f"out{i}")
        assert got.summary["counts"]["sources"] == 20


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"limt": 5}, "no option 'limt'; there are: out, overwrite"),
        ({"seed": -1}, "seed must lie in"),
        ({"recipe": "zero_shot", "settings": {"decisions": 5}}, "no method '5'"),
    ],
)
def test_mistakes_in_python_are_told(digits, wrong, words):
    with pytest.raises(ValueError, match=words):
        run(digits, **wrong)


@pytest.mark.parametrize("stored", [False, True])
def test_scores_that_memory_cannot_hold_are_refused_before_anything_is_encoded(
    digits, feature_file, tmp_path, monkeypatch, stored
):
    monkeypatch.setattr("nameonly.jobs.free_memory", lambda: 1_000)
    images, n, c = (feature_file[0], 60, 4) if stored else (digits, 120, 10)
    with pytest.raises(ValueError, match=f"{n} images x {c} classes need about {20 * n * c:,} b"):
        label(images, None if stored else CLASS_NAMES, backbone=TINY, out=tmp_path / "out")
    assert not list((tmp_path / "cache").rglob("*.npy")) and not (tmp_path / "out").exists()


def test_a_saved_classifier_refuses_what_it_cannot_hold(feature_file, tmp_path, monkeypatch):
    made = label(feature_file[0]).classifier
    monkeypatch.setattr("nameonly.jobs.free_memory", lambda: 500)
    monkeypatch.setattr("nameonly.ops.room.free_disk", lambda _: 900)
    with pytest.raises(ValueError, match="60 images x 4 classes need 960 bytes"):
        predict(made, feature_file[0])
