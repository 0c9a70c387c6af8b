"""Optimal transport: labels whose class shares are fixed beforehand.

Paper: Asano, Rupprecht, Vedaldi. Self-Labelling via Simultaneous Clustering and Representation
    Learning. ICLR 2020, arXiv 1911.05371, section 3.1; solved as in Cuturi, Sinkhorn Distances.
    NeurIPS 2013, arXiv 1306.0895. The estimated prior: Saerens, Latinne, Decaestecker. Adjusting
    the Outputs of a Classifier to New a Priori Probabilities. Neural Computation 2002.
Code: https://github.com/yukimasano/self-label, https://github.com/facebookresearch/swav
Differs: names give the classes, so nothing is clustered. The entropic temperature is in units of
    the spread of the logits, one fixed setting for every logit scale (1/25 of a log-probability in
    the paper, 0.05 of a cosine in SwAV, arXiv 2006.09882). Sinkhorn runs in logarithms and float64
    until the class shares are within a tolerance, where SwAV takes 3 iterations; it warns if they
    are not. The soft label is the plan, as in SwAV, the hard one its largest class, as in the
    paper. An estimated prior is offered because equal shares are wrong where classes are not
    equally frequent; EM takes the scores at their word, so overconfident ones hardly move it.
"""

import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nameonly.ops.labelling import hard_candidates, open_logits, with_given
from nameonly.ops.prototypes import spread
from nameonly.ops.selection import row_blocks
from nameonly.types import Features, LabelSpace, PseudoLabels

__all__ = ["OptimalTransport"]

# The rows of a matrix in float64, a few at a time: all of them at once need not fit in memory
Blocks = Callable[[], Iterable[Float[Tensor, "b c"]]]
LEAST_SPREAD = 1e-6
INDIFFERENT = 1e-6


def class_shares(
    blocks: Blocks, offsets: Float[Tensor, " c"], temperature: float
) -> Float[Tensor, " c"]:
    """Return the mean over rows of ``softmax(logits / temperature + offsets)``."""
    sums, n = torch.zeros_like(offsets), 0
    for logits in blocks():
        sums += (logits / temperature + offsets).softmax(dim=1).sum(dim=0)
        n += len(logits)
    return sums / n


def distance(shares: Float[Tensor, " c"], prior: Float[Tensor, " c"]) -> float:
    """Return the share of images that would have to change their class (total variation)."""
    return (shares - prior).abs().sum().item() / 2


def estimate_prior(
    blocks: Blocks, start: Float[Tensor, " c"], iterations: int, tolerance: float
) -> Float[Tensor, " c"]:
    """Return the class prior under which the logits are most likely, by EM.

    The logits are taken as log-likelihoods of the classes, up to a constant of each row; every
    iteration makes the prior the mean posterior. It stops when that moves less than ``tolerance``
    of the images.
    """
    prior = start
    for _ in range(iterations):
        before, prior = prior, class_shares(blocks, prior.log(), 1.0)
        if distance(before, prior) <= tolerance:
            break
    return prior


def balance(
    blocks: Blocks,
    prior: Float[Tensor, " c"],
    temperature: float,
    iterations: int,
    tolerance: float,
) -> tuple[Float[Tensor, " c"], float]:
    """Return the class offsets under which the class shares are the prior, by Sinkhorn's iteration.

    ``softmax(logits / temperature + offsets)`` is then the plan, n times, that gives every image
    the same weight and every class its share, and maximises ``<plan, logits>`` plus temperature
    times entropy.

    Returns:
        The offsets, and how far from the prior the class shares are.
    """
    offsets = torch.zeros_like(prior)
    shares = class_shares(blocks, offsets, temperature)
    for _ in range(iterations):
        if distance(shares, prior) <= tolerance:
            break
        # a share that rounded to nothing grows by hundreds of nats until it shows
        tiny = torch.finfo(shares.dtype).tiny
        offsets = offsets + prior.log() - shares.clamp(min=tiny).log()
        shares = class_shares(blocks, offsets, temperature)
    return offsets, distance(shares, prior)


def spread_of(blocks: Blocks) -> float:
    """Return the spread of all rows, see :func:`nameonly.ops.prototypes.spread`."""
    parts = [(spread(logits).item() ** 2, len(logits)) for logits in blocks()]
    return math.sqrt(sum(square * n for square, n in parts) / sum(n for _, n in parts))


def largest(plan: Float[Tensor, "b c"], logits: Float[Tensor, "b c"]) -> Int[Tensor, " b"]:
    """Return the largest class of every row, by the logits where the plan cannot decide.

    Images that are all alike share every class: what is largest then is a matter of rounding.
    """
    least = (1 - INDIFFERENT) * plan.max(dim=1, keepdim=True).values
    return logits.masked_fill(plan < least, -torch.inf).argmax(dim=1)


@dataclass(frozen=True)
class OptimalTransport:
    """Shares the images out among the classes at the least loss of probability.

    Attributes:
        prior: Share of each class among the images without a given label: ``"balanced"`` for equal
            shares, ``"estimated"`` by EM from the scores themselves.
        temperature: Weight of the plan's entropy, in units of the spread of the logits. Small makes
            labels hard and their counts those of the prior, large leaves them soft.
        iterations: Most passes over the images for the plan, and for the prior.
        tolerance: Share of images by which the class shares may miss the prior.
        threshold: Least probability in the plan of an image that gets a label.
    """

    prior: Literal["balanced", "estimated"] = "balanced"
    temperature: float = 0.1
    iterations: int = 1000
    tolerance: float = 1e-3
    threshold: float = 0.0

    def __post_init__(self) -> None:
        for name in ("temperature", "iterations", "tolerance"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold is a probability from 0 to 1, got {self.threshold}")

    def label(
        self,
        features: Features,
        logits: Float[Tensor, "n c"],
        label_space: LabelSpace,
        given: Int[Tensor, " n"] | None = None,
    ) -> PseudoLabels:
        """Return the plan as probabilities and its largest class as the label of every open image.

        Images with a given label have no part in the plan. Memory: O(n c) for the probabilities
        and the mask, and a block of rows; time: O(n c) for every iteration.

        Raises:
            ValueError: If the logits are of other images or classes.

        Warns:
            RuntimeWarning: If the class shares still miss the prior after all iterations.
        """
        logits, is_open = open_logits(features, logits, label_space, given)
        targets = label_space.targets.to(logits.device).nonzero()[:, 0]
        order = features.content_order().to(logits.device)
        order = order[is_open[order]]
        parts = [order[rows] for rows in row_blocks(len(order), len(targets))]

        def blocks() -> Iterable[Float[Tensor, "b c"]]:
            return (logits[rows][:, targets].double() for rows in parts)

        probs = logits.softmax(dim=1)
        labels = torch.full_like(is_open, -1, dtype=torch.long)
        if len(order):
            temperature = self.temperature * max(spread_of(blocks), LEAST_SPREAD)
            offsets = self._offsets(blocks, targets, temperature)
            for rows, block in zip(parts, blocks(), strict=True):
                plan = (block / temperature + offsets).softmax(dim=1)
                probs[rows[:, None], targets] = plan.to(probs.dtype)
                kept = plan.max(dim=1).values >= self.threshold
                labels[rows] = torch.where(kept, targets[largest(plan, block)], -1)
        return with_given(features, probs, hard_candidates(labels, len(label_space)), given)

    def _offsets(
        self, blocks: Blocks, targets: Int[Tensor, " t"], temperature: float
    ) -> Float[Tensor, " t"]:
        prior = torch.ones_like(targets, dtype=torch.float64) / len(targets)
        if self.prior == "estimated":
            prior = estimate_prior(blocks, prior, self.iterations, self.tolerance)
        offsets, gap = balance(blocks, prior, temperature, self.iterations, self.tolerance)
        if gap > self.tolerance:
            warnings.warn(
                f"the class shares miss the prior by {gap:.1e} of the images after "
                f"{self.iterations} iterations; raise iterations, tolerance or temperature",
                RuntimeWarning,
                stacklevel=3,
            )
        return offsets
