"""Tip-Adapter: a cache of pseudo-labelled images votes beside the text classifier.

Paper: Zhang et al. Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification.
    ECCV 2022, arXiv 2111.03930, equations 3 to 8.
Code: https://github.com/gaopengcuhk/Tip-Adapter
Differs: the cache holds pseudo-labelled images, with soft labels where there are candidate sets, in
    place of labelled shots. Each class's votes are averaged over its images, where the paper sums
    equally many shots: sums would favour the classes with most pseudo-labels. A key is an image's
    own feature, not the mean of ten augmented views, and fine-tuning sees no augmented views. alpha
    is in units of the text logits' spread over the unlabelled images, since the paper's alpha = 1
    belongs to CLIP's logit scale of 100; the paper's is ours times ``residual_scale_`` over the
    images per class. Both branches are averaged, not added, so that confidence stays the text's.
    beta = 5.5 acts on cosines, which no logit scale touches, and is kept. The published code
    searches both on labelled validation images and reports the best epoch on the test images; here
    they are fixed and the last epoch counts.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nameonly.loop import Schedule, minimise
from nameonly.ops.residuals import join, joined_logits, residual_scale, scale_sample
from nameonly.ops.votes import cache_votes
from nameonly.types import Features, PseudoLabels, TextClassifier

__all__ = ["TipAdapter"]


@dataclass
class TipAdapter:
    """Adds the votes of cached images to the zero-shot logits.

    ``logits = (t + alpha r) / (1 + alpha)``: t the text logits, r the votes on the spread of t.
    Memory: O(m d) + O(m c) for the cache of m selected images, and a block of n x m.

    Attributes:
        alpha: Weight of the cache in units of the text logits' spread (1 = equally loud).
        beta: Sharpness of the affinity; larger looks at nearer images only.
        epochs: Passes over the cache that fine-tune its keys: 0 is the training-free Tip-Adapter,
            20 the paper's Tip-Adapter-F.
        learning_rate: Of AdamW (epsilon 1e-4, weight decay 0.01), falling along a cosine.
        batch_size: Images per step.
        seed: Of the order of images.
    """

    alpha: float = 4.0
    beta: float = 5.5
    epochs: int = 0
    learning_rate: float = 1e-3
    batch_size: int = 256
    seed: int = 0
    transductive: ClassVar[bool] = False

    text_: TextClassifier = field(init=False, repr=False, compare=False)
    cache_keys_: Float[Tensor, "m d"] = field(init=False, repr=False, compare=False)
    cache_values_: Float[Tensor, "m c"] = field(init=False, repr=False, compare=False)
    residual_scale_: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        least = {"alpha": 0, "epochs": 0, "learning_rate": 0, "batch_size": 1}
        for name, low in least.items():
            if not low <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at least {low}, got {getattr(self, name)}")
        if not 0 < self.beta < math.inf:
            raise ValueError(f"beta must be above 0, got {self.beta}")

    def fit(
        self, features: Features, text: TextClassifier, pseudo_labels: PseudoLabels
    ) -> "TipAdapter":
        """Cache the selected images and, with ``epochs``, fine-tune the keys on them.

        Args:
            features: All unlabelled images; they set the scale of the votes.
            text: The zero-shot classifier, left as it is.
            pseudo_labels: One row per image of ``features``, in the same order.

        Raises:
            ValueError: If no image is selected, or the pseudo-labels belong to other images.
        """
        pseudo_labels.check_fits(features)
        order = features.content_order()
        rows = order[pseudo_labels.selected.cpu()[order]]
        keys, labels = (
            features.values[rows],
            pseudo_labels.targets_of(rows).to(features.values.dtype),
        )
        cached = labels / labels.sum(dim=0).clamp(min=torch.finfo(labels.dtype).tiny)
        votes = cached.to_sparse()

        self.text_, self.cache_values_ = text, cached
        self.residual_scale_ = residual_scale(
            text, lambda v: cache_votes(v, keys, votes, self.beta), scale_sample(features)
        )

        def loss(rows: Int[Tensor, " b"]) -> Float[Tensor, ""]:
            text_logits = text.logit_scale * keys[rows] @ text.weights.T
            near = self.residual_scale_ * cache_votes(keys[rows], learnt, votes, self.beta)
            return cross_entropy(join(text_logits, near, self.alpha), labels[rows])

        learnt = nn.Parameter(keys.clone())
        schedule = Schedule(
            self.epochs, self.batch_size, self.learning_rate, weight_decay=0.01, epsilon=1e-4
        )
        minimise(loss, [learnt], len(keys), schedule, seed=self.seed)
        self.cache_keys_ = learnt.detach()
        return self

    def predict_logits(self, features: Features) -> Float[Tensor, "n c"]:
        """Return the weighted mean of zero-shot logits and scaled votes, in blocks of images.

        Raises:
            ValueError: Before ``fit``, or if the features have another dimension.
        """
        if not hasattr(self, "cache_keys_"):
            raise ValueError("this adapter has learnt nothing yet; call fit first")
        votes = self.cache_values_.to_sparse()
        return joined_logits(
            self.text_,
            lambda values: cache_votes(values, self.cache_keys_, votes, self.beta),
            features,
            scale=self.residual_scale_,
            weight=self.alpha,
        )
