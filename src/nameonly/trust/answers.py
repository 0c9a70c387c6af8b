"""What an audit's answers say of single classes and of confidences.

Papers: Calibration error, temperature: Guo et al. On Calibration of Modern Neural Networks. ICML
    2017, arXiv 1706.04599, sections 2 and 4.2. Calibration of each class: Kull et al. Beyond
    temperature scaling. NeurIPS 2019, arXiv 1910.12656, section 2.
Differs: images count for as many as they stand for; a class is that of the label, not of the truth.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nameonly.ops.intervals import weighed_share
from nameonly.trust import calibration

LEVEL, COVERAGE = 0.95, 0.9
# fewer, and the error of a confidence is mostly chance: of all labels, and of a class's
ENOUGH, ENOUGH_OF_CLASS = 50, 20


@dataclass(frozen=True)
class Answers:
    """The labels of n images, and what some of them truly are.

    Attributes:
        labels: Class index of every image (n).
        confidence: Of the labels (n).
        probs: Of every class, where they are known (n, c).
        truth: Class index; -1 = not checked, c or more = none of the classes (n).
        weights: How many images each checked one stands for; 0 for the others (n).
    """

    labels: Int[Tensor, " n"]
    confidence: Float[Tensor, " n"]
    probs: Float[Tensor, "n c"] | None
    truth: Int[Tensor, " n"]
    weights: Float[Tensor, " n"]

    @property
    def right(self) -> Bool[Tensor, " n"]:
        """Whether the label is the truth."""
        return self.truth == self.labels

    @property
    def rows(self) -> Int[Tensor, " m"]:
        """The images that were checked."""
        return (self.truth >= 0).nonzero()[:, 0]


@dataclass(frozen=True)
class ClassAudit:
    """What an audit says of the images with one class's label.

    Attributes:
        label: Class index.
        n_labels: Images with that label.
        n: Of these, images checked.
        n_right: Of these, right ones.
        accuracy: Estimated share of right labels; an image counts for as many as it stands for.
        low: Lower end of its interval.
        high: Upper end of its interval.
        calibration_error: Gap between it and the mean confidence; None with too few answers.
    """

    label: int
    n_labels: int
    n: int
    n_right: int
    accuracy: float
    low: float
    high: float
    calibration_error: float | None


def audit_classes(answers: Answers) -> list[ClassAudit]:
    """Return what the answers say of each class that has one, by the label given."""
    found = []
    for label in sorted(set(answers.labels[answers.rows].tolist())):
        rows = answers.rows[answers.labels[answers.rows] == label]
        right, weights = answers.right[rows], answers.weights[rows]
        size = int((answers.labels == label).sum())
        error = None
        if len(rows) >= ENOUGH_OF_CLASS:
            sure = answers.confidence[rows]
            error, _ = calibration.calibration_error(sure, right, weights, n_bins=1)
        share = weighed_share(right, weights, size, LEVEL)
        found.append(ClassAudit(label, size, len(rows), int(right.sum()), *share, error))
    return found


def diagram(answers: Answers) -> list[dict[str, Any]]:
    """Return the bins of the reliability diagram as plain data."""
    bins = calibration.reliability(answers.confidence, answers.right, answers.weights, LEVEL)
    return [asdict(b) | {"accuracy": b.accuracy if b.n_audited else None} for b in bins]


def temperature_and_sets(answers: Answers) -> dict[str, Any]:
    """Return a temperature and prediction sets, where every class's probability is known."""
    if answers.probs is None:
        return {}
    rows = _of_a_class(answers)
    if not len(rows):
        return {}
    truth, weights = answers.truth[rows], answers.weights[rows]
    every = answers.probs.double().clamp(min=1e-30).log()
    temperature = calibration.fit_temperature(every[rows], truth, weights)
    probs = (every / temperature).softmax(dim=1)
    found: dict[str, Any] = {"temperature": temperature}
    try:
        least = calibration.conformal_threshold(probs[rows], truth, COVERAGE, weights)
    except ValueError:
        return found  # too few answers for sets of that coverage
    size = calibration.prediction_sets(probs, least).double().sum(dim=1).mean().item()
    sets = {"coverage": COVERAGE, "least_probability": least, "mean_size": size}
    return {**found, "prediction_sets": sets}


def _of_a_class(answers: Answers) -> Int[Tensor, " k"]:
    """Return the images that were checked and show one of the classes."""
    assert answers.probs is not None
    return answers.rows[answers.truth[answers.rows] < answers.probs.shape[1]]


def confidence_errors(answers: Answers) -> dict[str, dict[str, float]] | None:
    """Return the calibration error of every kind of confidence; None with too few answers.

    What is fitted to answers is judged on others: ``temperature`` is the probability at the
    temperature that they say, ``classwise`` the confidence set right for each class with enough.
    """
    rows = answers.rows
    if len(rows) < ENOUGH:
        return None
    found = {"confidence": answers.confidence[rows]}
    if answers.probs is not None and len(_of_a_class(answers)) > len(rows) // 2:
        found["probability"] = answers.probs[rows].gather(1, answers.labels[rows, None])[:, 0]
        found["temperature"] = calibration.held_out(len(rows), lambda s: _scaled(answers, s))
    enough = torch.bincount(answers.labels[rows]) >= ENOUGH_OF_CLASS
    if enough.any():
        found["classwise"] = calibration.held_out(
            len(rows), lambda seen: _by_class(answers, enough, seen)
        )
    right, weights = answers.right[rows], answers.weights[rows]
    errors = {k: calibration.calibration_error(v, right, weights) for k, v in found.items()}
    return {name: {"error": e, "by_chance": chance} for name, (e, chance) in errors.items()}


def _scaled(answers: Answers, seen: Bool[Tensor, " m"]) -> Float[Tensor, " m"]:
    """Return the probability of every checked label at the temperature of those seen."""
    assert answers.probs is not None
    rows = answers.rows
    logits = answers.probs[rows].double().clamp(min=1e-30).log()
    fit = seen & (answers.truth[rows] < answers.probs.shape[1])
    known = rows[fit]
    temperature = calibration.fit_temperature(
        logits[fit], answers.truth[known], answers.weights[known]
    )
    probs = (logits / temperature).softmax(dim=1)
    return probs.gather(1, answers.labels[rows, None])[:, 0]


def _by_class(
    answers: Answers, enough: Bool[Tensor, " c"], seen: Bool[Tensor, " m"]
) -> Float[Tensor, " m"]:
    """Return the confidence of every checked label at the accuracy of its class among those seen.

    Classes without enough answers keep theirs.
    """
    known = answers.rows[seen]
    labels, weights = answers.labels[known], answers.weights[known]
    size = len(enough)
    right = torch.zeros(size, dtype=weights.dtype).index_add_(
        0, labels, weights * answers.right[known]
    )
    accuracy = right / torch.zeros(size, dtype=weights.dtype).index_add_(0, labels, weights)
    accuracy[~enough] = torch.nan
    found = calibration.classwise_confidence(answers.confidence, answers.labels, accuracy)
    return found[answers.rows]
