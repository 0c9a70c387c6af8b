"""SuS-X: a support set made from the class names alone votes beside the text.

Paper: Udandarao, Gupta, Albanie. SuS-X: Training-Free Name-Only Transfer of Vision-Language Models.
    ICCV 2023, arXiv 2211.16198, the variant SuS-SD.
Code: https://github.com/vishaal27/SuS-X
Differs: prompts are the photo template alone; sentences of a language model are the trick
    ``descriptions``. See ``adapters/tip_x.py``. The unlabelled images are scored, not learnt from.
"""

from dataclasses import dataclass, field

from nameonly.adapters import Adapter
from nameonly.adapters.tip_x import TipX
from nameonly.decisions import Decision
from nameonly.decisions.argmax import Argmax
from nameonly.generating import fit_to_support, made_support
from nameonly.prompts import Prompts
from nameonly.prompts.templates import Templates
from nameonly.synthesis.prompt_tricks import PromptTricks
from nameonly.synthesis.support_set import SupportSet
from nameonly.synthesis.text_to_image import TextToImage
from nameonly.task import Adapted, Task

__all__ = ["SusX"]


def _tricks() -> PromptTricks:
    return PromptTricks(("base",), template="a photo of a {}.", guidance_scale=9.5)


@dataclass(frozen=True)
class SusX:
    """Synthetic images, then TIP-X on them.

    Attributes:
        prompts: Makes each class's texts.
        prompt_tricks: Says what to make.
        text_to_image: Makes it.
        support_set: How many images of each class.
        adapters: Lets them vote.
        decisions: Turns logits into labels.
    """

    prompts: Prompts = field(default_factory=Templates)
    prompt_tricks: PromptTricks = field(default_factory=_tricks)
    text_to_image: TextToImage = field(default_factory=lambda: TextToImage(steps=85))
    support_set: SupportSet = field(default_factory=lambda: SupportSet(images_per_class=100))
    adapters: Adapter = field(default_factory=TipX)
    decisions: Decision = field(default_factory=Argmax)

    def fit(self, task: Task) -> Adapted:
        """Return the adapter on the support set."""
        support = made_support(task, self.prompt_tricks, self.text_to_image, self.support_set)
        return Adapted(fit_to_support(self.adapters, support, task.text), support=support)
