"""Confidence that means what it says: temperatures without labels and with some, prediction sets.

Papers: Temperature scaling, reliability: Guo et al. On Calibration of Modern Neural Networks. ICML
    2017, arXiv 1706.04599, section 4.2. Conformal prediction: Sadinle, Lei, Wasserman. Least
    Ambiguous Set-Valued Classifiers. JASA 2019, arXiv 1609.00451; finite sample quantile:
    Angelopoulos, Bates, arXiv 2107.07511, section 1.
Differs: without labels the temperature is the one at which the mean confidence is the estimated
    accuracy; only the level is set, the order of confidences stays.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from nameonly.ops.intervals import weighed_share
from nameonly.trust.accuracy import average_confidence

LEAST, MOST = math.log(1e-3), math.log(1e4)
HALVINGS = 60
BINS, PARTS = 10, 5


def temperature_for(logits: Float[Tensor, "n c"], accuracy: float) -> float:
    """Return the temperature at which the mean confidence equals an accuracy.

    Args:
        logits: Of the images.
        accuracy: Known or estimated, in (0, 1]; out of reach, the nearest temperature is returned.

    Raises:
        ValueError: If there is no image, or the accuracy is not in [0, 1].
    """
    if not len(logits) or not 0 <= accuracy <= 1:
        raise ValueError(
            f"expected images and an accuracy in [0, 1], got {len(logits)}, {accuracy}"
        )
    low, high = LEAST, MOST
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if average_confidence(logits, math.exp(middle)) > accuracy:
            low = middle
        else:
            high = middle
    return math.exp((low + high) / 2)


def fit_temperature(
    logits: Float[Tensor, "m c"],
    labels: Int[Tensor, " m"],
    weights: Float[Tensor, " m"] | None = None,
) -> float:
    """Return the temperature at which known labels are most probable (Guo et al.).

    Args:
        logits: Of audited images.
        labels: Their classes.
        weights: Of each in the likelihood, where the audit did not draw all alike.

    Raises:
        ValueError: If there is no image.
    """
    if not len(labels):
        raise ValueError("a temperature needs at least one labelled image, got none")
    weighing = torch.ones(len(labels)) if weights is None else weights

    def loss(log_temperature: float) -> float:
        found = cross_entropy(logits / math.exp(log_temperature), labels, reduction="none")
        return float((weighing * found).sum())

    # unimodal in the logarithm: narrowed by thirds
    low, high = LEAST, MOST
    for _ in range(2 * HALVINGS):
        a, b = low + (high - low) / 3, high - (high - low) / 3
        if loss(a) < loss(b):
            high = b
        else:
            low = a
    return math.exp((low + high) / 2)


def classwise_confidence(
    confidence: Float[Tensor, " n"], labels: Int[Tensor, " n"], accuracy: Float[Tensor, " c"]
) -> Float[Tensor, " n"]:
    """Return confidences raised to a power for each class, so that its mean is its accuracy.

    Args:
        confidence: Of each label, in [0, 1].
        labels: -1 = none: its confidence stays.
        accuracy: Of the images with each label; NaN where it is not known.
    """
    found = confidence.clone()
    for k in range(len(accuracy)):
        rows = labels == k
        if rows.any() and not accuracy[k].isnan():
            found[rows] = matched_mean(confidence[rows], float(accuracy[k]))
    return found


def matched_mean(values: Float[Tensor, " n"], mean: float) -> Float[Tensor, " n"]:
    """Return values in [0, 1] raised to the one power at which they have a mean; order stays.

    Values at 0 and 1 cannot be moved; where the mean is out of reach, the nearest power is taken.
    """
    low, high = LEAST, MOST
    exact = values.double().clamp(0, 1)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if float((exact ** math.exp(middle)).mean()) > mean:
            low = middle
        else:
            high = middle
    return (exact ** math.exp((low + high) / 2)).to(values)


def combined_confidence(
    probability: Float[Tensor, " n"], stability: Float[Tensor, " n"], accuracy: float, draws: int
) -> Float[Tensor, " n"]:
    """Return the geometric mean of two confidences, at the level of an accuracy.

    Args:
        probability: Of each label, at a temperature.
        stability: Of each label, a share of ``draws``; smoothed by Laplace's rule.
        accuracy: Known or estimated.
        draws: That the stability was counted in.
    """
    smooth = (stability * draws + 1) / (draws + 2)
    return matched_mean((probability * smooth).sqrt(), accuracy)


@dataclass(frozen=True)
class Reliability:
    """One bin of a reliability diagram.

    Attributes:
        low: Its lower edge.
        high: Its upper edge.
        n: Images in it.
        confidence: Their mean confidence.
        accuracy: The share of right ones, from those audited; NaN where none was.
        n_audited: How many were.
        interval: Of the accuracy (Wilson); None where none was audited.
    """

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float
    n_audited: int
    interval: tuple[float, float] | None


def reliability(
    confidence: Float[Tensor, " n"],
    right: Bool[Tensor, " n"],
    weights: Float[Tensor, " n"],
    level: float = 0.95,
) -> list[Reliability]:
    """Return a reliability diagram: confidence against accuracy, bins that hold an image.

    Args:
        confidence: Of each label, in [0, 1].
        right: Whether it is right, where that is known.
        weights: How many images each audited one stands for; 0 where nothing is known.
        level: Of the intervals.
    """
    place = _bin_of(confidence, BINS)
    rows = []
    for b in sorted(set(place.tolist())):
        inside = place == b
        known = inside & (weights > 0)
        n, n_audited = int(inside.sum()), int(known.sum())
        accuracy, interval = math.nan, None
        if n_audited:
            accuracy, low, high = weighed_share(right[known], weights[known], n, level)
            interval = low, high
        mean = confidence[inside].double().mean().item()
        edges = (b / BINS, (b + 1) / BINS)
        rows.append(Reliability(*edges, n, mean, accuracy, n_audited, interval))
    return rows


def _bin_of(confidence: Float[Tensor, " n"], n_bins: int) -> Int[Tensor, " n"]:
    """Return the bin of each confidence; bins hold their upper edge, the first one 0 too."""
    return (confidence * n_bins).ceil().long().clamp(1, n_bins) - 1


def calibration_error(
    confidence: Float[Tensor, " m"],
    right: Bool[Tensor, " m"],
    weights: Float[Tensor, " m"],
    n_bins: int = BINS,
) -> tuple[float, float]:
    """Return the mean gap between confidence and accuracy over bins, and what chance makes of it.

    The second figure is what a confidence without any error would show with so few answers.

    Args:
        confidence: Of audited labels, in [0, 1].
        right: Whether they are right.
        weights: How many images each one stands for.
        n_bins: Of equal width; one of them compares the means.

    Raises:
        ValueError: If there is no image.
    """
    if not len(right):
        raise ValueError("a calibration error needs at least one audited image, got none")
    exact, place = confidence.double(), _bin_of(confidence, n_bins)

    def summed(values: Float[Tensor, " m"]) -> Float[Tensor, " b"]:
        return torch.zeros(n_bins, dtype=torch.float64).index_add_(0, place, values.double())

    gaps = summed(weights * (right.double() - exact)).abs()
    # the gap of a bin is then about normal, whose mean size is this much of its deviation
    chance = math.sqrt(2 / math.pi) * summed(weights.square() * exact * (1 - exact)).sqrt()
    total = weights.double().sum()
    return float(gaps.sum() / total), float(chance.sum() / total)


def held_out(
    m: int, refit: Callable[[Bool[Tensor, " m"]], Float[Tensor, " m"]], seed: int = 0
) -> Float[Tensor, " m"]:
    """Return what a fit says of images that it has not seen: each of five parts by the others.

    Args:
        m: Images.
        refit: Given which images to fit to, returns its value of all.
        seed: Of the parts.
    """
    order = torch.randperm(m, generator=torch.Generator().manual_seed(seed))
    found = torch.zeros(m, dtype=torch.float64)
    for part in range(PARTS):
        rows = order[part::PARTS]
        seen = torch.ones(m, dtype=torch.bool)
        seen[rows] = False
        if len(rows):
            found[rows] = refit(seen)[rows].double()
    return found


def conformal_threshold(
    probs: Float[Tensor, "m c"],
    labels: Int[Tensor, " m"],
    coverage: float = 0.9,
    weights: Float[Tensor, " m"] | None = None,
) -> float:
    """Return the least probability that a class needs to be in an image's prediction set.

    Sets of the classes at or above it hold the true class with at least the coverage, for images
    drawn like the audited ones.

    Args:
        probs: Of audited images.
        labels: Their classes.
        coverage: Wanted, in (0, 1).
        weights: How many images each audited one stands for; all alike by default.

    Raises:
        ValueError: If there are too few images for the coverage.
    """
    m = len(labels)
    if not 0 < coverage < 1:
        raise ValueError(f"coverage lies between 0 and 1, got {coverage}")
    weighing = torch.ones(m, dtype=torch.float64) if weights is None else weights.double()
    order = (1 - probs.gather(1, labels[:, None])[:, 0]).argsort()
    # the image to come counts as one more, worse than all (Tibshirani et al., arXiv 1904.06019)
    total = weighing.sum() + weighing.max() if m else torch.tensor(1.0)
    reached = (weighing[order].cumsum(dim=0) / total >= coverage - 1e-12).nonzero()[:, 0]
    if not len(reached):
        least = math.ceil(coverage / (1 - coverage) - 1e-9)
        raise ValueError(
            f"sets of coverage {coverage} need at least {least} audited images, got {m}"
        )
    last = order[reached[0]]
    return probs[last, labels[last]].item()


def prediction_sets(probs: Float[Tensor, "n c"], threshold: float) -> Bool[Tensor, "n c"]:
    """Return which classes are in every image's set; it may hold none."""
    return probs >= threshold
