"""What stands out among numbers, most of which are of one kind."""

from jaxtyping import Float
from torch import Tensor

# of a normal distribution: its standard deviation over the median of absolute deviations
TO_DEVIATION = 1.4826


def standardised(values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Return how many robust standard deviations each value lies above the median."""
    if not len(values):
        return values
    above = values - values.median()
    return above / (TO_DEVIATION * above.abs().median()).clamp(min=1e-9)


def robust_bound(values: Float[Tensor, " n"], deviations: float) -> float:
    """Return the median plus so many robust standard deviations; there must be a value."""
    median = values.median()
    spread = TO_DEVIATION * (values - median).abs().median()
    return (median + deviations * spread).item()
