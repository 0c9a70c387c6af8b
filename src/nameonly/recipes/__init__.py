"""Stage: one paper's wiring of parts.

A method is one file with one frozen dataclass. Its fields are the parts, named after their stages;
its verb ``fit`` turns features and the zero-shot classifier into a scorer.
"""

from typing import Protocol, runtime_checkable

from jaxtyping import Int
from torch import Tensor

from nameonly.decisions import Decision
from nameonly.prompts import Prompts
from nameonly.types import Adapted, Features, LabelSpace, TextClassifier


@runtime_checkable
class Recipe(Protocol):
    """Parts and how they follow each other."""

    @property
    def prompts(self) -> Prompts:
        """Makes each class's texts."""
        ...

    @property
    def decisions(self) -> Decision:
        """Turns the scorer's logits into labels."""
        ...

    def fit(
        self,
        features: Features,
        text: TextClassifier,
        label_space: LabelSpace,
        given: Int[Tensor, " n"] | None = None,
    ) -> Adapted:
        """Adapt to the unlabelled features; the recipe and its parts stay as they are."""
        ...
