"""Losses of logits and targets."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import log_softmax


def partial_label_loss(
    logits: Float[Tensor, "b c"],
    targets: Float[Tensor, "b c"],
    weights: Float[Tensor, " b"] | None = None,
) -> Float[Tensor, ""]:
    """Return the mean of ``-w log sum_j y_j softmax_j``.

    For one-hot targets this is cross-entropy; for a candidate set (several ones) the set as a whole
    is to be probable; soft targets weigh its members. Source: CPL, arXiv 2406.10502, section 4.

    Args:
        logits: Before softmax.
        targets: y, non-negative; every row has a positive entry.
        weights: w; 1 for every row where None.
    """
    hidden = log_softmax(logits, dim=1) + targets.log()
    losses = -hidden.logsumexp(dim=1)
    return losses.mean() if weights is None else (weights * losses).mean()
