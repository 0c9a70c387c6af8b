"""Two classifiers that score as one."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from nameonly.ops.mixing import mix_probs
from nameonly.types import Features, Scorer


@dataclass(frozen=True)
class MixedScorer:
    """Scores by the mean of two classifiers' probabilities.

    Attributes:
        first: One of them.
        second: The other; it reads the same features.
        weight: Of the second against the first.
    """

    first: Scorer
    second: Scorer
    weight: float = 1.0

    def predict_logits(self, features: Features) -> Float[Tensor, "n c"]:
        """Return logarithms of the mixed probabilities.

        Raises:
            ValueError: If the weight is negative, or see the classifiers.
        """
        first, second = (
            scorer.predict_logits(features).softmax(dim=1) for scorer in (self.first, self.second)
        )
        return mix_probs(first, second, self.weight).log()
