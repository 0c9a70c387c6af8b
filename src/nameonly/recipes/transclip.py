"""TransCLIP: text, class Gaussians and neighbours label all images at once.

Paper: Zanella, Gérin, Ben Ayed. Boosting Vision-Language Models with Transduction. NeurIPS 2024,
    arXiv 2406.01837.
Code: https://github.com/MaxZanella/transduction-for-vlms
Differs: see ``adapters/transclip.py``. The labels of the run are transductive; the saved classifier
    scores new images by text and Gaussians.
"""

from dataclasses import dataclass, field

from nameonly.adapters import Adapter
from nameonly.adapters.transclip import TransClip
from nameonly.decisions import Decision
from nameonly.decisions.argmax import Argmax
from nameonly.learning import label_and_learn
from nameonly.prompts import Prompts
from nameonly.prompts.templates import Templates
from nameonly.pseudo_labels import PseudoLabeller
from nameonly.pseudo_labels.top_k_per_class import TopKPerClass
from nameonly.task import Adapted, Task

__all__ = ["TransClipRecipe"]


@dataclass(frozen=True)
class TransClipRecipe:
    """Eight images a class start the Gaussians.

    Attributes:
        prompts: Makes each class's texts.
        pseudo_labels: Chooses the images that the means start from.
        adapters: Alternates between labels and Gaussians.
        decisions: Turns logits into labels.
    """

    prompts: Prompts = field(default_factory=Templates)
    pseudo_labels: PseudoLabeller = field(default_factory=lambda: TopKPerClass(8, by="column"))
    adapters: Adapter = field(default_factory=TransClip)
    decisions: Decision = field(default_factory=Argmax)

    def fit(self, task: Task) -> Adapted:
        """Return the fitted Gaussians and the labels they learnt from."""
        return label_and_learn(task, self.pseudo_labels, self.adapters)
