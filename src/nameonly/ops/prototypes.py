"""Class prototypes: mean unit features, and similarities put on a common scale."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from nameonly.types import PseudoLabels

# values held at once; among many classes fewer rows would cost more in sums than in products
BLOCK_VALUES, LEAST_ROWS = 2**22, 512


def class_prototypes(
    values: Float[Tensor, "n d"],
    weights: Float[Tensor, "n c"],
    fallback: Float[Tensor, "c d"],
) -> Float[Tensor, "c d"]:
    """Return the unit mean of every class's rows.

    Args:
        values: Unit features.
        weights: How much each row counts for each class, non-negative.
        fallback: Unit rows for the classes that no row counts for.
    """
    return _unit(weights.to(values.dtype).T @ values, weights.sum(dim=0) <= 0, fallback)


def labelled_prototypes(
    values: Float[Tensor, "n d"],
    labels: PseudoLabels,
    rows: Int[Tensor, " m"],
    fallback: Float[Tensor, "c d"],
) -> Float[Tensor, "c d"]:
    """Return ``class_prototypes`` of chosen rows by the targets of their pseudo-labels.

    Memory beyond the result: a block of rows.

    Args:
        values: Unit features of all images.
        labels: Of the same images.
        rows: Those that count, in the order in which they are summed.
        fallback: Unit rows for the classes that no row counts for.
    """
    sums, counts = values.new_zeros(fallback.shape), values.new_zeros(len(fallback))
    size = max(LEAST_ROWS, BLOCK_VALUES // max(fallback.shape))
    for block in torch.split(rows, size):
        weights = labels.targets_of(block).to(values.dtype)
        sums += weights.T @ values[block]
        counts += weights.sum(dim=0)
    return _unit(sums, counts <= 0, fallback)


def _unit(
    sums: Float[Tensor, "c d"], empty: Bool[Tensor, " c"], fallback: Float[Tensor, "c d"]
) -> Float[Tensor, "c d"]:
    return normalize(sums.masked_fill(empty[:, None], 0.0) + fallback * empty[:, None], dim=1)


def spread(scores: Float[Tensor, "n c"]) -> Float[Tensor, ""]:
    """Return the standard deviation of scores after every row's mean is taken off.

    What all classes of an image share moves no softmax; what is left is the scale on which the
    classes compete. One class has no competition: its spread is zero.
    """
    centred = scores - scores.mean(dim=1, keepdim=True)
    return centred.pow(2).mean().sqrt()
