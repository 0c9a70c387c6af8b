"""Votes of a labelled set for the classes of an image."""

import torch
from jaxtyping import Float
from torch import Tensor


def cache_votes(
    values: Float[Tensor, "n d"],
    keys: Float[Tensor, "m d"],
    labels: Float[Tensor, "m c"],
    sharpness: float,
) -> Float[Tensor, "n c"]:
    """Return ``exp(-beta (1 - f F^T)) L``: every key votes for its classes, near ones louder.

    Source: Tip-Adapter, arXiv 2111.03930, equation 5.

    Args:
        values: Unit features to score.
        keys: Features of the cache.
        labels: Its class probabilities, dense or sparse.
        sharpness: beta.
    """
    affinity = (sharpness * (values @ keys.T - 1)).exp()
    # a row of labels has one or few classes: sparse, the votes cost n m and not n m c
    sparse = labels if labels.is_sparse else labels.to_sparse()
    votes: Tensor = torch.sparse.mm(sparse.T, affinity.T)
    return votes.T
