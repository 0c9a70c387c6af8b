import csv
import json

import numpy as np
from cleanlab.filter import find_label_issues

from nameonly.export.labelled import read_run


def read(place):
    labels, probs = (np.load(place / f"{name}.npy") for name in ("labels", "pred_probs"))
    with (place / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return labels, probs, rows, json.loads((place / "classes.json").read_text())


def test_rows_labels_and_probabilities_belong_together(new_run, some, exported):
    names = ("dog", "cat", "cow")
    folder = new_run(some, names, abstained=(0, 5), given=["cow", *[None] * 11])
    place, found = exported(folder, "cleanlab")
    labels, probs, rows, classes = read(place)
    assert labels.dtype == np.int64 and classes == list(names)
    # the first abstained, but its label is known
    assert found["exported"] == 11 == len(labels) == len(probs) == len(rows)
    run = read_run(folder)
    by_path = {row.path: (row, run.probs()[n]) for n, row in enumerate(run.rows())}
    for label, prob, row in zip(labels, probs, rows, strict=True):
        want, p = by_path[row["path"]]
        assert classes[label] == (want.given_label or want.label) and np.array_equal(prob, p)
    assert "05.png" not in [row["path"] for row in rows]


def test_cleanlab_finds_wrong_labels_that_the_run_has_not_learnt(new_run, some, exported, tmp_path):
    """Labels of one's own, against probabilities of a run that never saw them."""
    place, _ = exported(new_run(some), "cleanlab")
    labels, probs, _, _ = read(place)
    assert not find_label_issues(labels, probs).any()  # by construction, as the docs say
    own, sure = labels.copy(), int(probs.max(axis=1).argmax())
    own[sure] = 1 - own[sure]
    issues = find_label_issues(own, probs)
    assert issues[sure] and issues.sum() == 1


def test_of_many_classes_it_says_what_it_filled_in(new_run, some, exported, monkeypatch):
    monkeypatch.setattr("nameonly.export.labelled.LabelledRun.has_all_probs", False)
    monkeypatch.setattr(
        "nameonly.export.labelled.LabelledRun.probs", lambda run: np.full((12, 2), 0.5, np.float32)
    )
    _, found = exported(new_run(some), "cleanlab")
    assert "five most probable" in found["notes"][0]
