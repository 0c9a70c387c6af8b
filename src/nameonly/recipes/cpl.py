"""CPL: candidate sets, class-balanced, relabelled for ten rounds, learned prompts.

Paper: Zhang et al. Candidate Pseudolabel Learning: Enhancing Vision-Language Models by Prompt
    Tuning with Unlabeled Data. ICML 2024, arXiv 2406.10502.
Code: https://github.com/vanillaer/CPL-ICML2024
Differs: one fixed setting for all data, where the paper tunes alpha and beta for each with labels;
    see ``pseudo_labels/candidate_sets.py`` and ``relabelling/rounds.py``.
"""

from dataclasses import dataclass, field

from nameonly.decisions import Decision
from nameonly.decisions.argmax import Argmax
from nameonly.loop import Schedule
from nameonly.prompt_learning import PromptLearner
from nameonly.prompt_learning.text_context import TextContext
from nameonly.prompts import Prompts
from nameonly.prompts.templates import Templates
from nameonly.pseudo_labels import PseudoLabeller
from nameonly.pseudo_labels.candidate_sets import CandidateSets
from nameonly.relabelling import Relabelling
from nameonly.relabelling.rounds import Rounds
from nameonly.task import Adapted, Task

__all__ = ["Cpl"]


def _learner() -> TextContext:
    schedule = Schedule(50, 64, 0.02, 2.0, weight_decay=0.05, optimiser="sgd", clip=0.8)
    return TextContext(targets="candidates", schedule=schedule)


@dataclass(frozen=True)
class Cpl:
    """Ten rounds of candidate sets and prompts.

    Attributes:
        prompts: Makes each class's texts.
        pseudo_labels: Makes candidate sets and chooses as many of every class.
        prompt_learning: Learns from them.
        relabelling: Soft candidates in the first round, growing and balanced capacities.
        decisions: Turns logits into labels.
    """

    prompts: Prompts = field(default_factory=Templates)
    pseudo_labels: PseudoLabeller = field(default_factory=CandidateSets)
    prompt_learning: PromptLearner = field(default_factory=_learner)
    relabelling: Relabelling = field(
        default_factory=lambda: Rounds(capacity="balanced", first_targets="soft")
    )
    decisions: Decision = field(default_factory=Argmax)

    def fit(self, task: Task) -> Adapted:
        """Return the last round's prompts and the labels they were trained on."""
        return self.relabelling.run(task, self.pseudo_labels, self.prompt_learning)
