"""How good labels are, against ground truth.

``y_true`` holds class indices and has no gaps: leave images without truth out before. ``labels``
holds class indices too, and -1 where the decision abstained: wrong, where accuracy is counted.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from sklearn import metrics as sklearn_metrics

from nameonly.ops.intervals import wilson_bounds


@dataclass(frozen=True)
class ClassRow:
    """What became of one class. A figure that divides by zero images is None.

    Attributes:
        class_name: Readable name.
        n: Images that truly belong to the class.
        recall: Share of these that got its label; also called the class's accuracy.
        precision: Share of the images with its label that truly belong to it.
        f1: Harmonic mean of the two.
    """

    class_name: str
    n: int
    recall: float | None
    precision: float | None
    f1: float | None


def accuracy_score(y_true: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"]) -> float:
    """Return the share of images with the right label.

    Raises:
        ValueError: If there is no image, or ``y_true`` has a gap.
    """
    _check(y_true, labels)
    return float(sklearn_metrics.accuracy_score(y_true, labels))


def mean_class_accuracy_score(
    y_true: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"]
) -> float:
    """Return the mean accuracy of the classes that have an image.

    Raises:
        ValueError: If there is no image, or ``y_true`` has a gap.
    """
    _check(y_true, labels)
    present = np.unique(y_true)
    return float(
        sklearn_metrics.recall_score(
            y_true, labels, labels=present, average="macro", zero_division=0
        )
    )


def label_coverage(labels: Int[np.ndarray, " n"]) -> float:
    """Return the share of images that got a label at all.

    Raises:
        ValueError: If there is no image.
    """
    if not len(labels):
        raise ValueError("coverage needs at least one image, got none")
    return float((labels >= 0).mean())


def label_precision(y_true: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"]) -> float:
    """Return the accuracy among the images that got a label.

    Raises:
        ValueError: If no image got one, or ``y_true`` has a gap.
    """
    _check(y_true, labels)
    labelled = labels >= 0
    if not labelled.any():
        raise ValueError("precision needs at least one labelled image; all abstained")
    return accuracy_score(y_true[labelled], labels[labelled])


def wilson_interval(n_right: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of the share ``n_right / n``.

    Source: Wilson. Probable inference, the law of succession, and statistical inference. 1927.

    Raises:
        ValueError: If there is no image, ``n_right`` exceeds ``n``, or ``level`` is not in (0, 1).
    """
    if not 0 <= n_right <= n or n < 1:
        raise ValueError(f"expected 0 <= n_right <= n and n >= 1, got {n_right} of {n}")
    if not 0 < level < 1:
        raise ValueError(f"level is between 0 and 1, got {level}")
    return wilson_bounds(n_right / n, float(n), level)


def confusion_matrix(
    y_true: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"], n_classes: int
) -> Int[np.ndarray, "c c"]:
    """Count images by true class (rows) and label (columns); those that abstained are left out.

    Raises:
        ValueError: If there is no image, or an index is not below ``n_classes``.
    """
    _check(y_true, labels, n_classes)
    counts: Int[np.ndarray, "c c"] = sklearn_metrics.confusion_matrix(
        y_true, labels, labels=np.arange(n_classes)
    )
    return counts


def per_class_table(
    y_true: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"], class_names: tuple[str, ...]
) -> list[ClassRow]:
    """Return one row per class, in column order.

    Raises:
        ValueError: If there is no image, or an index has no class name.
    """
    _check(y_true, labels, len(class_names))
    precision, recall, f1, n = sklearn_metrics.precision_recall_fscore_support(
        y_true, labels, labels=np.arange(len(class_names)), zero_division=np.nan
    )
    return [
        ClassRow(name, int(n[i]), _known(recall[i]), _known(precision[i]), _known(f1[i]))
        for i, name in enumerate(class_names)
    ]


def expected_calibration_error(
    y_true: Int[np.ndarray, " n"],
    probs_or_confidence: Float[np.ndarray, " n *c"],
    labels: Int[np.ndarray, " n"],
    n_bins: int = 15,
) -> float:
    """Return the mean gap between confidence and accuracy over bins of equal width.

    Images that abstained are left out. Source: Guo et al. On Calibration of Modern Neural Networks.
    ICML 2017. https://arxiv.org/abs/1706.04599, equation 5.

    Args:
        y_true: True classes.
        probs_or_confidence: Class probabilities (n, c), of which each label's own is taken, or the
            confidence of each label (n).
        labels: Class indices, -1 = abstained.
        n_bins: Bins between 0 and 1; each holds its upper edge.

    Raises:
        ValueError: If no image got a label, or a confidence is not in [0, 1].
    """
    _check(y_true, labels)
    if n_bins < 1:
        raise ValueError(f"n_bins must be at least 1, got {n_bins}")
    labelled = np.flatnonzero(labels >= 0)
    if not len(labelled):
        raise ValueError("calibration needs at least one labelled image; all abstained")
    y_true, labels = y_true[labelled], labels[labelled]
    confidence = probs_or_confidence[labelled].astype(np.float64)
    if confidence.ndim == 2:
        _check(y_true, labels, confidence.shape[1])
        confidence = confidence[np.arange(len(labels)), labels]
    # A softmax in float32 may end a rounding error above one.
    wrong = ~((confidence >= 0) & (confidence <= 1 + 1e-5))
    if wrong.any():
        raise ValueError(
            f"confidence lies between 0 and 1, got {confidence[wrong][0]} and "
            f"{int(wrong.sum()) - 1} more such values"
        )
    bins = np.clip(np.ceil(confidence * n_bins) - 1, 0, n_bins - 1).astype(np.int64)
    gaps = np.bincount(bins, weights=(y_true == labels) - confidence, minlength=n_bins)
    return float(np.abs(gaps).sum() / len(labels))


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _check(
    y_true: Int[np.ndarray, " n"],
    labels: Int[np.ndarray, " m"],
    n_classes: int | None = None,
) -> None:
    if len(y_true) != len(labels):
        raise ValueError(f"{len(y_true)} true classes for {len(labels)} labels")
    if not len(y_true):
        raise ValueError("a metric needs at least one image, got none")
    if y_true.min() < 0:
        raise ValueError(
            f"{int((y_true < 0).sum())} images have no true class; leave them out before"
        )
    if n_classes is not None and max(y_true.max(), labels.max()) >= n_classes:
        raise ValueError(
            f"class index {max(y_true.max(), labels.max())} for {n_classes} classes, "
            f"which count from 0"
        )
