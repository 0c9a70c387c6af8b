"""Choosing rows by score, the same whatever order the rows come in."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import one_hot


def log_odds(logits: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
    """Return ``log(p / (1 - p))`` of every class's softmax probability, in float64.

    It ranks as the probability does, but goes on where the probability has rounded to one.
    """
    top = logits.double().max(dim=1, keepdim=True)
    relative = logits.double() - top.values
    best = one_hot(top.indices[:, 0], logits.shape[1]).bool()
    rest = relative.exp().masked_fill(best, 0.0).sum(dim=1, keepdim=True)
    others = torch.where(best, rest, 1 + rest - relative.exp())
    return relative - others.clamp(min=torch.finfo(torch.float64).tiny).log()


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
