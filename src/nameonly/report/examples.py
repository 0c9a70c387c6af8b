"""Which classes and which images the page shows, since it cannot show all."""

import numpy as np
from jaxtyping import Float, Int


def largest_classes(counts: Int[np.ndarray, " c"], limit: int) -> list[int]:
    """Return the classes with most images, ties in column order.

    When all classes fit they are all there, empty ones too; otherwise empty ones are left out.
    """
    order = np.argsort(-counts, kind="stable")[:limit]
    if len(counts) > limit:
        order = order[counts[order] > 0]
    return [int(index) for index in order]


def extreme_rows(
    rows: Int[np.ndarray, " m"], probs: Float[np.ndarray, " n"], per_side: int
) -> tuple[list[int], list[int]]:
    """Return the most and the least confident of some rows; no row stands on both sides.

    Args:
        rows: The rows to choose from.
        probs: Probability of every image's answer.
        per_side: How many rows each side has at most; the most confident are served first.

    Returns:
        The most confident rows, the highest first, and the least confident, the lowest first.
    """
    order = rows[np.lexsort((rows, -probs[rows]))]
    most, rest = order[:per_side], order[per_side:]
    least = rest[::-1][:per_side]
    return [int(row) for row in most], [int(row) for row in least]


def spread_rows(
    groups: list[Int[np.ndarray, " _"]], probs: Float[np.ndarray, " n"], limit: int
) -> list[int]:
    """Take rows from the groups in turn, each group's most confident first, until ``limit``.

    Args:
        groups: Rows of each group; earlier groups are served first in every round.
        probs: Probability of every image's answer.
        limit: Most rows to take.

    Returns:
        The rows taken, those of one group side by side, groups in the order given.
    """
    ordered = [rows[np.lexsort((rows, -probs[rows]))] for rows in groups]
    takes = [0] * len(ordered)
    left = limit
    while left > 0 and any(take < len(rows) for take, rows in zip(takes, ordered, strict=True)):
        for index, rows in enumerate(ordered):
            if left > 0 and takes[index] < len(rows):
                takes[index] += 1
                left -= 1
    return [int(row) for take, rows in zip(takes, ordered, strict=True) for row in rows[:take]]
