"""Prototype adapter: learnable class prototypes beside the text classifier, joined by a residual.

Paper: Zhang et al. UP-Adapter: Unsupervised Prototype Adapter for Vision-Language Models.
    PRCV 2023, arXiv 2308.11507.
Differs: reconstruction. The abstract fixes prototypes from the most confident images, their
    fine-tuning and the residual connection; the rest was chosen here. (1) Both branches are put on
    one scale by their spread over the unlabelled images, so that one weight serves every backbone's
    logit scale, and their weighted mean keeps the spread of the text logits. (2) Fine-tuning takes
    cross-entropy of the prototypes' own prediction with the label that both branches together give,
    over all unlabelled images and for a fixed number of steps: on the selected images alone, with
    the labels that the prototypes were made from, it adds nothing
    (``docs/decisions/0002-what-the-prototypes-learn-from.md``).
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from nameonly.loop import Schedule, minimise
from nameonly.ops.prototypes import labelled_prototypes
from nameonly.ops.residuals import join, joined_logits, scale_sample, spread_over
from nameonly.ops.selection import row_blocks
from nameonly.types import Features, PseudoLabels, TextClassifier

__all__ = ["PrototypeAdapter"]

LEAST_SPREAD = 1e-6


def affinity(
    values: Float[Tensor, "n d"], prototypes: Float[Tensor, "c d"], sharpness: float
) -> Float[Tensor, "n c"]:
    """Return ``exp(-b (1 - cosine))``, one at a prototype and falling away from it."""
    return (values @ normalize(prototypes, dim=1).T).sub_(1).mul_(sharpness).exp_()


@dataclass
class PrototypeAdapter:
    """Joins the affinity with learnt class prototypes to the zero-shot logits.

    ``logits = (t + a r) / (1 + a)``: t the text logits, r the affinity on the spread of t.
    Memory: O(c d), a batch of b x (d + 5 c) while learning, and the n x c of the logits.

    Attributes:
        residual_weight: a, the weight of the prototypes in units of the text logits' spread
            (1 = both branches speak equally loud).
        sharpness: b of the affinity; larger looks at the nearest prototypes only.
        steps: Updates of the prototypes, rounded up to whole passes; 0 keeps them as they start.
        learning_rate: Of AdamW (epsilon 1e-4), falling along a cosine.
        temperature: Divisor of the affinity inside the loss, in units of its spread.
        batch_size: Images per step.
        seed: Of the order of images.
    """

    residual_weight: float = 16.0
    sharpness: float = 1.0
    steps: int = 100
    learning_rate: float = 1e-3
    temperature: float = 0.5
    batch_size: int = 4096
    seed: int = 0
    transductive: ClassVar[bool] = False

    text_: TextClassifier = field(init=False, repr=False, compare=False)
    prototypes_: Float[Tensor, "c d"] = field(init=False, repr=False, compare=False)
    residual_scale_: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        least = {"residual_weight": 0, "steps": 0, "batch_size": 1, "learning_rate": 0}
        for name, low in least.items():
            if not low <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at least {low}, got {getattr(self, name)}")
        for name in ("sharpness", "temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")

    def fit(
        self, features: Features, text: TextClassifier, pseudo_labels: PseudoLabels
    ) -> "PrototypeAdapter":
        """Start the prototypes at the selected images' means and fine-tune them.

        Args:
            features: All unlabelled images.
            text: The zero-shot classifier, left as it is.
            pseudo_labels: One row per image of ``features``, in the same order. The selected images
                make the prototypes; labels of confidence 1 (given ones) are kept while learning.

        Raises:
            ValueError: If no image is selected, or the pseudo-labels belong to other images.
        """
        pseudo_labels.check_fits(features)
        values = features.values
        order = features.content_order().to(values.device)
        chosen = order[pseudo_labels.selected[order]]
        start = labelled_prototypes(values, pseudo_labels, chosen, text.weights)
        text_weights = text.logit_scale * text.weights
        sample = scale_sample(features)
        text_spread, _ = spread_over(lambda v: v @ text_weights.T, sample)
        affinity_spread, _ = spread_over(lambda v: affinity(v, start, self.sharpness), sample)

        self.text_ = text
        # prototypes that are all one have nothing to say; their rounding errors must not decide
        silent = affinity_spread < LEAST_SPREAD
        self.residual_scale_ = 0.0 if silent else text_spread / affinity_spread
        self.prototypes_ = self._learn(start, features, pseudo_labels, affinity_spread)
        return self

    def _learn(
        self,
        start: Float[Tensor, "c d"],
        features: Features,
        pseudo_labels: PseudoLabels,
        affinity_spread: float,
    ) -> Float[Tensor, "c d"]:
        prototypes = nn.Parameter(start.clone())
        divisor = self.temperature * max(affinity_spread, LEAST_SPREAD)
        order = features.content_order().to(start.device)
        certain = (pseudo_labels.confidence >= 1.0) & pseudo_labels.selected
        kept = torch.where(certain, pseudo_labels.labels, -1)
        text_weights = self.text_.logit_scale * self.text_.weights

        def loss(rows: Int[Tensor, " b"]) -> Float[Tensor, ""]:
            batch = order[rows]
            values = features.values[batch]
            closeness = affinity(values, prototypes, self.sharpness)
            residual = self.residual_scale_ * closeness.detach()
            now = torch.cat(
                [
                    join(values[b] @ text_weights.T, residual[b], self.residual_weight).argmax(
                        dim=1
                    )
                    for b in row_blocks(*residual.shape)
                ]
            )
            labels = torch.where(kept[batch] >= 0, kept[batch], now)
            return cross_entropy(closeness / divisor, labels)

        epochs = math.ceil(self.steps / math.ceil(len(features) / self.batch_size))
        schedule = Schedule(epochs, self.batch_size, self.learning_rate, epsilon=1e-4)
        minimise(loss, [prototypes], len(features), schedule, seed=self.seed)
        return normalize(prototypes.detach(), dim=1)

    def predict_logits(self, features: Features) -> Float[Tensor, "n c"]:
        """Return the weighted mean of zero-shot logits and scaled affinity.

        Raises:
            ValueError: Before ``fit``, or if the features have another dimension.
        """
        if not hasattr(self, "prototypes_"):
            raise ValueError("this adapter has learnt nothing yet; call fit first")
        return joined_logits(
            self.text_,
            lambda values: affinity(values, self.prototypes_, self.sharpness),
            features,
            scale=self.residual_scale_,
            weight=self.residual_weight,
        )
