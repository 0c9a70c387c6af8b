"""ZLaP: labels run over a graph of images and class texts.

Paper: Stojnić, Kalantidis, Tolias. Label Propagation for Zero-shot Classification with
    Vision-Language Models. CVPR 2024, arXiv 2404.04072.
Code: https://github.com/vladan-stojnic/ZLaP
Differs: see ``pseudo_labels/label_propagation.py``. The labels of the run are the propagated ones;
    the saved classifier scores a new image by the propagated labels of its nearest images.
"""

from dataclasses import dataclass, field, replace

import torch

from nameonly.adapters import Adapter
from nameonly.adapters.k_nearest import KNearest
from nameonly.decisions import Decision
from nameonly.decisions.argmax import Argmax
from nameonly.learning import learn
from nameonly.prompts import Prompts
from nameonly.prompts.templates import Templates
from nameonly.pseudo_labels import PseudoLabeller
from nameonly.pseudo_labels.label_propagation import LabelPropagation
from nameonly.task import Adapted, Task

__all__ = ["Zlap"]


@dataclass(frozen=True)
class Zlap:
    """Propagates once, and keeps what it said of the images.

    Attributes:
        prompts: Makes each class's texts.
        pseudo_labels: Propagates the labels.
        adapters: Scores new images by them.
        decisions: Turns logits into labels.
    """

    prompts: Prompts = field(default_factory=Templates)
    pseudo_labels: PseudoLabeller = field(default_factory=LabelPropagation)
    adapters: Adapter = field(default_factory=KNearest)
    decisions: Decision = field(default_factory=Argmax)

    def fit(self, task: Task) -> Adapted:
        """Return the propagated scores of the images, and a scorer of new ones."""
        logits = task.start_logits()
        labels = self.pseudo_labels.label(task.features, logits, task.label_space, task.given)
        scores = labels.probs.clamp(min=torch.finfo(labels.probs.dtype).tiny).log()
        return replace(learn(task, self.adapters, labels), logits=scores)
