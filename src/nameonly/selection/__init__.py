"""Stage: run several recipes on the same features and take one, without a label.

A method is one file with one frozen dataclass; its verb ``choose`` fits recipes to a task.
"""

from typing import Protocol, runtime_checkable

from nameonly.task import Adapted, Task


@runtime_checkable
class Selection(Protocol):
    """Knows which recipes to try, and what makes one better."""

    def choose(self, task: Task) -> Adapted:
        """Return what the chosen recipe hands back, with the row of every candidate."""
        ...
