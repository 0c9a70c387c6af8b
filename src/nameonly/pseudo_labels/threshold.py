"""Pseudo-labels above a confidence threshold.

Paper: Sohn et al. FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence.
    NeurIPS 2020, arXiv 2001.07685, section 2.2.
Code: https://github.com/google-research/fixmatch
Differs: the rule alone, applied to all images at once rather than to every batch of a network in
    training. One threshold for all classes, as there; it is a probability, so how many images pass
    depends on how sharp the scores are, and it may be none.
"""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from nameonly.ops.labelling import hard_candidates, open_logits, with_given
from nameonly.types import Features, LabelSpace, PseudoLabels

__all__ = ["Threshold"]


@dataclass(frozen=True)
class Threshold:
    """Keeps every image whose top probability reaches a threshold, with that class as its label.

    Attributes:
        threshold: Least top probability, in [0, 1].
    """

    threshold: float = 0.95

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold is a probability from 0 to 1, got {self.threshold}")

    def label(
        self,
        features: Features,
        logits: Float[Tensor, "n c"],
        label_space: LabelSpace,
        given: Int[Tensor, " n"] | None = None,
    ) -> PseudoLabels:
        """Return pseudo-labels of the images that reach the threshold.

        Images with a given label keep it, however low their probability. Memory: O(n c) for the
        probabilities and the mask.

        Raises:
            ValueError: If the logits are of other images or classes.
        """
        logits, _ = open_logits(features, logits, label_space, given)
        probs = logits.softmax(dim=1)
        top = probs.max(dim=1)
        labels = top.indices.masked_fill(top.values < self.threshold, -1)
        return with_given(features, probs, hard_candidates(labels, len(label_space)), given)
