import numpy as np
import pyarrow as pa
import pytest
from reviewing import NAMES, small_run, write_run

from nameonly.review.labels import read_run
from nameonly.review.queues import build_queues


def test_a_run_is_read_by_image_and_copies_are_one(tmp_path):
    labels = read_run(small_run(tmp_path, 24))
    assert len(labels) == 23 and len(labels.paths) == 24
    assert labels.image_of_row[0] == labels.image_of_row[23] == 0
    assert labels.copies[0] == 2 and labels.copies[1:].tolist() == [1] * 22
    assert labels.class_names == NAMES and labels.backbone == "tiny"
    assert labels.unknown_score is None


def test_uncertain_is_by_margin_and_changed_against_zero_shot(tmp_path):
    labels = read_run(small_run(tmp_path, 24))
    queues = build_queues(labels)
    margins = labels.margin[queues["uncertain"]]
    assert len(margins) == 23 and (np.diff(margins) >= 0).all()
    differs = set(np.nonzero(labels.label != labels.zero_shot)[0].tolist())
    assert set(queues["changed"]) == differs and differs
    assert (np.diff(labels.margin[queues["changed"]]) >= 0).all()
    assert list(queues) == ["uncertain", "changed", *(f"class: {name}" for name in NAMES)]
    for i, name in enumerate(NAMES):
        members = queues[f"class: {name}"]
        assert sorted(members) == np.nonzero(labels.label == i)[0].tolist()
        assert (np.diff(labels.margin[members]) >= 0).all()


def test_calibrated_confidence_goes_before_the_margin(tmp_path):
    sure = pa.array([0.9, 0.2, 0.8, 0.3], pa.float32())
    queues = build_queues(read_run(write_run(tmp_path, "abcd", "abcd", confidence=sure)))
    assert queues["uncertain"] == [1, 3, 2, 0]


def test_suspected_unknown_comes_highest_first_where_the_column_is(tmp_path):
    scores = [0.1, 0.9, None, 0.5]
    run = write_run(tmp_path, "abcd", "abcd", unknown_score=pa.array(scores, pa.float32()))
    assert build_queues(read_run(run))["suspected unknown"] == [1, 3, 0]
    stands_out = pa.array([False, True, None, True])
    run = write_run(
        tmp_path,
        "abcd",
        "abcd",
        unknown_score=pa.array(scores, pa.float32()),
        suspected_unknown=stands_out,
    )
    assert build_queues(read_run(run))["suspected unknown"] == [1, 3]


def test_images_without_a_label_have_a_queue_and_no_class(tmp_path):
    empty = {"label": pa.array([None, "bee", None]), "zero_shot_label": pa.nulls(3, pa.string())}
    queues = build_queues(read_run(write_run(tmp_path, "abc", "abc", **empty)))
    assert sorted(queues["no label"]) == [0, 2]
    assert queues["class: bee"] == [1] and queues["class: ant"] == [] == queues["changed"]


def test_further_queues_come_first_in_their_order_each_image_once(tmp_path):
    labels = read_run(small_run(tmp_path, 24))
    queues = build_queues(labels, {"audit": [7, 23, 0, 3]})
    assert next(iter(queues.items())) == ("audit", [7, 0, 3])
    for row in (-1, 24):
        with pytest.raises(ValueError, match=f"row {row} does not exist; rows are 0 to 23"):
            build_queues(labels, {"audit": [row]})


def test_what_is_no_run_is_refused_with_what_was_expected(tmp_path):
    with pytest.raises(ValueError, match=r"expected labels\.parquet and run\.json"):
        read_run(tmp_path)
    run = write_run(tmp_path, "abc", "abc")
    (run / "run.json").write_text('{"classes": ["ant", "bee"], "input": "x"}')
    with pytest.raises(ValueError, match="the label 'cat' is none of the classes"):
        read_run(run)
    (run / "run.json").write_text("{")
    with pytest.raises(ValueError, match="is no whole run"):
        read_run(run)
    empty = write_run(tmp_path / "empty", [], [])
    with pytest.raises(ValueError, match="no rows"):
        read_run(empty)
