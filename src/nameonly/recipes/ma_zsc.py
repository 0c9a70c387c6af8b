"""MA-ZSC: a network of its own, trained on synthetic images that a bag of tricks makes diverse.

Paper: Shipard, Wiliem, Thanh, Xiang, Fookes. Diversity is Definitely Needed: Improving
    Model-Agnostic Zero-shot Classification via Stable Diffusion. CVPR Workshops 2023, arXiv
    2302.03298.
Differs: see ``synthesis/prompt_tricks.py`` and ``training/image_classifier.py``. The images to be
    labelled are not learnt from, as in the paper; ``support_set.alone=false`` learns from them too,
    under the labels that the backbone gives its most confident ones.
"""

from dataclasses import dataclass, field, replace

from nameonly.decisions import Decision
from nameonly.decisions.argmax import Argmax
from nameonly.generating import made_support
from nameonly.learning import learn
from nameonly.prompts import Prompts
from nameonly.prompts.templates import Templates
from nameonly.pseudo_labels import PseudoLabeller
from nameonly.pseudo_labels.top_k_per_class import TopKPerClass
from nameonly.synthesis.prompt_tricks import PromptTricks
from nameonly.synthesis.support_set import SupportSet
from nameonly.synthesis.text_to_image import TextToImage
from nameonly.task import Adapted, Task
from nameonly.training import Trainer
from nameonly.training.image_classifier import ImageClassifier

__all__ = ["MaZsc"]


@dataclass(frozen=True)
class MaZsc:
    """Makes images of the class names, and trains a network on them.

    Attributes:
        prompts: Makes each class's texts for the backbone, which compares and labels.
        prompt_tricks: Says what to make.
        text_to_image: Makes it.
        support_set: How many images there are, and whether they are learnt from alone.
        pseudo_labels: Labels the real images, where these are learnt from too.
        training: Learns.
        decisions: Turns logits into labels.
    """

    prompts: Prompts = field(default_factory=Templates)
    prompt_tricks: PromptTricks = field(default_factory=PromptTricks)
    text_to_image: TextToImage = field(default_factory=TextToImage)
    support_set: SupportSet = field(
        default_factory=lambda: SupportSet(images_per_class=1000, alone=True)
    )
    pseudo_labels: PseudoLabeller = field(default_factory=TopKPerClass)
    training: Trainer = field(default_factory=ImageClassifier)
    decisions: Decision = field(default_factory=Argmax)

    def fit(self, task: Task) -> Adapted:
        """Return the trained network."""
        self.training.check(len(task.label_space))
        support = made_support(task, self.prompt_tricks, self.text_to_image, self.support_set)
        logits, space = task.start_logits(), task.label_space
        labels = self.pseudo_labels.label(task.features, logits, space, task.given)
        return replace(
            learn(replace(task, support=support), self.training, labels), support=support
        )
