"""Check these images by hand and know the accuracy: which ones, and what follows from the answers.

Papers: Stratified sampling and Neyman's allocation: Cochran. Sampling Techniques. 1977, sections
    5.3 and 5.5. Wilson. Probable inference. JASA, 1927. Hoeffding. Probability inequalities for
    sums of bounded random variables. JASA, 1963.
Differs: strata are bands of confidence; shares are estimated with a prior image in each stratum.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nameonly.ops.intervals import wilson_bounds

STRATA = 5


@dataclass(frozen=True)
class AuditSample:
    """Images to check, and how they were drawn.

    Attributes:
        rows: Of the images, in the order in which to check them: any first part of it is a sample.
        strata: Of every image (n).
        sizes: Images of each stratum.
    """

    rows: Int[Tensor, " m"]
    strata: Int[Tensor, " n"]
    sizes: Int[Tensor, " s"]


@dataclass(frozen=True)
class AuditResult:
    """What an audit says of all images.

    Attributes:
        accuracy: Estimated share of right labels.
        low: Lower end of its interval.
        high: Upper end of its interval.
        level: Of the interval.
        n: Images checked.
        n_right: Of these, right ones.
    """

    accuracy: float
    low: float
    high: float
    level: float
    n: int
    n_right: int


def images_needed(margin: float, level: float = 0.95, accuracy: float = 0.5) -> int:
    """Return how many images of a random sample give an interval of plus or minus the margin.

    Args:
        margin: In (0, 1), such as 0.05 for five points.
        level: Of the interval.
        accuracy: Expected; 0.5 is the worst case.

    Raises:
        ValueError: If a figure is out of range.
    """
    if not (0 < margin < 1 and 0 < level < 1 and 0 <= accuracy <= 1):
        raise ValueError(
            f"margin and level lie in (0, 1), accuracy in [0, 1]; got {margin}, {level}, {accuracy}"
        )
    z = NormalDist().inv_cdf(0.5 + level / 2)
    return math.ceil(z * z * max(accuracy * (1 - accuracy), 1e-9) / margin**2)


def audit_sample(
    confidence: Float[Tensor, " n"], n_images: int, n_strata: int = STRATA, seed: int = 0
) -> AuditSample:
    """Return a stratified random sample: bands of confidence, more where labels are less sure.

    Every stratum gets a share of the images as its size times the spread that its confidence
    lets expect (Neyman), and at least two.

    Args:
        confidence: That each label is right, in [0, 1]; NaN for images that are not to be drawn.
        n_images: How many to draw; all that can be where there are fewer.
        n_strata: Bands.
        seed: Of the draw.

    Raises:
        ValueError: If no image can be drawn, or ``n_images`` is below 1.
    """
    if n_images < 1:
        raise ValueError(f"an audit needs at least one image, got {n_images}")
    open_ = ~confidence.isnan()
    n = int(open_.sum())
    if not n:
        raise ValueError("there is no labelled image to audit")
    n_strata = max(1, min(n_strata, n // 2))
    strata = torch.full((len(confidence),), -1, dtype=torch.long)
    ranks = confidence[open_].argsort(stable=True).argsort()
    strata[open_] = ranks * n_strata // n
    sizes = torch.bincount(strata[open_], minlength=n_strata)
    means = torch.zeros(n_strata).index_add_(0, strata[open_], confidence[open_].float()) / sizes
    spread = (means * (1 - means)).clamp(min=0.01).sqrt()
    # one order for all strata: where a confidence moves a little, most of the sample stays
    order = torch.randperm(len(confidence), generator=torch.Generator().manual_seed(seed))
    queues = [order[strata[order] == s] for s in range(n_strata)]
    return AuditSample(_in_turns(queues, sizes * spread, min(n_images, n)), strata, sizes)


def _in_turns(
    queues: list[Int[Tensor, " _"]], shares: Float[Tensor, " s"], n: int
) -> Int[Tensor, " m"]:
    """Take rows from strata so that every first part of the result is shared out as asked."""
    taken, rows = [0] * len(queues), []
    for _ in range(n):
        left = [s for s in range(len(queues)) if taken[s] < len(queues[s])]
        first = [s for s in left if taken[s] < 2]
        # the stratum that lags behind its share the most
        s = first[0] if first else min(left, key=lambda s: (taken[s] + 0.5) / float(shares[s]))
        rows.append(int(queues[s][taken[s]]))
        taken[s] += 1
    return torch.tensor(rows, dtype=torch.long)


def audit_weights(sample: AuditSample, checked: Bool[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Return how many images every checked one stands for; 0 for the others."""
    weights = torch.zeros(len(checked), dtype=torch.float64)
    for s, size in enumerate(sample.sizes.tolist()):
        inside = checked & (sample.strata == s)
        if inside.any():
            weights[inside] = size / int(inside.sum())
    return weights


def audit_accuracy(
    sample: AuditSample,
    checked: Bool[Tensor, " n"],
    right: Bool[Tensor, " n"],
    level: float = 0.95,
) -> AuditResult:
    """Return the accuracy that an audit finds, with a Wilson interval of its effective size.

    The images checked must be the first ones of the sample, in any number, or a simple random
    sample of their strata: choosing what to check by how it looks makes the figure worthless.

    Args:
        sample: How the images were drawn.
        checked: Which were looked at.
        right: Whether the label is right, where it was.
        level: Of the interval.

    Raises:
        ValueError: If none was checked.
    """
    done = checked & (sample.strata >= 0)
    n, n_right = int(done.sum()), int((done & right).sum())
    if not n:
        raise ValueError("no image of the audit's sample has been checked yet")
    total = int(sample.sizes.sum())
    value, variance, covered = 0.0, 0.0, 0
    for s, size in enumerate(sample.sizes.tolist()):
        inside = done & (sample.strata == s)
        k = int(inside.sum())
        if not k:
            continue
        covered += size
        hits = int((inside & right).sum())
        smooth = (hits + 1) / (k + 2)  # a stratum without a mistake is no proof that it has none
        value += size * hits / k
        variance += size**2 * smooth * (1 - smooth) / k * (1 - k / size)
    value, variance = value / covered, variance / covered**2
    low, high = interval_of_variance(value, variance, level)
    if covered < total:  # strata that nobody looked at may hold anything
        low, high = low * covered / total, (high * covered + total - covered) / total
        value = value * covered / total + 0.5 * (1 - covered / total)
    return AuditResult(value, low, high, level, n, n_right)


def interval_of_variance(share: float, variance: float, level: float) -> tuple[float, float]:
    """Return Wilson's interval at the sample size whose variance this would be."""
    if variance <= 0:
        return share, share
    return wilson_bounds(share, max(1.0, max(share * (1 - share), 0.01) / variance), level)


def hoeffding_interval(share: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Return an interval of a share that holds for every sample size, mostly wider than Wilson's.

    It assumes that the images are a random sample, or one of each stratum, and nothing of the
    labels: no distribution.

    Args:
        share: Found in the sample.
        n: Images of the sample; of a stratified one, its effective number, for the ranges of the
            summands in Hoeffding's theorem 2 are the weights.
        level: Of the interval.

    Raises:
        ValueError: If the share is none, there is not one image, or the level is not in (0, 1).
    """
    if not (0 <= share <= 1 and n >= 1 and 0 < level < 1):
        raise ValueError(
            f"expected a share in [0, 1], n >= 1, a level in (0, 1); got {share}, {n}, {level}"
        )
    half = math.sqrt(math.log(2 / (1 - level)) / (2 * n))
    return max(0.0, share - half), min(1.0, share + half)
