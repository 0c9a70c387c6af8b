import ast
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
from scipy.stats import binomtest

import nameonly
from nameonly.evaluation.metrics import (
    ClassRow,
    accuracy_score,
    confusion_matrix,
    expected_calibration_error,
    label_coverage,
    label_precision,
    mean_class_accuracy_score,
    per_class_table,
    wilson_interval,
)

# cat: 2 of 3 right; dog: 1 of 2 right, one abstained; owl: 0 of 1; fox: no image.
Y_TRUE = np.array([0, 0, 0, 1, 1, 2])
LABELS = np.array([0, 0, 1, 1, -1, 3])
NAMES = ("cat", "dog", "owl", "fox")
EMPTY = np.array([], dtype=np.int64)


def test_accuracy_counts_abstaining_as_wrong():
    assert accuracy_score(Y_TRUE, LABELS) == pytest.approx(3 / 6)
    assert mean_class_accuracy_score(Y_TRUE, LABELS) == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert label_coverage(LABELS) == pytest.approx(5 / 6)
    assert label_precision(Y_TRUE, LABELS) == pytest.approx(3 / 5)


def test_per_class_table():
    cat, *others = per_class_table(Y_TRUE, LABELS, NAMES)
    assert (cat.class_name, cat.n, cat.precision) == ("cat", 3, 1.0)
    assert (cat.recall, cat.f1) == pytest.approx((2 / 3, 0.8))
    assert others == [
        ClassRow("dog", 2, 0.5, 0.5, 0.5),
        ClassRow("owl", 1, 0.0, None, 0.0),
        ClassRow("fox", 0, None, 0.0, 0.0),
    ]
    assert per_class_table(Y_TRUE[:1], LABELS[:1], NAMES)[3] == ClassRow("fox", 0, None, None, None)


def test_confusion_leaves_out_those_that_abstained():
    assert confusion_matrix(Y_TRUE, LABELS, 4).tolist() == [
        [2, 1, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 0, 1],
        [0, 0, 0, 0],
    ]


def test_metrics_equal_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    y_true, labels = rng.integers(0, 5, 400), rng.integers(0, 5, 400)
    table = per_class_table(y_true, labels, tuple("abcde"))
    report = sklearn.metrics.classification_report(
        y_true, labels, target_names=list("abcde"), output_dict=True
    )
    for row in table:
        expected = report[row.class_name]
        assert (row.n, row.recall) == (expected["support"], pytest.approx(expected["recall"]))
        assert row.precision == pytest.approx(expected["precision"])
        assert row.f1 == pytest.approx(expected["f1-score"])
    balanced = sklearn.metrics.balanced_accuracy_score(y_true, labels)
    assert mean_class_accuracy_score(y_true, labels) == pytest.approx(balanced)
    expected = sklearn.metrics.confusion_matrix(y_true, labels)
    assert (confusion_matrix(y_true, labels, 5) == expected).all()


@pytest.mark.parametrize(("n_right", "n"), [(0, 1), (1, 1), (0, 50), (7, 9), (50, 50), (812, 1000)])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_wilson_interval_equals_that_of_scipy(n_right, n, level):
    expected = binomtest(n_right, n).proportion_ci(level, method="wilson")
    assert wilson_interval(n_right, n, level) == pytest.approx((expected.low, expected.high))
    assert 0 <= wilson_interval(n_right, n)[0] <= n_right / n <= wilson_interval(n_right, n)[1] <= 1


def test_calibration_error_by_hand():
    y_true, labels = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    confidence = np.array([0.9, 0.8, 0.3, 0.4])
    # Two bins: {0.3, 0.4} all right, {0.9, 0.8} half right.
    expected = 0.5 * (1 - 0.35) + 0.5 * abs(0.5 - 0.85)
    assert expected_calibration_error(y_true, confidence, labels, n_bins=2) == pytest.approx(
        expected
    )
    probs = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.6, 0.4]])
    assert expected_calibration_error(y_true, probs, labels, n_bins=2) == pytest.approx(expected)


def test_calibration_error_uses_labelled_images_alone_and_closed_upper_edges():
    y_true, labels = np.array([0, 0, 0]), np.array([0, -1, 1])
    confidence = np.array([0.5, 0.9, 0.25], dtype=np.float32)
    # 0.5 falls into the lower of two bins: one right of two, mean confidence 0.375.
    assert expected_calibration_error(y_true, confidence, labels, n_bins=2) == pytest.approx(0.125)


def test_calibration_error_of_a_calibrated_and_of_a_sure_and_wrong_model():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 40_000)
    labels = np.zeros(40_000, dtype=np.int64)
    y_true = (rng.uniform(size=40_000) > confidence).astype(np.int64)
    assert expected_calibration_error(y_true, confidence, labels) < 0.01
    sure = np.ones(10)
    assert expected_calibration_error(np.ones(10, int), sure, np.zeros(10, int)) == 1.0
    rounded = np.full(10, 1 + 1e-6, dtype=np.float32)
    assert expected_calibration_error(np.zeros(10, int), rounded, np.zeros(10, int)) < 1e-5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: accuracy_score(EMPTY, EMPTY), "at least one image"),
        (lambda: label_coverage(EMPTY), "at least one image"),
        (
            lambda: accuracy_score(np.array([0, -1]), np.array([0, 1])),
            "1 images have no true class",
        ),
        (lambda: label_precision(np.array([0]), np.array([-1])), "all abstained"),
        (lambda: per_class_table(Y_TRUE, LABELS, NAMES[:2]), "class index 3 for 2 classes"),
        (lambda: confusion_matrix(Y_TRUE, LABELS, 3), "class index 3 for 3 classes"),
        (lambda: wilson_interval(3, 2), "0 <= n_right <= n"),
        (lambda: wilson_interval(0, 0), "n >= 1"),
        (lambda: wilson_interval(1, 2, 1.0), "between 0 and 1"),
        (lambda: expected_calibration_error(Y_TRUE, np.ones(6), LABELS, 0), "n_bins"),
        (lambda: expected_calibration_error(Y_TRUE, np.full(6, 1.5), LABELS), "got 1.5 and 4 more"),
        (lambda: expected_calibration_error(Y_TRUE, np.full(6, np.nan), LABELS), "got nan"),
        (lambda: expected_calibration_error(Y_TRUE, np.ones((6, 2)), LABELS), "for 2 classes"),
        (lambda: expected_calibration_error(Y_TRUE, np.ones(6), LABELS * 0 - 1), "all abstained"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def imported_modules(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
            yield str(node.module)


def test_nothing_that_adapts_sees_the_truth_even_through_another_module():
    root = Path(nameonly.__file__).parent
    stages = [f for f in root.glob("*/*.py") if f.parent.name in ("adapters", "prompts", "recipes")]
    todo = [*stages, *(root / name for name in ("pipeline.py", "classifier.py", "loop.py"))]
    todo = [file for file in todo if file.exists()]
    seen = set()
    while todo:
        file = todo.pop()
        seen.add(file)
        for module in imported_modules(file):
            assert not module.startswith("nameonly.evaluation"), file
            path = root.parent.joinpath(*module.split("."))
            found = [f for f in (path.with_suffix(".py"), path / "__init__.py") if f.is_file()]
            todo += [f for f in found if f.is_relative_to(root) and f not in seen]
    assert {"types.py", "loop.py", "templates.py"} <= {file.name for file in seen}
