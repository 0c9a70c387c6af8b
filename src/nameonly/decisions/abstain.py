"""The most probable class, or none below a threshold or where no name fits.

Paper: Chow. On Optimum Recognition Error and Reject Tradeoff. IEEE Transactions on Information
    Theory, 1970. Maximum softmax probability as the score: Hendrycks, Gimpel,
    2017, arXiv 1610.02136. Energy: Liu et al., NeurIPS 2020, arXiv 2010.03759, eq. 4.
Differs: the probability is at the classifier's temperature, where its mean is the estimated
    accuracy; the bound of the energy is set by the unlabelled images, in robust deviations.
"""

from dataclasses import dataclass, field
from math import inf

from jaxtyping import Float, Int
from torch import Tensor

from nameonly.ops.outliers import robust_bound
from nameonly.types import Features

__all__ = ["Abstain"]


@dataclass
class Abstain:
    """Answers where the top probability reaches the threshold and the energy is not far off.

    Attributes:
        threshold: Least top probability, in [0, 1].
        deviations: An image whose energy lies so many robust standard deviations above the median
            is taken to show none of the classes; 0 for no such bound, 2.5 is usual.
    """

    threshold: float = 0.5
    deviations: float = 0.0

    energy_: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0.0 <= self.threshold <= 1.0:
            raise ValueError(f"threshold must lie in [0, 1], got {self.threshold}")
        if self.deviations < 0:
            raise ValueError(f"deviations must be at least 0, got {self.deviations}")
        self.energy_ = inf

    def fit(self, logits: Float[Tensor, "n c"], features: Features | None = None) -> "Abstain":
        """Learn the highest energy that an image may have."""
        self.energy_ = inf
        if self.deviations and len(logits):
            self.energy_ = robust_bound(-logits.logsumexp(dim=1), self.deviations)
        return self

    def decide(
        self, logits: Float[Tensor, "n c"], features: Features | None = None
    ) -> Int[Tensor, " n"]:
        """Return the column of the highest logit, -1 where it is not sure enough."""
        confidence, labels = logits.softmax(dim=1).max(dim=1)
        unsure = (confidence < self.threshold) | (-logits.logsumexp(dim=1) > self.energy_)
        return labels.masked_fill(unsure, -1)
