"""Zero-shot: the backbone and the class names, nothing learnt.

Paper: Radford et al. Learning Transferable Visual Models From Natural Language Supervision.
    ICML 2021, arXiv 2103.00020, section 3.1.
Differs: nothing.
"""

from dataclasses import dataclass, field

from nameonly.decisions import Decision
from nameonly.decisions.argmax import Argmax
from nameonly.prompts import Prompts
from nameonly.prompts.templates import Templates
from nameonly.task import Adapted, Task

__all__ = ["ZeroShot"]


@dataclass(frozen=True)
class ZeroShot:
    """Scores images by their similarity with the class texts.

    Attributes:
        prompts: Makes each class's texts.
        decisions: Turns logits into labels.
    """

    prompts: Prompts = field(default_factory=Templates)
    decisions: Decision = field(default_factory=Argmax)

    def fit(self, task: Task) -> Adapted:
        """Return the text classifier as it is."""
        return Adapted(task.text)
