"""Stage: a network of its own is trained on synthetic or pseudo-labelled images.

A method is one file with one dataclass in the manner of scikit-learn: fields are hyper-parameters,
``fit`` returns self and writes only names that end in an underscore.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from nameonly.backbones import Backbone
from nameonly.types import ImageSet, PseudoLabels, Scorer


@runtime_checkable
class Trainer(Protocol):
    """Trains a network from images and their labels.

    Attributes:
        backbone_: The network, after ``fit``.
        scorer_: Reads its features.
    """

    if TYPE_CHECKING:  # at run time they are there after ``fit`` only
        backbone_: Backbone
        scorer_: Scorer

    def check(self, n_classes: int) -> None:
        """Refuse what cannot be trained, before the long work of making images to train on.

        Raises:
            ValueError: If it cannot.
        """
        ...

    def fit(
        self,
        images: ImageSet,
        pseudo_labels: PseudoLabels,
        class_names: Sequence[str],
        *,
        checkpoint: Path | None = None,
        on_epoch: Callable[[int, float], None] | None = None,
        on_decode: Callable[[int, int], None] | None = None,
    ) -> "Trainer":
        """Learn from the selected images; a second call forgets the first.

        Args:
            images: One row per image.
            pseudo_labels: In the same order.
            class_names: Of the columns.
            checkpoint: File of the training's state, resumed from where it exists.
            on_epoch: Called after every epoch with its number and mean loss.
            on_decode: Called before, with the images decoded so far and in all.
        """
        ...
