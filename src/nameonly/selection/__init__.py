"""Stage: try recipes, prompts and backbones on the same images and take one, without a label.

A method is one file with one frozen dataclass; its verb ``choose`` fits candidates to a task.
"""

from typing import Protocol, runtime_checkable

from nameonly.prompts import Prompts
from nameonly.task import Adapted, Task


@runtime_checkable
class Selection(Protocol):
    """Knows what to try, and what makes one better."""

    def choose(self, task: Task, prompts: Prompts) -> Adapted:
        """Return what the chosen recipe hands back, with its task and the row of every candidate.

        Args:
            task: What to label.
            prompts: Those that the task's text classifier was made with.
        """
        ...
