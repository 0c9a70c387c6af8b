"""Choosing rows by score, the same whatever order the rows come in."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def top_k_mask(
    scores: Float[Tensor, "n c"], k: int, order: Int[Tensor, " n"] | None = None
) -> Bool[Tensor, "n c"]:
    """Mark the ``k`` best rows of every column; rows scored ``-inf`` are never marked.

    Works column by column, so its memory beyond the mask is O(n).

    Args:
        scores: Larger is better.
        k: Rows to mark; all finite ones where there are fewer.
        order: Rows in the order that breaks ties (the earlier wins); row order if None.
    """
    n, c = scores.shape
    order = torch.arange(n, device=scores.device) if order is None else order.to(scores.device)
    mask = torch.zeros_like(scores, dtype=torch.bool)
    for j in range(c):
        column = scores[order, j]
        ranked = torch.sort(column, descending=True, stable=True).indices[: min(k, n)]
        mask[order[ranked], j] = column[ranked] > -torch.inf
    return mask
