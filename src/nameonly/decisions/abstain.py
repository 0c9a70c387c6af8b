"""The most probable class, or none below a threshold.

Paper: Chow. On Optimum Recognition Error and Reject Tradeoff. IEEE Transactions on Information
    Theory, 1970. Maximum softmax probability as the score: Hendrycks, Gimpel,
    2017, arXiv 1610.02136.
Differs: the probability is the model's own, uncalibrated; the threshold is a fixed number.
"""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from nameonly.types import Features

__all__ = ["Abstain"]


@dataclass(frozen=True)
class Abstain:
    """Answers where the top probability reaches the threshold.

    Attributes:
        threshold: Least top probability, in [0, 1].
    """

    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 <= self.threshold <= 1.0:
            raise ValueError(f"threshold must lie in [0, 1], got {self.threshold}")

    def fit(self, logits: Float[Tensor, "n c"], features: Features | None = None) -> "Abstain":
        """Learn nothing."""
        return self

    def decide(
        self, logits: Float[Tensor, "n c"], features: Features | None = None
    ) -> Int[Tensor, " n"]:
        """Return the column of the highest logit, -1 where its probability is too low."""
        confidence, labels = logits.softmax(dim=1).max(dim=1)
        return labels.masked_fill(confidence < self.threshold, -1)
