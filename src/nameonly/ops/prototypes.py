"""Class prototypes: mean unit features, and similarities put on a common scale."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize


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
    sums = weights.to(values.dtype).T @ values
    empty = weights.sum(dim=0) <= 0
    return normalize(sums.masked_fill(empty[:, None], 0.0) + fallback * empty[:, None], dim=1)


def spread(scores: Float[Tensor, "n c"]) -> Float[Tensor, ""]:
    """Return the standard deviation of scores after every row's mean is taken off.

    What all classes of an image share moves no softmax; what is left is the scale on which the
    classes compete. One class has no competition: its spread is zero.
    """
    centred = scores - scores.mean(dim=1, keepdim=True)
    return centred.pow(2).mean().sqrt()
