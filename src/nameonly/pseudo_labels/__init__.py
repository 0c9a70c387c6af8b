"""Stage: scores of unlabelled images become training labels.

A method is one file with one frozen dataclass: its fields are the hyper-parameters (the paper's
values as defaults), its one verb is ``label``. It holds no state and changes no input.
"""

from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from nameonly.types import Features, LabelSpace, PseudoLabels


@runtime_checkable
class PseudoLabeller(Protocol):
    """Chooses which labels to trust."""

    def label(
        self,
        features: Features,
        logits: Float[Tensor, "n c"],
        label_space: LabelSpace,
        given: Int[Tensor, " n"] | None = None,
    ) -> PseudoLabels:
        """Return labels for every row of ``features``.

        Args:
            features: The unlabelled images.
            logits: Scores of whatever scores them now.
            label_space: The classes, in the order of the columns.
            given: Labels that are known, -1 = none. They are kept as they are.
        """
        ...
