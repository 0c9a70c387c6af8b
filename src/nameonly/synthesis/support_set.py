"""Support set: synthetic images join the pseudo-labelled ones that prompts learn from (AiR).

Paper: AiR. Augmenting Discriminative Richness via Diffusions in Unsupervised Prompt Learning.
    CVPR 2025, arXiv 2504.11930, the loss of synthetic images.
Differs: reconstruction, the paper's equations could not be read. The loss is L_real + beta L_syn,
    both means, by weights of the images: batches are drawn from both kinds together.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nameonly.ops.labelling import hard_candidates
from nameonly.types import Features, ImageSet, PseudoLabels

__all__ = ["SupportSet"]


@dataclass(frozen=True)
class SupportSet:
    """How many synthetic images there are, and what they count.

    Attributes:
        images_per_class: M, how many are made of every class.
        auxiliary_weight: lambda, the weight of their own classifier's probabilities against those
            of the scorer, where the two are mixed before images are labelled.
        loss_weight: beta, the weight of their mean loss against that of the real images.
        alone: Learn from them alone; real images are labelled, but not learnt from.
        at_test: Also mix their classifier in, by ``auxiliary_weight``, when new images are scored.
    """

    images_per_class: int = 120
    auxiliary_weight: float = 1.0
    loss_weight: float = 0.5
    alone: bool = False
    at_test: bool = False

    def __post_init__(self) -> None:
        if self.images_per_class < 1:
            raise ValueError(f"images_per_class must be at least 1, got {self.images_per_class}")
        for name in ("auxiliary_weight", "loss_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")

    def join_labels(
        self,
        labels: PseudoLabels,
        ids: tuple[str, ...],
        made_for: Int[Tensor, " m"],
        probs: Float[Tensor, "m c"],
    ) -> PseudoLabels:
        """Return the labels of the real images, and after them those of the synthetic ones.

        Args:
            labels: Of the real images.
            ids: Of the synthetic images.
            made_for: The class that each was made for.
            probs: What the backbone says of them; their labels are what they were made for.
        """
        n, m = len(labels.ids), len(made_for)
        candidates = hard_candidates(made_for, labels.probs.shape[1])
        weight = self.loss_weight * int(labels.selected.sum()) / m
        return PseudoLabels(
            labels.ids + ids,
            torch.cat([labels.probs, probs]),
            torch.cat([labels.candidates & (not self.alone), candidates]),
            torch.cat([labels.confidence, labels.confidence.new_ones(m)]),
            weights=torch.cat([torch.ones(n), torch.full((m,), 1.0 if self.alone else weight)]),
        )


def join_features(real: Features, made: Features) -> Features:
    """Return the rows of real images, and after them those of synthetic ones.

    Raises:
        ValueError: If the features are of two backbones, or the real ones have views.
    """
    if real.backbone != made.backbone:
        raise ValueError(f"features of {real.backbone!r} and {made.backbone!r} cannot be joined")
    if real.views is not None:
        raise ValueError("synthetic images have no augmented views; set prompt_learning.views=0")
    return Features(torch.cat([real.values, made.values]), real.ids + made.ids, real.backbone)


def join_images(real: ImageSet, made: ImageSet) -> ImageSet:
    """Return the real images, and after them the synthetic ones."""
    return ImageSet(
        real.sources + tuple(f"synthetic: {source}" for source in made.sources),
        real.ids + made.ids,
        real.locations + made.locations,
    )
