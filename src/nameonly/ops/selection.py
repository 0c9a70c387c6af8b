"""Choosing rows by score, the same whatever order the rows come in."""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Bool, Float, Float64, Int, Shaped
from torch import Tensor
from torch.nn.functional import one_hot


def row_blocks(n: int, c: int) -> list[slice]:
    """Return slices that cover ``n`` rows, each of about half a million scores of ``c`` classes.

    There is at least one, and an empty one where there is no row.
    """
    size = max(1, 2**19 // max(1, c))
    return [slice(start, start + size) for start in range(0, max(1, n), size)]


def filled(
    values: Shaped[Tensor, " n"], blocks: Iterator[tuple[slice, Shaped[Tensor, " b"]]]
) -> Shaped[Tensor, " n"]:
    """Return a vector with its blocks put in as they come.

    Were they kept in a list they would lie between the scores they are made of, and malloc could
    not use the room of these again: memory would grow as if all scores were held.
    """
    for rows, block in blocks:
        values[rows] = block
        del block
    return values


def log_odds(
    logits: Float[Tensor, "n c"], dtype: torch.dtype = torch.float64
) -> Float[Tensor, "n c"]:
    """Return ``log(p / (1 - p))`` of every class's softmax probability.

    It ranks as the probability does, but goes on where the probability has rounded to one. It is
    computed in float64 and in blocks of rows: no memory beyond the result grows with n.

    Args:
        logits: Scores before the softmax.
        dtype: Of the result.
    """
    result = torch.empty(logits.shape, dtype=dtype, device=logits.device)
    for rows in row_blocks(*logits.shape):
        top = logits[rows].double().max(dim=1, keepdim=True)
        relative = logits[rows].double() - top.values
        best = one_hot(top.indices[:, 0], logits.shape[1]).bool()
        rest = relative.exp().masked_fill(best, 0.0).sum(dim=1, keepdim=True)
        others = torch.where(best, rest, 1 + rest - relative.exp())
        result[rows] = relative - others.clamp(min=torch.finfo(torch.float64).tiny).log()
    return result


def top_log_odds(logits: Float[Tensor, "n c"]) -> tuple[Float64[Tensor, " n"], Int[Tensor, " n"]]:
    """Return the log-odds of every row's most probable class, and that class.

    The same as the largest of ``log_odds``, in memory O(n).
    """
    odds = torch.empty(len(logits), dtype=torch.float64, device=logits.device)
    classes = torch.empty(len(logits), dtype=torch.long, device=logits.device)
    for rows in row_blocks(*logits.shape):
        top = logits[rows].max(dim=1)
        relative = logits[rows].double() - top.values[:, None]
        rest = relative.scatter_(1, top.indices[:, None], -torch.inf).exp_().sum(dim=1)
        odds[rows] = -rest.clamp(min=torch.finfo(torch.float64).tiny).log()
        classes[rows] = top.indices
    return odds, classes


def top_k_of_each(
    scores: Float[Tensor, " n"],
    classes: Int[Tensor, " n"],
    k: int,
    tie_order: Callable[[], Int[Tensor, " n"]] | None = None,
) -> Bool[Tensor, " n"]:
    """Mark the ``k`` best rows of every class, where a row has one class.

    Args:
        scores: Larger is better; rows scored ``-inf`` are never marked.
        classes: Class of every row.
        k: Rows to mark in a class; all finite ones where there are fewer.
        tie_order: Gives the rows in the order that breaks ties (the earlier wins), and is asked
            only where a tie decides; row order if None.
    """
    mask, undecided = _best_of_each(scores, classes, k, torch.arange(len(scores)))
    if undecided and tie_order is not None:
        mask, _ = _best_of_each(scores, classes, k, tie_order())
    return mask


def _best_of_each(
    scores: Float[Tensor, " n"], classes: Int[Tensor, " n"], k: int, order: Int[Tensor, " n"]
) -> tuple[Bool[Tensor, " n"], bool]:
    """Mark the best rows, and tell whether one left out scored as much as one marked."""
    order = order.to(scores.device)
    order = order[torch.sort(scores[order], descending=True, stable=True).indices]
    order = order[torch.sort(classes[order], stable=True).indices]  # by class, then by score
    counts = torch.bincount(classes)
    place = torch.arange(len(order), device=order.device) - (
        (counts.cumsum(0) - counts).repeat_interleave(counts)
    )
    mask = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    mask[order] = (place < k) & (scores[order] > -torch.inf)
    left = (place == k).nonzero()[:, 0]
    beside, last = scores[order[left]], scores[order[left - 1]]
    return mask, bool(((beside == last) & (last > -torch.inf)).any())


def top_k_mask(
    scores: Float[Tensor, "n c"],
    k: int,
    tie_order: Callable[[], Int[Tensor, " n"]] | None = None,
) -> Bool[Tensor, "n c"]:
    """Mark the ``k`` best rows of every column; rows scored ``-inf`` are never marked.

    Works column by column, so its memory beyond the mask is O(n).

    Args:
        scores: Larger is better.
        k: Rows to mark; all finite ones where there are fewer.
        tie_order: Gives the rows in the order that breaks ties (the earlier wins), and is asked
            only where a tie decides; row order if None.
    """
    n, c = scores.shape
    mask = torch.zeros_like(scores, dtype=torch.bool)
    for j in range(c):
        column = scores[:, j]
        best = column.topk(min(k + 1, n))
        least = best.values[k - 1] if k < n else column.new_tensor(-torch.inf)
        if k < n and best.values[k] == least > -torch.inf:
            order = torch.arange(n) if tie_order is None else tie_order()
            order = order.to(scores.device)
            ranked = order[torch.sort(column[order], descending=True, stable=True).indices[:k]]
        else:
            ranked = best.indices[:k]
        mask[ranked, j] = column[ranked] > -torch.inf
    return mask
