"""Stage: logits become a label for each image, or none (-1).

A method is one file with one dataclass: fields are hyper-parameters, ``fit`` looks at the
unlabelled logits where the rule needs them and returns self, ``decide`` gives the labels.
"""

from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from nameonly.types import Features


@runtime_checkable
class Decision(Protocol):
    """Turns logits into labels."""

    def fit(self, logits: Float[Tensor, "n c"], features: Features | None = None) -> "Decision":
        """Learn what the rule needs from unlabelled logits; most rules need nothing."""
        ...

    def decide(
        self, logits: Float[Tensor, "n c"], features: Features | None = None
    ) -> Int[Tensor, " n"]:
        """Return a class index per image, -1 where the rule abstains."""
        ...
