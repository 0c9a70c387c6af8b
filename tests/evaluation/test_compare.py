import json

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from nameonly.evaluation.compare import LabelChange, SettingChange, compare_runs

BEFORE = [
    ("1.jpg", "a1", "cat", 0.5, "cat"),
    ("copy of 1.jpg", "a1", "cat", 0.5, "cat"),
    ("2.jpg", "a2", "cat", 0.5, "cat"),
    ("3.jpg", "a3", "dog", 0.7, "dog"),
    ("4.jpg", "a4", None, 0.3, "dog"),
    ("old.jpg", "gone", "dog", 0.9, "dog"),
]
AFTER = [
    ("3 renamed.jpg", "a3", "dog", 0.8, "dog"),
    ("2.jpg", "a2", "dog", 0.9, "cat"),
    ("1.jpg", "a1", "dog", 0.7, "cat"),
    ("4.jpg", "a4", "snow owl", 0.6, "dog"),
    ("new.jpg", "fresh", "cat", 0.9, "cat"),
]


def test_changes_by_hand(write_run):
    result = compare_runs(write_run(BEFORE, "r1"), write_run(AFTER, "r2"))
    assert (result.n_both, result.n_only_before, result.n_only_after) == (4, 1, 1)
    assert (result.n_changed, result.agreement) == (3, 0.25)
    assert result.changes == (
        LabelChange("cat", "dog", 2, ("1.jpg", "2.jpg")),
        LabelChange(None, "snow owl", 1, ("4.jpg",)),
    )
    expected = cohen_kappa_score(["cat", "cat", "dog", "-"], ["dog", "dog", "dog", "owl"])
    assert result.kappa == pytest.approx(expected)
    assert result.mean_probability_before == pytest.approx((0.5 + 0.5 + 0.7 + 0.3) / 4)
    assert result.mean_probability_after == pytest.approx((0.8 + 0.9 + 0.7 + 0.6) / 4)
    assert result.settings == () and result.classes_renamed == ()


def test_a_run_agrees_with_itself(write_run):
    run = write_run(BEFORE, "r1")
    result = compare_runs(run, run)
    assert (result.agreement, result.n_changed, result.changes) == (1.0, 0, ())
    assert result.kappa == pytest.approx(1.0)


def test_examples_are_few(write_run):
    before = [(f"{i}.jpg", f"a{i}", "cat", 0.5, "cat") for i in range(20)]
    after = [(p, i, "dog", 0.5, "cat") for p, i, *_ in before]
    result = compare_runs(write_run(before, "r1"), write_run(after, "r2"))
    assert result.changes[0].n == 20 and len(result.changes[0].examples) == 5


def test_same_label_everywhere_has_no_kappa(write_run):
    rows = [("1.jpg", "a", "cat", 0.5, "cat"), ("2.jpg", "b", "cat", 0.5, "cat")]
    assert compare_runs(write_run(rows, "r1"), write_run(rows, "r2")).kappa is None


def test_kappa_equals_that_of_scikit_learn(write_run):
    rng = np.random.default_rng(0)
    said = rng.choice(["cat", "dog", "snow owl"], (2, 300), p=[0.6, 0.3, 0.1]).tolist()
    runs = [
        write_run([(f"{i}.jpg", f"a{i}", t, 0.5, t) for i, t in enumerate(texts)], f"r{r}")
        for r, texts in enumerate(said)
    ]
    assert compare_runs(*runs).kappa == pytest.approx(cohen_kappa_score(*said))


def test_nothing_in_common(write_run):
    result = compare_runs(write_run(BEFORE[:1], "r1"), write_run(AFTER[:1], "r2"))
    assert (result.n_both, result.n_changed, result.changes) == (0, 0, ())
    assert result.agreement is result.kappa is result.mean_probability_after is None


def test_classes_added_removed_and_renamed(write_run):
    before = write_run(BEFORE, "r1")
    names = ("Cat", "snow_owl", "fox")
    after = write_run([("1.jpg", "a1", "Cat", 0.5, "Cat")], "r2", names)
    result = compare_runs(before, after)
    assert result.classes_added == ("fox",)
    assert result.classes_removed == ("dog",)
    assert result.classes_renamed == (("cat", "Cat"), ("snow owl", "snow_owl"))
    assert (result.n_changed, result.kappa) == (0, None)


def test_kappa_holds_for_other_spelling_and_order_of_the_same_classes(write_run):
    rows = [("1.jpg", "a", "Dog", 0.5, "cat"), ("2.jpg", "b", "cat", 0.5, "cat")]
    same = [("1.jpg", "a", "dog", 0.5, "cat"), ("2.jpg", "b", "cat", 0.5, "cat")]
    before = write_run(rows, "r1", ("Dog", "cat"))
    after = write_run(same, "r2", ("cat", "dog"))
    assert compare_runs(before, after).kappa == pytest.approx(1.0)


def test_settings_that_differ(write_run):
    run1 = {
        "recipe": "upl",
        "settings": {"pseudo_labels": {"images_per_class": 16, "on": True}, "seeds": [1, 2]},
        "backbone": {"name": "tiny", "dtype": "float32"},
        "seed": 0,
        "timings": {"encode": 3.0},
    }
    run2 = {
        "recipe": "grip",
        "settings": {"pseudo_labels": {"images_per_class": 8, "on": 1}, "seeds": [1, 2]},
        "backbone": {"name": "tiny", "dtype": "float32", "note": "x"},
        "seed": 1,
        "timings": {"encode": 9.0},
    }
    before, after = write_run(BEFORE, "r1", run=run1), write_run(AFTER, "r2", run=run2)
    result = compare_runs(before, after)
    assert result.settings == (
        SettingChange("backbone.note", None, "x"),
        SettingChange("recipe", "upl", "grip"),
        SettingChange("settings.pseudo_labels.images_per_class", 16, 8),
        SettingChange("settings.pseudo_labels.on", True, 1),
    )
    assert json.loads(json.dumps(result.as_dict(), allow_nan=False))["settings"][1] == {
        "name": "recipe",
        "before": "upl",
        "after": "grip",
    }


def test_bad_folders(write_run, tmp_path):
    run = write_run(BEFORE, "r1")
    with pytest.raises(ValueError, match=r"is no output folder of a run: there is no run\.json"):
        compare_runs(run, tmp_path / "none")
    other = write_run(AFTER, "r2")
    (other / "run.json").write_text('{"recipe": ')
    with pytest.raises(ValueError, match="is not valid JSON: line 1"):
        compare_runs(run, other)
    (other / "run.json").write_text("[]")
    with pytest.raises(ValueError, match="should hold an object, got a list"):
        compare_runs(run, other)
    (other / "run.json").write_text("{}")
    (other / "labels.parquet").unlink()
    with pytest.raises(ValueError, match="there is no file"):
        compare_runs(run, other)
