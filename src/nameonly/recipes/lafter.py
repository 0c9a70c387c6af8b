"""LaFTer: a linear head learnt from texts labels the images and learns from their views.

Paper: Mirza et al. LaFTer: Label-Free Tuning of Zero-shot Classifier using Language and Unlabeled
    Image Collections. NeurIPS 2023, arXiv 2305.18287.
Code: https://github.com/jmiemirza/LaFTer
Differs: in feature space, see ``adapters/linear_head.py``: the image tower stays as it is. The head
    learns from the images as they are; the paper's strong views are ``adapters.views=2`` (on the
    digits, which no flip leaves a digit, they lose).
"""

from dataclasses import dataclass, field

from nameonly.adapters import Adapter
from nameonly.adapters.linear_head import LinearHead
from nameonly.decisions import Decision
from nameonly.decisions.argmax import Argmax
from nameonly.learning import label_and_learn
from nameonly.prompts import Prompts
from nameonly.prompts.templates import Templates
from nameonly.pseudo_labels import PseudoLabeller
from nameonly.pseudo_labels.threshold import Threshold
from nameonly.task import Adapted, Task

__all__ = ["Lafter"]


@dataclass(frozen=True)
class Lafter:
    """All images, labelled by the head that the texts trained.

    Attributes:
        prompts: Makes each class's texts.
        pseudo_labels: Brings the given labels; the others are made by the head.
        adapters: Learns from texts, then from strong views.
        decisions: Turns logits into labels.
    """

    prompts: Prompts = field(default_factory=Templates)
    pseudo_labels: PseudoLabeller = field(default_factory=lambda: Threshold(0.0))
    adapters: Adapter = field(default_factory=LinearHead)
    decisions: Decision = field(default_factory=Argmax)

    def fit(self, task: Task) -> Adapted:
        """Return the trained head and the labels it learnt from."""
        return label_and_learn(task, self.pseudo_labels, self.adapters)
