"""Prototype adapter: learnable class prototypes beside the text classifier, joined by a residual.

Paper: Zhang et al. UP-Adapter: Unsupervised Prototype Adapter for Vision-Language Models.
    PRCV 2023, arXiv 2308.11507.
Differs: reconstruction. The abstract fixes prototypes from the most confident images, their
    fine-tuning and the residual connection; constants and loss were chosen here. The residual is
    put on the scale of the text logits by the ratio of their spreads over the unlabelled images, so
    that one weight serves every backbone's logit scale. A candidate set trains on the renormalised
    probabilities of its classes.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from nameonly.loop import Schedule, minimise
from nameonly.ops.prototypes import class_prototypes, spread
from nameonly.types import Features, PseudoLabels, TextClassifier

__all__ = ["PrototypeAdapter"]


def affinity(
    values: Float[Tensor, "n d"], prototypes: Float[Tensor, "c d"], sharpness: float
) -> Float[Tensor, "n c"]:
    """Return ``exp(-b (1 - cosine))``, one at a prototype and falling away from it."""
    return (sharpness * (values @ normalize(prototypes, dim=1).T - 1)).exp()


def soft_targets(pseudo_labels: PseudoLabels) -> Float[Tensor, "n c"]:
    """Return the probabilities renormalised over each row's candidates, zero where none is."""
    kept = pseudo_labels.probs * pseudo_labels.candidates
    total = kept.sum(dim=1, keepdim=True)
    return torch.where(total > 0, kept / total.clamp(min=1e-12), 0.0)


@dataclass
class PrototypeAdapter:
    """Adds the affinity with learnt class prototypes to the zero-shot logits.

    Attributes:
        residual_weight: Weight of the prototypes, in units of the spread of the text logits over
            the unlabelled images (1 = both branches speak equally loud).
        sharpness: b of the affinity; larger looks at the nearest prototypes only.
        epochs: Passes over the selected images; 0 keeps the prototypes as they start.
        learning_rate: Of AdamW (epsilon 1e-4), falling along a cosine.
        batch_size: Images per step.
        seed: Of the order of images.
    """

    residual_weight: float = 1.0
    sharpness: float = 1.0
    epochs: int = 20
    learning_rate: float = 1e-3
    batch_size: int = 256
    seed: int = 0
    transductive: ClassVar[bool] = False

    text_: TextClassifier = field(init=False, repr=False, compare=False)
    prototypes_: Float[Tensor, "c d"] = field(init=False, repr=False, compare=False)
    residual_scale_: float = field(init=False, repr=False, compare=False)

    def fit(
        self, features: Features, text: TextClassifier, pseudo_labels: PseudoLabels
    ) -> "PrototypeAdapter":
        """Start the prototypes at the selected images' means and fine-tune them.

        Args:
            features: All unlabelled images; their spread sets the residual's scale.
            text: The zero-shot classifier, left as it is.
            pseudo_labels: One row per image of ``features``, in the same order.

        Raises:
            ValueError: If no image is selected, or the pseudo-labels belong to other images.
        """
        if pseudo_labels.ids != features.ids:
            raise ValueError(
                "pseudo-labels and features are of different images, or in another order"
            )
        if not pseudo_labels.selected.any():
            raise ValueError(f"none of the {len(features)} images has a pseudo-label")
        order = features.id_order().to(features.values.device)
        chosen = order[pseudo_labels.selected[order]]
        values = features.values[chosen]
        targets = soft_targets(pseudo_labels)[chosen]
        start = class_prototypes(values, targets, text.weights)

        text_spread = spread(text.predict_logits(features))
        prototype_spread = spread(affinity(features.values, start, self.sharpness))
        ratio = (text_spread / prototype_spread).item() if prototype_spread > 0 else 0.0
        scale = self.residual_weight * ratio

        self.text_ = text
        self.residual_scale_ = scale
        self.prototypes_ = self._learn(start, values, targets, text)
        return self

    def _learn(
        self,
        start: Float[Tensor, "c d"],
        values: Float[Tensor, "m d"],
        targets: Float[Tensor, "m c"],
        text: TextClassifier,
    ) -> Float[Tensor, "c d"]:
        prototypes = nn.Parameter(start.clone())
        text_logits = text.logit_scale * values @ text.weights.T

        def loss(rows: Int[Tensor, " b"]) -> Float[Tensor, ""]:
            residual = affinity(values[rows], prototypes, self.sharpness)
            return cross_entropy(text_logits[rows] + self.residual_scale_ * residual, targets[rows])

        schedule = Schedule(self.epochs, self.batch_size, self.learning_rate, epsilon=1e-4)
        minimise(loss, [prototypes], len(values), schedule, seed=self.seed)
        return normalize(prototypes.detach(), dim=1)

    def predict_logits(self, features: Features) -> Float[Tensor, "n c"]:
        """Return zero-shot logits plus the scaled affinity with the prototypes.

        Raises:
            ValueError: Before ``fit``, or if the features have another dimension.
        """
        if not hasattr(self, "prototypes_"):
            raise ValueError("this adapter has learnt nothing yet; call fit first")
        text_logits = self.text_.predict_logits(features)
        residual = affinity(features.values, self.prototypes_, self.sharpness)
        return text_logits + self.residual_scale_ * residual
