"""Stage: one paper's wiring of parts.

A method is one file with one frozen dataclass. Its fields are the parts, named after their stages;
its verb ``fit`` turns a task into a scorer.
"""

from typing import Protocol, runtime_checkable

from nameonly.decisions import Decision
from nameonly.prompts import Prompts
from nameonly.task import Adapted, Task


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

    def fit(self, task: Task) -> Adapted:
        """Adapt to the unlabelled images; the recipe and its parts stay as they are."""
        ...
