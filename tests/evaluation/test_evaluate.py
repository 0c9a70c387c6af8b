import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nameonly.evaluation.evaluate import evaluate_labels, read_label_table

ROWS = [
    ("in/cat/1.jpg", "a1", "cat", 0.9, "cat"),
    ("in/cat/2.jpg", "a2", "dog", 0.6, "cat"),
    ("in/dog/3.jpg", "a3", "dog", 0.8, "dog"),
    ("in/dog/4.jpg", "a4", None, 0.4, "cat"),
    ("in/5.jpg", "a5", "snow owl", 0.7, "cat"),
]
TRUTH = "path,label\ncat/1.jpg,Cat\ncat/2.jpg,cat\ndog/3.jpg,dog\ndog/4.jpg,DOG\n"


@pytest.fixture
def truth(tmp_path):
    path = tmp_path / "truth.csv"
    path.write_text(TRUTH)
    return path


def test_figures_by_hand(write_run, truth):
    folder = write_run(ROWS)
    result = evaluate_labels(folder / "labels.parquet", truth)
    assert (result.n, result.n_without_truth, result.matched_by) == (4, 1, "path")
    assert result.accuracy == 0.5
    assert result.accuracy_interval == pytest.approx((0.15003899, 0.84996101))
    assert result.mean_class_accuracy == 0.5
    assert result.coverage == 0.75
    assert result.accuracy_when_labelled == pytest.approx(2 / 3)
    assert result.zero_shot_accuracy == 0.75
    # Each of the three labelled images has its own bin.
    assert result.expected_calibration_error == pytest.approx((0.1 + 0.6 + 0.2) / 3)
    assert result.confusion == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert [row.n for row in result.per_class] == [2, 2, 0]
    assert result.per_class[0].class_name == "cat" and result.per_class[0].precision == 1.0
    assert evaluate_labels(folder, truth) == result


def test_calibrated_confidence_has_its_own_error_where_a_run_wrote_it(write_run, truth):
    folder = write_run(ROWS)
    assert evaluate_labels(folder, truth).confidence_calibration_error is None
    path = folder / "labels.parquet"
    table = pq.read_table(path)
    sure = pa.array([1.0, 0.0, 0.5, 0.3, 0.2], pa.float32())
    pq.write_table(table.append_column("confidence", sure), path)
    found = evaluate_labels(folder, truth)
    assert found.confidence_calibration_error == pytest.approx((0 + 0 + 0.5) / 3)
    assert found.expected_calibration_error == pytest.approx((0.1 + 0.6 + 0.2) / 3)
    words = pa.array(["sure"] * 5)
    pq.write_table(table.append_column("confidence", words), path)
    with pytest.raises(ValueError, match="column confidence should hold fractions"):
        evaluate_labels(folder, truth)


def test_result_is_plain_data(write_run, truth):
    result = evaluate_labels(write_run(ROWS), truth)
    again = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert again["per_class"][2] == {
        "class_name": "snow owl",
        "n": 0,
        "recall": None,
        "precision": None,
        "f1": None,
    }
    assert again["class_names"] == ["cat", "dog", "snow owl"]


def test_folders_as_truth(write_run):
    result = evaluate_labels(write_run(ROWS[:4]), by="folder")
    assert (result.n, result.accuracy, result.matched_by) == (4, 0.5, "folder")


def test_all_abstained_and_no_zero_shot(write_run, truth):
    rows = [(path, image_id, None, 0.5, None) for path, image_id, *_ in ROWS]
    result = evaluate_labels(write_run(rows), truth)
    assert (result.accuracy, result.coverage, result.n) == (0.0, 0.0, 4)
    assert result.accuracy_when_labelled is result.zero_shot_accuracy is None
    assert result.expected_calibration_error is None


def test_named_columns_and_positions(write_run, tmp_path):
    path = tmp_path / "truth.parquet"
    pq.write_table(pa.table({"hash": ["a1", "a3"], "species": [0, 1]}), path)
    result = evaluate_labels(
        write_run(ROWS), path, by="id", label_column="species", key_column="hash"
    )
    assert (result.accuracy, result.n_without_truth, result.read_as_positions) == (1.0, 3, True)


def test_very_many_classes_have_no_confusion_table(write_run, tmp_path):
    names = tuple(f"kind {i}" for i in range(1001))
    folder = write_run([("kind 7/1.jpg", "a", "kind 7", 0.5, "kind 8")], names=names)
    result = evaluate_labels(folder, by="folder")
    assert result.confusion is None and len(result.per_class) == 1001
    assert (result.accuracy, result.zero_shot_accuracy) == (1.0, 0.0)


def test_label_table(write_run):
    table = read_label_table(write_run(ROWS))
    assert table.labels.tolist() == [0, 1, 1, -1, 2]
    assert table.zero_shot.tolist() == [0, 0, 1, 0, 0]
    assert table.confidence.tolist() == pytest.approx([0.9, 0.6, 0.8, 0.4, 0.7])
    assert table.class_names == ("cat", "dog", "snow owl")
    assert table.ids[3] == "a4" and table.paths[4] == "in/5.jpg"


def test_bad_label_tables(write_run, tmp_path):
    path = write_run(ROWS) / "labels.parquet"
    table = pq.read_table(path)

    def refused(changed, message):
        pq.write_table(changed, path)
        with pytest.raises(ValueError, match=message):
            read_label_table(path)

    refused(table.replace_schema_metadata({}), "does not hold the class names")
    refused(table.replace_schema_metadata({b"nameonly": b"[1"}), "is no table of labels")
    refused(table.replace_schema_metadata({b"nameonly": b"\xff"}), "is no table of labels")
    refused(table.drop_columns(["id"]), "has no column id")
    refused(table.slice(0, 0), "holds no image")
    fox = pa.array(["fox"] * 5)
    refused(table.set_column(2, "label", fox), r"none of its class names: \['fox'\]")
    refused(table.set_column(2, "label", pa.array(range(5))), "should hold class names")
    refused(table.set_column(3, "probability", fox), "should hold fractions")
    refused(table.set_column(1, "id", pa.nulls(5)), "rows without path or id")
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(ValueError, match="is no table of labels"):
        read_label_table(path)
    with pytest.raises(ValueError, match="there is no file"):
        read_label_table(tmp_path / "none")
    with pytest.raises(ValueError, match=r"there is no file .*labels\.parquet"):
        read_label_table(tmp_path)


def test_probabilities_that_are_none_are_refused(write_run, truth):
    rows = [(p, i, label, float("nan"), z) for p, i, label, _, z in ROWS]
    with pytest.raises(ValueError, match="between 0 and 1, got nan"):
        evaluate_labels(write_run(rows), truth)


def test_agrees_with_scikit_learn_on_many_images(write_run):
    rng = np.random.default_rng(3)
    names = ("a", "b", "c")
    truth, said = rng.integers(0, 3, 500), rng.integers(0, 3, 500)
    rows = [
        (f"{names[t]}/{i}.jpg", str(i), names[s], 0.5, names[t])
        for i, (t, s) in enumerate(zip(truth, said, strict=True))
    ]
    result = evaluate_labels(write_run(rows, names=names), by="folder")
    assert result.accuracy == pytest.approx((truth == said).mean())
    assert result.zero_shot_accuracy == 1.0
    assert np.trace(result.confusion) == (truth == said).sum()
    low, high = result.accuracy_interval
    assert low < result.accuracy < high
