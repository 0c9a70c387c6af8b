"""Answers against truth: the figures of one run."""

import numpy as np
from jaxtyping import Bool, Int

from nameonly.bench.draws import Draw
from nameonly.bench.fitting import Answers
from nameonly.evaluation.metrics import (
    accuracy_score,
    label_coverage,
    label_precision,
    mean_class_accuracy_score,
)
from nameonly.evaluation.settings import harmonic_mean, seen_and_unseen_accuracy

Figures = dict[str, float | None]


def figures(
    answers: Answers,
    y_pool: Int[np.ndarray, " n"],
    y_true: Int[np.ndarray, " m"],
    draw: Draw,
) -> Figures:
    """Return the figures of a run; one that the run does not have is None.

    Pool accuracy, precision and coverage are of the images without a given label.

    Args:
        answers: What the method said.
        y_pool: True columns of the images it was fitted on.
        y_true: True columns of the images that are scored.
        draw: Which labels were given.
    """
    labels, zero_shot = answers.labels.numpy(), answers.zero_shot.numpy()
    found: Figures = {
        "accuracy": accuracy_score(y_true, labels),
        "mean_class_accuracy": mean_class_accuracy_score(y_true, labels),
        **_of_seen(y_true, labels, draw.seen),
        "zero_shot_accuracy": accuracy_score(y_true, zero_shot),
        "zero_shot_harmonic_mean": _of_seen(y_true, zero_shot, draw.seen)["harmonic_mean"],
        "pool_accuracy": None,
        "zero_shot_pool_accuracy": None,
        "pseudo_label_precision": None,
        "pseudo_label_coverage": None,
    }
    is_open = np.ones(len(y_pool), dtype=bool) if draw.given is None else draw.given < 0
    if not is_open.any():
        return found
    y_open = y_pool[is_open]
    found["pool_accuracy"] = accuracy_score(y_open, answers.pool_labels.numpy()[is_open])
    found["zero_shot_pool_accuracy"] = accuracy_score(
        y_open, answers.pool_zero_shot.numpy()[is_open]
    )
    if answers.pseudo_labels is not None:
        learnt = answers.pseudo_labels.labels.numpy()[is_open]
        found["pseudo_label_coverage"] = label_coverage(learnt)
        if (learnt >= 0).any():
            found["pseudo_label_precision"] = label_precision(y_open, learnt)
    return found


def _of_seen(
    y_true: Int[np.ndarray, " m"],
    labels: Int[np.ndarray, " m"],
    seen: Bool[np.ndarray, " c"] | None,
) -> Figures:
    """Return accuracy over seen and over unseen classes and their harmonic mean (TRZSL)."""
    if seen is None:
        return {"seen_accuracy": None, "unseen_accuracy": None, "harmonic_mean": None}
    of_seen, of_unseen = seen_and_unseen_accuracy(y_true, labels, seen)
    return {
        "seen_accuracy": of_seen,
        "unseen_accuracy": of_unseen,
        "harmonic_mean": harmonic_mean(of_seen, of_unseen),
    }
