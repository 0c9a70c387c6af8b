"""What every pseudo-labeller does with known labels: rows, not branches."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nameonly.ops.selection import row_blocks
from nameonly.types import Features, LabelSpace, PseudoLabels

# 1 is for what is known; a softmax reaches it by rounding
BELOW_CERTAIN = 1 - 1e-6


def open_logits(
    features: Features,
    logits: Float[Tensor, "n c"],
    label_space: LabelSpace,
    given: Int[Tensor, " n"] | None = None,
) -> tuple[Float[Tensor, "n c"], Bool[Tensor, " n"]]:
    """Return the logits with impossible classes at ``-inf``, and which rows are open.

    An open row has no given label and may have any of ``label_space.targets``; the logits of the
    other rows are returned as they are.

    Raises:
        ValueError: If the logits are of other images or classes, or a given label has no class.
    """
    n, c = len(features), len(label_space)
    if logits.shape != (n, c):
        raise ValueError(f"logits are {tuple(logits.shape)}, expected {n} images x {c} classes")
    if given is None:
        is_open = torch.ones(n, dtype=torch.bool, device=logits.device)
    else:
        if given.shape != (n,) or given.min() < -1 or given.max() >= c:
            raise ValueError(
                f"given labels are {tuple(given.shape)} from {given.min().item()} to "
                f"{given.max().item()}, expected {n} of -1 to {c - 1}"
            )
        is_open = given.to(logits.device) < 0
    impossible = ~label_space.targets.to(logits.device)
    if not impossible.any():
        return logits, is_open
    return logits.masked_fill(impossible & is_open[:, None], -torch.inf), is_open


def hard_candidates(labels: Int[Tensor, " n"], c: int) -> Bool[Tensor, "n c"]:
    """Return the candidates of rows that have one label each, -1 = none."""
    candidates = torch.zeros(len(labels), c, dtype=torch.bool, device=labels.device)
    selected = labels >= 0
    candidates[selected, labels[selected]] = True
    return candidates


def with_given(
    features: Features,
    probs: Float[Tensor, "n c"],
    candidates: Bool[Tensor, "n c"],
    given: Int[Tensor, " n"] | None = None,
) -> PseudoLabels:
    """Return pseudo-labels in which given labels stand as they are, with confidence 1.

    The confidence of the others is the probability of their best candidate, or of their best class
    where they have none, below 1. The given rows of ``candidates`` are replaced; their
    probabilities stay what the model says.
    """
    if given is not None:
        given = given.to(probs.device)
        truth = hard_candidates(given, probs.shape[1])
        candidates = torch.where(given[:, None] >= 0, truth, candidates)
    labels = PseudoLabels(features.ids, probs, candidates, probs.amax(dim=1))
    selected = labels.selected.nonzero()[:, 0]
    for block in row_blocks(len(selected), probs.shape[1]):
        rows = selected[block]
        labels.confidence[rows] = probs[rows].masked_fill(~candidates[rows], 0.0).amax(dim=1)
    labels.confidence.clamp_(max=BELOW_CERTAIN)
    if given is not None:
        labels.confidence[given >= 0] = 1.0
    return labels
