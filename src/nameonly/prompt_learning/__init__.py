"""Stage: learned vectors in a frozen backbone, trained on pseudo-labels.

A method is one file with one dataclass in the manner of scikit-learn: fields are hyper-parameters,
``fit`` returns self and writes only names that end in an underscore.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, runtime_checkable

from nameonly.backbones import Backbone
from nameonly.types import Features, ImageSet, PseudoLabels, TextClassifier


@runtime_checkable
class PromptLearner(Protocol):
    """Learns vectors that stand before the class names, among the image's patches, or both.

    Attributes:
        reads: Whether ``fit`` takes cached ``Features`` or the images themselves.
        text_: The zero-shot classifier with the learned prompts, after ``fit``.
        backbone_: The backbone whose features ``text_`` reads: the one given where the image tower
            has no learned tokens.
    """

    reads: ClassVar[Literal["features", "images"]]
    if TYPE_CHECKING:  # at run time they are there after fit only, and isinstance would miss them
        text_: TextClassifier
        backbone_: Backbone

    def fit(
        self,
        inputs: Features | ImageSet,
        text: TextClassifier,
        pseudo_labels: PseudoLabels,
        backbone: Backbone,
        *,
        checkpoint: Path | None = None,
        on_epoch: Callable[[int, float], None] | None = None,
    ) -> "PromptLearner":
        """Learn from the selected images; a second call forgets the first.

        Args:
            inputs: One row per image; ``Features.views`` are trained on where there are some.
            text: Class names, logit scale, and the weights of prompts that stay as they are.
            pseudo_labels: One row per image of ``inputs``, in the same order.
            backbone: Frozen; its bytes are the same afterwards.
            checkpoint: File of the training's state, resumed from where it exists.
            on_epoch: Called after every epoch with its number and mean loss.
        """
        ...
