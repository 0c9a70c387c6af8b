"""AiR: a diffusion model of the images' own look makes others, which label and teach beside them.

Paper: AiR. Augmenting Discriminative Richness via Diffusions. CVPR 2025, arXiv 2504.11930.
Differs: reconstruction, see ``domain_lora``, ``support_set``, ``synthetic_prototypes``; else CPL.
"""

from dataclasses import dataclass, field

from nameonly.adapters import Adapter
from nameonly.adapters.synthetic_prototypes import SyntheticPrototypes
from nameonly.decisions import Decision
from nameonly.generating import adapted_to_task, enriched, fused, made_support
from nameonly.prompt_learning import PromptLearner
from nameonly.prompts import Prompts
from nameonly.pseudo_labels import PseudoLabeller
from nameonly.pseudo_labels.top_k_per_class import TopKPerClass
from nameonly.recipes.cpl import Cpl
from nameonly.relabelling import Relabelling
from nameonly.synthesis.domain_lora import DomainLora
from nameonly.synthesis.prompt_tricks import PromptTricks
from nameonly.synthesis.support_set import SupportSet
from nameonly.synthesis.text_to_image import TextToImage
from nameonly.task import Adapted, Task

__all__ = ["Air"]


@dataclass(frozen=True)
class Air:
    """CPL on probabilities that synthetic images have sharpened, with these in the loss.

    Attributes:
        prompts: Makes each class's texts.
        captions: Chooses the images that the generator learns from, and their classes.
        domain_lora: Adapts the generator to them.
        prompt_tricks: Says what to make.
        text_to_image: Makes it.
        adapters: Classifies by the synthetic images alone.
        support_set: How many of them there are, and what they count.
        pseudo_labels: Labels by the mixture of both classifiers.
        prompt_learning: Learns from real and synthetic images, in the rounds of ``relabelling``.
        relabelling: As in CPL.
        decisions: Turns logits into labels.
    """

    prompts: Prompts = field(default_factory=lambda: Cpl().prompts)
    captions: PseudoLabeller = field(default_factory=TopKPerClass)
    domain_lora: DomainLora = field(default_factory=DomainLora)
    prompt_tricks: PromptTricks = field(default_factory=lambda: PromptTricks(("base",)))
    text_to_image: TextToImage = field(default_factory=TextToImage)
    adapters: Adapter = field(default_factory=SyntheticPrototypes)
    support_set: SupportSet = field(default_factory=SupportSet)
    pseudo_labels: PseudoLabeller = field(default_factory=lambda: Cpl().pseudo_labels)
    prompt_learning: PromptLearner = field(default_factory=lambda: Cpl().prompt_learning)
    relabelling: Relabelling = field(default_factory=lambda: Cpl().relabelling)
    decisions: Decision = field(default_factory=lambda: Cpl().decisions)

    def fit(self, task: Task) -> Adapted:
        """Return the last round's prompts and the labels they were trained on."""
        wanted = self.prompt_tricks.requests(task.label_space, self.support_set.images_per_class)
        made = adapted_to_task(task, self.text_to_image, self.domain_lora, self.captions, wanted)
        support = made_support(task, self.prompt_tricks, made, self.support_set)
        task = enriched(task, support, self.adapters)
        adapted = self.relabelling.run(task, self.pseudo_labels, self.prompt_learning)
        return fused(adapted, task, self.adapters)
