"""Intervals of shares."""

import math
from statistics import NormalDist


def wilson_bounds(share: float, n: float, level: float) -> tuple[float, float]:
    """Return the Wilson score interval of a share of n images, which may be an effective number.

    Source: Wilson. Probable inference, the law of succession, and statistical inference. 1927.
    """
    z = NormalDist().inv_cdf(0.5 + level / 2)
    spread = z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)
