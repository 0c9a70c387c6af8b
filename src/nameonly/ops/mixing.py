"""Two classifiers' probabilities as one."""

import torch
from jaxtyping import Float
from torch import Tensor


def mix_probs(
    probs: Float[Tensor, "n c"], others: Float[Tensor, "n c"], weight: float
) -> Float[Tensor, "n c"]:
    """Return ``(p + w q) / (1 + w)``, never quite zero.

    Args:
        probs: p; rows sum to one.
        others: q; rows sum to one.
        weight: w, 0 or more.

    Raises:
        ValueError: If the weight is negative.
    """
    if weight < 0:
        raise ValueError(f"weight must not be negative, got {weight}")
    mixed = (probs + weight * others.to(probs)) / (1 + weight)
    return mixed.clamp(min=torch.finfo(mixed.dtype).tiny)
