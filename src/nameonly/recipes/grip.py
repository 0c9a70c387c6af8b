"""GRIP: ten rounds with ever more labels, in the end all images.

Paper: Menghini, Delworth, Bach. Enhancing CLIP with CLIP: Exploring Pseudolabeling for
    Limited-Label Prompt Tuning. NeurIPS 2023, arXiv 2306.01669, section 3.3.
Code: https://github.com/BatsResearch/menghini-neurips23-code
Differs: as ``recipes/fpl.py``; a round has at least one place a class.
"""

from dataclasses import dataclass, field

from nameonly.decisions import Decision
from nameonly.decisions.argmax import Argmax
from nameonly.prompt_learning import PromptLearner
from nameonly.prompts import Prompts
from nameonly.prompts.templates import Templates
from nameonly.pseudo_labels import PseudoLabeller
from nameonly.recipes.fpl import Fpl
from nameonly.relabelling import Relabelling
from nameonly.relabelling.rounds import Rounds
from nameonly.task import Adapted, Task

__all__ = ["Grip"]


@dataclass(frozen=True)
class Grip:
    """Places grow to an equal share of all images.

    Attributes:
        prompts: Makes each class's texts.
        pseudo_labels: Fills the places of every class.
        prompt_learning: Learns from them, afresh in every round.
        relabelling: Says how many places there are.
        decisions: Turns logits into labels.
    """

    prompts: Prompts = field(default_factory=Templates)
    pseudo_labels: PseudoLabeller = field(default_factory=lambda: Fpl().pseudo_labels)
    prompt_learning: PromptLearner = field(default_factory=lambda: Fpl().prompt_learning)
    relabelling: Relabelling = field(default_factory=lambda: Rounds(capacity="growing"))
    decisions: Decision = field(default_factory=Argmax)

    def fit(self, task: Task) -> Adapted:
        """Return the last round's prompts and the labels that they learnt from."""
        return self.relabelling.run(task, self.pseudo_labels, self.prompt_learning)
