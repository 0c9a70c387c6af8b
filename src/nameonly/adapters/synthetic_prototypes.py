"""Synthetic prototypes: images score by their cosine with synthetic images of a class (AiR).

Paper: AiR. Augmenting Discriminative Richness via Diffusions in Unsupervised Prompt Learning.
    CVPR 2025, arXiv 2504.11930, the auxiliary classifier.
Differs: reconstruction, the paper's equations could not be read. Of the images of a class those
    nearest their mean stand for it, and an image scores by its mean cosine with them; the
    temperature is the text's own. It takes any support set, and a class without an image keeps its
    text.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from nameonly.types import Features, PseudoLabels, TextClassifier

__all__ = ["SyntheticPrototypes"]


def nearest_the_mean(values: Float[Tensor, "m d"], k: int) -> Int[Tensor, " k2"]:
    """Return the rows nearest the direction of their mean, k of them where there are as many.

    Args:
        values: Unit rows.
        k: How many.
    """
    mean = normalize(values.mean(dim=0), dim=0)
    return (values @ mean).sort(descending=True, stable=True).indices[:k]


@dataclass
class SyntheticPrototypes:
    """Scores an image by ``s`` times its mean cosine with a few images of every class.

    Attributes:
        images_per_class: K, how many stand for a class; the nearest to the mean of all.
        unit_prototypes: Whether the mean of these is made a unit vector; else classes whose images
            differ more score lower.
        sharpness: s, which multiplies the cosines; None for the text's logit scale.
    """

    images_per_class: int = 16
    unit_prototypes: bool = False
    sharpness: float | None = None
    transductive: ClassVar[bool] = False

    weights_: Float[Tensor, "c d"] = field(init=False, repr=False, compare=False)
    scale_: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.images_per_class < 1:
            raise ValueError(f"images_per_class must be at least 1, got {self.images_per_class}")
        if self.sharpness is not None and self.sharpness <= 0:
            raise ValueError(f"sharpness must be above 0, got {self.sharpness}")

    def fit(
        self, features: Features, text: TextClassifier, pseudo_labels: PseudoLabels
    ) -> "SyntheticPrototypes":
        """Choose the images that stand for every class.

        Memory: O(n + c d).

        Args:
            features: Synthetic images, or any that a label is known of.
            text: The zero-shot classifier: the scale, and the weight of a class without an image.
            pseudo_labels: One row per image of ``features``, in the same order.

        Raises:
            ValueError: If no image is selected, or the labels belong to other images.
        """
        pseudo_labels.check_fits(features)
        text.check_fits(features)
        order = features.content_order().to(features.values.device)
        labels = pseudo_labels.labels[order]
        weights = text.weights.clone()
        for label in range(len(weights)):
            rows = features.values[order[labels == label]]
            if len(rows):
                mean = rows[nearest_the_mean(rows, self.images_per_class)].mean(dim=0)
                weights[label] = normalize(mean, dim=0) if self.unit_prototypes else mean
        self.weights_ = weights
        self.scale_ = text.logit_scale if self.sharpness is None else self.sharpness
        return self

    def predict_logits(self, features: Features) -> Float[Tensor, "n c"]:
        """Return the scaled mean cosine of every image with the images of every class.

        Raises:
            ValueError: Before ``fit``, or if the features have another dimension.
        """
        if not hasattr(self, "weights_"):
            raise ValueError("this adapter has learnt nothing yet; call fit first")
        names = tuple(map(str, range(len(self.weights_))))
        return TextClassifier(self.weights_, self.scale_, names).predict_logits(features)
