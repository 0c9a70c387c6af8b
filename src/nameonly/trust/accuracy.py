"""How accurate labels are, as far as the unlabelled images themselves can tell.

Papers: Average thresholded confidence: Garg et al. Leveraging Unlabeled Data to Predict
    Out-of-Distribution Performance. ICLR 2022, arXiv 2201.04234, eq. 2. Agreement as accuracy:
    Jiang et al. Assessing Generalization of SGD via Disagreement. ICLR 2022, arXiv 2106.13799.
    Several observers without truth: Dawid, Skene. Applied Statistics, 1979.
Differs: the estimate that ``label`` reports, stability under resampled deviations, is this
    package's own; its two constants were chosen on the development half of the digits, see
    docs/trust.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nameonly.ops.selection import filled, row_blocks
from nameonly.types import Features

# how far an image is moved: times the deviation of another image from its own centre
SPREAD = 1.7
DRAWS = 20
# root mean square of the estimate's error over six kinds of pools, beside that of counting images
MODEL_ERROR = 0.07
CENTRE_STEPS = 20
LEAST_DRAWS = 3
# products that the draws may cost: a minute or so of two cores
MOST_PRODUCTS = 4e12
# distances held at once
BLOCK_VALUES = 2**20


@dataclass(frozen=True)
class AccuracyEstimate:
    """An estimate of accuracy with its interval.

    Attributes:
        value: Share of right labels, in [0, 1].
        low: Lower end of the interval.
        high: Upper end of the interval.
        level: How often such an interval is meant to hold the truth.
        n: Images that it is of.
        per_class: Of the images with each class's label; NaN for a class without any.
        stability: Of every image's label, in [0, 1]; what the estimate is the mean of.
    """

    value: float
    low: float
    high: float
    level: float
    n: int
    per_class: Float[Tensor, " c"]
    stability: Float[Tensor, " n"]


def nearest_centre(
    values: Float[Tensor, "n d"], centres: Float[Tensor, "c d"]
) -> Int[Tensor, " n"]:
    """Return the nearest centre of every row; ones at infinity are nobody's."""
    reach = centres.isfinite().all(dim=1)
    kept = reach.nonzero()[:, 0]
    size = max(1, BLOCK_VALUES // max(1, len(kept)))
    blocks = (slice(start, start + size) for start in range(0, len(values), size))
    near = ((rows, torch.cdist(values[rows], centres[kept]).argmin(dim=1)) for rows in blocks)
    return kept[filled(torch.empty(len(values), dtype=torch.long, device=kept.device), near)]


@dataclass(frozen=True)
class Clusters:
    """A second opinion on images: k-means that starts from labels and sees no text afterwards.

    Attributes:
        centres: Of the classes; infinite where no image is near.
        nearest: The nearest centre of every image.
    """

    centres: Float[Tensor, "c d"]
    nearest: Int[Tensor, " n"]


def find_clusters(features: Features, start: Int[Tensor, " n"], n_classes: int) -> Clusters:
    """Return k-means of images, from the class means on; no order of rows changes it.

    Memory: a block of rows, O(c d) and O(n).

    Args:
        features: Unit rows.
        start: The labels of zero-shot, from whose class means the centres start.
        n_classes: How many classes there are.
    """
    width = features.values.shape[1]
    blocks = _blocks(features.content_order(), max(n_classes, width))
    nearest, sums = start, features.values.new_zeros(n_classes, width).float()
    for rows in blocks:
        sums.index_add_(0, start[rows], features.values[rows].float())
    for step in range(CENTRE_STEPS + 1):
        counts = torch.bincount(nearest, minlength=n_classes)
        # a centre that no row is near stays out of reach
        centres = (sums / counts[:, None]).masked_fill((counts == 0)[:, None], torch.inf)
        before, nearest, sums = nearest, torch.empty_like(start), torch.zeros_like(sums)
        for rows in blocks:
            values = features.values[rows].float()
            nearest[rows] = nearest_centre(values, centres)
            sums.index_add_(0, nearest[rows], values)
        if step and torch.equal(before, nearest):
            break
    return Clusters(centres, nearest)


def _blocks(order: Int[Tensor, " n"], width: int) -> Sequence[Int[Tensor, " b"]]:
    return torch.split(order, max(1, BLOCK_VALUES // width))


def n_draws(n: int, c: int, d: int) -> int:
    """Return how often n images of d dimensions are moved among c classes."""
    return max(LEAST_DRAWS, min(DRAWS, int(MOST_PRODUCTS / max(1, n * c * d))))


def label_stability(
    features: Features,
    clusters: Clusters,
    labels: Int[Tensor, " n"],
    *,
    spread: float = SPREAD,
    draws: int | None = None,
    seed: int = 0,
) -> Float[Tensor, " n"]:
    """Return how often every image keeps its label when it is moved as images of a class vary.

    Each draw adds to every image ``spread`` times the deviation of a random image from its own
    centre, and asks which centre the moved image is nearest. Where classes are told apart well,
    and text and clusters say the same, labels stay.

    Memory: a block of rows and O(n).

    Args:
        features: Unit rows.
        clusters: Of the images.
        labels: The labels in question.
        spread: How far images are moved.
        draws: How often; by default 20, or fewer where there are very many images and classes.
        seed: Of the draws, which go by the images' content: no order of rows changes them.
    """
    order, centres = features.content_order(), clusters.centres
    kept = centres.isfinite().all(dim=1).nonzero()[:, 0]
    near, lengths = centres[kept], centres[kept].square().sum(dim=1)
    generator = torch.Generator().manual_seed(seed)
    stability = torch.zeros(len(order))
    draws = draws or n_draws(len(order), *centres.shape)
    for _ in range(draws):
        donors = torch.randint(max(1, len(order)), (len(order),), generator=generator)
        blocks = _blocks(order, max(centres.shape))
        for rows, others in zip(blocks, _blocks(order[donors], max(centres.shape)), strict=True):
            moved = features.values[others].float().sub_(centres[clusters.nearest[others]])
            moved.mul_(spread).add_(features.values[rows])
            # squared distances of the unit rows, but for what all centres share
            size = torch.linalg.vector_norm(moved, dim=1, keepdim=True).clamp(min=1e-12)
            distances = lengths - 2 * (moved @ near.T) / size
            stability[rows] += (kept[distances.argmin(dim=1)] == labels[rows]).cpu()
    return stability / draws


def estimate_accuracy(
    features: Features,
    clusters: Clusters,
    labels: Int[Tensor, " n"],
    *,
    level: float = 0.9,
    counted: Bool[Tensor, " n"] | None = None,
    stability: Float[Tensor, " n"] | None = None,
) -> AccuracyEstimate:
    """Return the estimated share of right labels: the mean of ``label_stability``.

    It cannot see a mistake that text and images agree in: two names given the wrong way round, or
    a class that lies wholly within another's cluster.

    Args:
        features: Unit rows.
        clusters: Of the images.
        labels: The labels in question, -1 = none, which are left out.
        level: Of the interval, in (0, 1).
        counted: Images that the estimate is of; all of them by default.
        stability: Of the labels, where it is known.

    Raises:
        ValueError: If no image is counted, or the level is not in (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level is between 0 and 1, got {level}")
    if stability is None:
        stability = label_stability(features, clusters, labels)
    n_classes = len(clusters.centres)
    chosen = labels >= 0 if counted is None else counted & (labels >= 0)
    n = int(chosen.sum())
    if not n:
        raise ValueError("an estimate of accuracy needs at least one labelled image, got none")
    value = stability[chosen].mean().item()
    half = NormalDist().inv_cdf(0.5 + level / 2) * math.sqrt(
        MODEL_ERROR**2 + max(value * (1 - value), 1 / n) / n
    )
    sums = torch.zeros(n_classes).index_add_(0, labels[chosen].cpu(), stability[chosen])
    counts = torch.bincount(labels[chosen].cpu(), minlength=n_classes)
    return AccuracyEstimate(
        value,
        max(0.0, value - half),
        min(1.0, value + half),
        level,
        n,
        sums / counts,
        stability,
    )


def average_confidence(logits: Float[Tensor, "n c"], temperature: float = 1.0) -> float:
    """Return the mean probability of the most probable class.

    Args:
        logits: Of the images.
        temperature: They are divided by it.
    """
    total = 0.0
    for rows in row_blocks(*logits.shape):
        total += (logits[rows] / temperature).softmax(dim=1).amax(dim=1).double().sum().item()
    return total / max(1, len(logits))


def average_thresholded_confidence(
    confidence: Float[Tensor, " n"],
    source_confidence: Float[Tensor, " m"],
    source_right: Bool[Tensor, " m"],
) -> float:
    """Return the share of images above the threshold that the source's accuracy lies above (ATC).

    Args:
        confidence: Of the images in question: any score that grows with being right.
        source_confidence: Of labelled images, synthetic ones or augmented ones.
        source_right: Whether these were labelled right.

    Raises:
        ValueError: If there is no source.
    """
    if not len(source_right):
        raise ValueError("average thresholded confidence needs labelled images of a source")
    n_wrong = int((~source_right).sum())
    ordered = source_confidence.sort().values
    # as many source images lie below the threshold as are wrong
    threshold = ordered[n_wrong] if n_wrong < len(ordered) else torch.inf
    return (confidence >= threshold).double().mean().item()


def mean_agreement(votes: Sequence[Int[Tensor, " n"]]) -> list[float]:
    """Return, for every voter, the mean share of images on which another one says the same.

    Raises:
        ValueError: If there are fewer than two voters.
    """
    if len(votes) < 2:
        raise ValueError(f"agreement needs at least two voters, got {len(votes)}")
    return [
        sum((a == b).double().mean().item() for j, b in enumerate(votes) if j != i)
        / (len(votes) - 1)
        for i, a in enumerate(votes)
    ]


@dataclass(frozen=True)
class Observers:
    """What voters say of each other's mistakes.

    Attributes:
        probs: Of every image's class (n, c).
        accuracy: Of every voter (k), as it follows.
        prior: Class shares (c).
    """

    probs: Float[Tensor, "n c"]
    accuracy: Float[Tensor, " k"]
    prior: Float[Tensor, " c"]


def dawid_skene(
    votes: Sequence[Int[Tensor, " n"]], n_classes: int, steps: int = 100, smoothing: float = 1.0
) -> Observers:
    """Return classes and the voters' accuracies by expectation maximisation.

    It takes the voters' mistakes as independent given the class; those of methods on one backbone
    are not, so that it finds them more accurate than they are.

    Args:
        votes: The label that each voter gives every image, -1 = none.
        n_classes: How many classes there are.
        steps: At most.
        smoothing: Votes added to every right cell of a confusion matrix, a tenth of it elsewhere.

    Raises:
        ValueError: If there are no voters.
    """
    if not votes:
        raise ValueError("Dawid-Skene needs at least one voter, got none")
    cast = [torch.nn.functional.one_hot(v + 1, n_classes + 1)[:, 1:].double() for v in votes]
    probs = torch.stack(cast).sum(dim=0) + 1e-9
    probs = probs / probs.sum(dim=1, keepdim=True)
    added = smoothing * (0.1 + 0.9 * torch.eye(n_classes, dtype=torch.float64))
    for _ in range(steps):
        prior = probs.mean(dim=0).clamp(min=1e-9)
        confusion = [probs.T @ v + added for v in cast]
        confusion = [m / m.sum(dim=1, keepdim=True) for m in confusion]
        logs = prior.log() + sum(v @ m.log().T for v, m in zip(cast, confusion, strict=True))
        before, probs = probs, logs.softmax(dim=1)
        if (probs - before).abs().max() < 1e-6:
            break
    accuracy = torch.stack([(probs * v).sum() / v.sum().clamp(min=1) for v in cast])
    return Observers(probs.float(), accuracy.float(), probs.mean(dim=0).float())
