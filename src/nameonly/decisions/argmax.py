"""The most probable class.

Paper: Bayes decision rule under equal costs; Duda, Hart, Stork. Pattern Classification. 2001,
    section 2.2.
Differs: nothing.
"""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from nameonly.types import Features

__all__ = ["Argmax"]


@dataclass(frozen=True)
class Argmax:
    """Always answers."""

    def fit(self, logits: Float[Tensor, "n c"], features: Features | None = None) -> "Argmax":
        """Learn nothing."""
        return self

    def decide(
        self, logits: Float[Tensor, "n c"], features: Features | None = None
    ) -> Int[Tensor, " n"]:
        """Return the column of the highest logit."""
        return logits.argmax(dim=1)
