"""Stage: a classifier in feature space, fitted without gradients through the backbone.

A method is one file with one dataclass in the manner of scikit-learn: fields are hyper-parameters,
``fit`` returns self and writes only names that end in an underscore, ``predict_logits`` scores.
"""

from typing import ClassVar, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from nameonly.types import Features, PseudoLabels, TextClassifier


@runtime_checkable
class Adapter(Protocol):
    """Refines the zero-shot classifier with the geometry of the unlabelled features."""

    transductive: ClassVar[bool]

    def fit(
        self, features: Features, text: TextClassifier, pseudo_labels: PseudoLabels
    ) -> "Adapter":
        """Learn from the unlabelled features; a second call forgets the first."""
        ...

    def predict_logits(self, features: Features) -> Float[Tensor, "n c"]:
        """Score features; a transductive adapter accepts only those it was fitted on."""
        ...
