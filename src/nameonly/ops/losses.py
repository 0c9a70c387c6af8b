"""Losses of logits and targets."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import log_softmax


def partial_label_loss(
    logits: Float[Tensor, "b c"], targets: Float[Tensor, "b c"]
) -> Float[Tensor, ""]:
    """Return the mean of ``-log sum_j y_j softmax_j``.

    For one-hot targets this is cross-entropy; for a candidate set (several ones) the set as a whole
    is to be probable; soft targets weigh its members. Source: CPL, arXiv 2406.10502, section 4.

    Args:
        logits: Before softmax.
        targets: y, non-negative; every row has a positive entry.
    """
    hidden = log_softmax(logits, dim=1) + targets.log()
    return -hidden.logsumexp(dim=1).mean()
