"""FPL: prompts learned once from sixteen zero-shot labels a class.

Paper: Menghini, Delworth, Bach. Enhancing CLIP with CLIP: Exploring Pseudolabeling for
    Limited-Label Prompt Tuning. NeurIPS 2023, arXiv 2306.01669, section 3.3.
Code: https://github.com/BatsResearch/menghini-neurips23-code
Differs: places are filled by deferred acceptance, where the code lets an image stand on several
    boards and forgets evicted ones; given and pseudo-labelled images are rows of one mean, so that
    each kind weighs by its share; the last epoch's prompt, not the best on validation labels.
"""

from dataclasses import dataclass, field

from nameonly.decisions import Decision
from nameonly.decisions.argmax import Argmax
from nameonly.learning import label_and_learn
from nameonly.loop import Schedule
from nameonly.prompt_learning import PromptLearner
from nameonly.prompt_learning.text_context import TextContext
from nameonly.prompts import Prompts
from nameonly.prompts.templates import Templates
from nameonly.pseudo_labels import PseudoLabeller
from nameonly.pseudo_labels.deferred_acceptance import DeferredAcceptance
from nameonly.task import Adapted, Task

__all__ = ["Fpl"]


def _learner() -> TextContext:
    schedule = Schedule(150, 16, 0.1, 5.0, weight_decay=0.1, optimiser="sgd")
    return TextContext(schedule=schedule)


@dataclass(frozen=True)
class Fpl:
    """Deferred acceptance once, then prompts.

    Attributes:
        prompts: Makes each class's texts.
        pseudo_labels: Fills the places of every class.
        prompt_learning: Learns from them.
        decisions: Turns logits into labels.
    """

    prompts: Prompts = field(default_factory=Templates)
    pseudo_labels: PseudoLabeller = field(default_factory=DeferredAcceptance)
    prompt_learning: PromptLearner = field(default_factory=_learner)
    decisions: Decision = field(default_factory=Argmax)

    def fit(self, task: Task) -> Adapted:
        """Return the learned prompts and the labels they learnt from."""
        return label_and_learn(task, self.pseudo_labels, self.prompt_learning)
