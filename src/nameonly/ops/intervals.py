"""Intervals of shares."""

import math
from statistics import NormalDist

from jaxtyping import Bool, Float
from torch import Tensor


def wilson_bounds(share: float, n: float, level: float) -> tuple[float, float]:
    """Return the Wilson score interval of a share of n images, which may be an effective number.

    Source: Wilson. Probable inference, the law of succession, and statistical inference. 1927.
    """
    z = NormalDist().inv_cdf(0.5 + level / 2)
    spread = z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    # the share lies inside, but for rounding
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))


def effective_number(weights: Float[Tensor, " m"]) -> float:
    """Return how many images of equal weight tell as much as these; 0 where there is none.

    Source: Kish. Survey Sampling. 1965, section 11.7.
    """
    exact = weights.double()
    squares = float(exact.square().sum())
    return float(exact.sum()) ** 2 / squares if squares else 0.0


def weighed_share(
    right: Bool[Tensor, " m"], weights: Float[Tensor, " m"], size: int, level: float
) -> tuple[float, float, float]:
    """Return the share of right ones in a group and its Wilson interval, from a sample of it.

    Args:
        right: Of the sample, which holds at least one.
        weights: How many of the group each one stands for.
        size: Of the whole group: where all of it was looked at, nothing is left to chance.
        level: Of the interval.
    """
    share = float((weights * right).sum() / weights.sum())
    left = 1 - len(right) / size
    if left <= 0:
        return share, share, share
    return share, *wilson_bounds(share, effective_number(weights) / left, level)
