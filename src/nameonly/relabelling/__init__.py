"""Stage: label, learn, label again with what was learnt.

A method is one file with one frozen dataclass; its verb ``run`` takes a labeller and a learner.
"""

from typing import Protocol, runtime_checkable

from nameonly.learning import Learner
from nameonly.pseudo_labels import PseudoLabeller
from nameonly.task import Adapted, Task


@runtime_checkable
class Relabelling(Protocol):
    """Decides how often, and how many images each round may label."""

    def run(self, task: Task, labeller: PseudoLabeller, learner: Learner) -> Adapted:
        """Return what the last round learnt; labeller and learner stay as they are."""
        ...
