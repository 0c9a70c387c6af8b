"""Tip-Adapter: sixteen pseudo-labelled images a class vote beside the text.

Paper: Zhang et al. Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification.
    ECCV 2022, arXiv 2111.03930.
Code: https://github.com/gaopengcuhk/Tip-Adapter
Differs: the shots are pseudo-labelled, the most confident images of each predicted class; see
    ``adapters/tip_adapter.py``. ``adapters.epochs=20`` is Tip-Adapter-F.
"""

from dataclasses import dataclass, field

from nameonly.adapters import Adapter
from nameonly.adapters.tip_adapter import TipAdapter
from nameonly.decisions import Decision
from nameonly.decisions.argmax import Argmax
from nameonly.learning import label_and_learn
from nameonly.prompts import Prompts
from nameonly.prompts.templates import Templates
from nameonly.pseudo_labels import PseudoLabeller
from nameonly.pseudo_labels.top_k_per_class import TopKPerClass
from nameonly.task import Adapted, Task

__all__ = ["TipAdapterRecipe"]


@dataclass(frozen=True)
class TipAdapterRecipe:
    """Top-k labels, then the cache.

    Attributes:
        prompts: Makes each class's texts.
        pseudo_labels: Chooses the images of the cache.
        adapters: Lets them vote.
        decisions: Turns logits into labels.
    """

    prompts: Prompts = field(default_factory=Templates)
    pseudo_labels: PseudoLabeller = field(default_factory=TopKPerClass)
    adapters: Adapter = field(default_factory=TipAdapter)
    decisions: Decision = field(default_factory=Argmax)

    def fit(self, task: Task) -> Adapted:
        """Return the filled cache and the labels it learnt from."""
        return label_and_learn(task, self.pseudo_labels, self.adapters)
