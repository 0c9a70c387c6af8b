"""UPL: prompts learned from the most confident images of each predicted class.

Paper: Huang, Chu, Wei. Unsupervised Prompt Learning for Vision-Language Models. 2022,
    arXiv 2204.03649.
Code: https://github.com/tonyhuang2022/UPL
Differs: see ``prompt_learning/text_context.py``. UPL*, pseudo-labels of several backbones, is any
    recipe with further backbones (``--ensemble``).
"""

from dataclasses import dataclass, field

from nameonly.decisions import Decision
from nameonly.decisions.argmax import Argmax
from nameonly.learning import label_and_learn
from nameonly.prompt_learning import PromptLearner
from nameonly.prompt_learning.text_context import TextContext
from nameonly.prompts import Prompts
from nameonly.prompts.templates import Templates
from nameonly.pseudo_labels import PseudoLabeller
from nameonly.pseudo_labels.top_k_per_class import TopKPerClass
from nameonly.task import Adapted, Task

__all__ = ["Upl"]


@dataclass(frozen=True)
class Upl:
    """Sixteen images a class by row, sixteen prompts joined.

    Attributes:
        prompts: Makes each class's texts.
        pseudo_labels: Chooses the images.
        prompt_learning: Learns from them.
        decisions: Turns logits into labels.
    """

    prompts: Prompts = field(default_factory=Templates)
    pseudo_labels: PseudoLabeller = field(default_factory=TopKPerClass)
    prompt_learning: PromptLearner = field(default_factory=lambda: TextContext(n_prompts=16))
    decisions: Decision = field(default_factory=Argmax)

    def fit(self, task: Task) -> Adapted:
        """Return the learned prompts and the labels they learnt from."""
        return label_and_learn(task, self.pseudo_labels, self.prompt_learning)
