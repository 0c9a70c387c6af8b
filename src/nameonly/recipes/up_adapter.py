"""UP-Adapter: pseudo-label the most confident images of each class, adapt prototypes on them.

Paper: Zhang et al. UP-Adapter: Unsupervised Prototype Adapter for Vision-Language Models.
    PRCV 2023, arXiv 2308.11507.
Differs: reconstruction, see ``adapters/prototype_adapter.py``. One fixed setting for all data, with
    64 images a class where the paper has 16.
"""

from dataclasses import dataclass, field

from nameonly.adapters import Adapter
from nameonly.adapters.prototype_adapter import PrototypeAdapter
from nameonly.decisions import Decision
from nameonly.decisions.argmax import Argmax
from nameonly.learning import label_and_learn
from nameonly.prompts import Prompts
from nameonly.prompts.templates import Templates
from nameonly.pseudo_labels import PseudoLabeller
from nameonly.pseudo_labels.top_k_per_class import TopKPerClass
from nameonly.task import Adapted, Task

__all__ = ["UpAdapter"]


@dataclass(frozen=True)
class UpAdapter:
    """Zero-shot scores, top-k pseudo-labels, prototype adapter.

    Attributes:
        prompts: Makes each class's texts.
        pseudo_labels: Chooses the images that the prototypes start from.
        adapters: Fits the prototypes.
        decisions: Turns logits into labels.
    """

    prompts: Prompts = field(default_factory=Templates)
    pseudo_labels: PseudoLabeller = field(default_factory=lambda: TopKPerClass(64))
    adapters: Adapter = field(default_factory=PrototypeAdapter)
    decisions: Decision = field(default_factory=Argmax)

    def fit(self, task: Task) -> Adapted:
        """Return the fitted adapter and the pseudo-labels it was fitted on."""
        return label_and_learn(task, self.pseudo_labels, self.adapters)
