"""Several recipes on the same images; the one whose labels cluster best is taken.

Paper: see ``selection/silhouette.py``.
Differs: no paper's recipe.
"""

from dataclasses import dataclass, field

from nameonly.decisions import Decision
from nameonly.decisions.argmax import Argmax
from nameonly.prompts import Prompts
from nameonly.prompts.templates import Templates
from nameonly.selection import Selection
from nameonly.selection.silhouette import Silhouette
from nameonly.task import Adapted, Task

__all__ = ["Auto"]


@dataclass(frozen=True)
class Auto:
    """Tries recipes without a label and takes one.

    Attributes:
        prompts: Makes each class's texts, for all of them.
        selection: Which recipes are tried, and how one is chosen.
        decisions: Turns the chosen one's logits into labels.
    """

    prompts: Prompts = field(default_factory=Templates)
    selection: Selection = field(default_factory=Silhouette)
    decisions: Decision = field(default_factory=Argmax)

    def fit(self, task: Task) -> Adapted:
        """Return what the chosen recipe hands back."""
        return self.selection.choose(task, self.prompts)
