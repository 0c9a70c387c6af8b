"""TIP-X: support images vote by what the text says of them, beside Tip-Adapter's votes by cosine.

Paper: Udandarao, Gupta, Albanie. SuS-X: Training-Free Name-Only Transfer of Vision-Language Models.
    ICCV 2023, arXiv 2211.16198, section 3.2, equations 3 to 6.
Code: https://github.com/vishaal27/SuS-X
Differs: a class's votes are averaged over its images, and every branch has the spread of the text
    logits, as in ``adapters/tip_adapter.py``; the paper's rescaling to the range of the cosines, an
    affine map, changes nothing then. alpha, beta and gamma are fixed, where the published code
    searches twenty thousand combinations with labels. The divergences of all images of a class are
    averaged in closed form, so that no image is compared with any other.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from nameonly.ops.residuals import joined_logits, residual_scale, scale_sample
from nameonly.ops.votes import cache_votes
from nameonly.types import Features, PseudoLabels, TextClassifier

__all__ = ["TipX"]


def mean_log_signatures(
    keys: Float[Tensor, "m d"],
    labels: Float[Tensor, "m c"],
    text: Float[Tensor, "c d"],
    temperature: float,
) -> Float[Tensor, "c c"]:
    """Return every class's mean logarithm of its images' signatures ``softmax(W F / T)``.

    A class without an image has its own text's signature.

    Args:
        keys: F, unit features of the support set.
        labels: Shares of each class's images, columns sum to one, or are zero.
        text: W, unit rows.
        temperature: T.
    """
    means = labels.T @ (keys @ text.T / temperature).log_softmax(dim=1)
    own = (text @ text.T / temperature).log_softmax(dim=1)
    return torch.where(labels.sum(dim=0)[:, None] > 0, means, own)


def signature_votes(
    values: Float[Tensor, "n d"],
    means: Float[Tensor, "c c"],
    text: Float[Tensor, "c d"],
    temperature: float,
) -> Float[Tensor, "n c"]:
    """Return minus the mean divergence ``KL(s || S)`` of an image to each class's support images.

    Up to a term that all classes share: ``-mean KL = sum s mean(log S) - sum s log s``.

    Args:
        values: Unit features to score.
        means: See ``mean_log_signatures``.
        text: Unit rows.
        temperature: Of both signatures.
    """
    return (values @ text.T / temperature).softmax(dim=1) @ means.T


@dataclass
class TipX:
    """Adds the votes of a support set, by cosine and by signature, to the zero-shot logits.

    ``logits = (t + alpha r) / (1 + alpha)``, ``r = (a + gamma b) / (1 + gamma)``: t the text
    logits, a the votes by cosine and b those by signature, both on the spread of t.

    Attributes:
        alpha: Weight of the support set in units of the text logits' spread.
        beta: Sharpness of the cosines.
        gamma: Weight of the votes by signature against those by cosine.
        temperature: T, of the signatures, which are softmaxes of bare cosines.
    """

    alpha: float = 1.0
    beta: float = 5.5
    gamma: float = 1.0
    temperature: float = 0.5
    transductive: ClassVar[bool] = False

    text_: TextClassifier = field(init=False, repr=False, compare=False)
    cache_keys_: Float[Tensor, "m d"] = field(init=False, repr=False, compare=False)
    cache_values_: Float[Tensor, "m c"] = field(init=False, repr=False, compare=False)
    signatures_: Float[Tensor, "c c"] = field(init=False, repr=False, compare=False)
    cosine_scale_: float = field(init=False, repr=False, compare=False)
    signature_scale_: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("alpha", "gamma"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        for name in ("beta", "temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")

    def fit(self, features: Features, text: TextClassifier, pseudo_labels: PseudoLabels) -> "TipX":
        """Keep the selected images and the scales of both kinds of votes.

        Memory: O(m d) + O(m c) for m selected images, and a block of n x m.

        Args:
            features: The support set; its images also set the scale of the votes.
            text: The zero-shot classifier, left as it is.
            pseudo_labels: One row per image of ``features``, in the same order.

        Raises:
            ValueError: If no image is selected, or the labels belong to other images.
        """
        pseudo_labels.check_fits(features)
        order = features.content_order()
        rows = order[pseudo_labels.selected.cpu()[order]]
        labels = pseudo_labels.targets_of(rows).to(features.values.dtype)
        self.text_, self.cache_keys_ = text, features.values[rows]
        self.cache_values_ = labels / labels.sum(dim=0).clamp(min=1e-30)
        self.signatures_ = mean_log_signatures(
            self.cache_keys_, self.cache_values_, text.weights, self.temperature
        )
        sample, votes = scale_sample(features), self.cache_values_.to_sparse()
        self.cosine_scale_ = residual_scale(text, lambda v: self._by_cosine(v, votes), sample)
        self.signature_scale_ = residual_scale(text, self._by_signature, sample)
        return self

    def _by_cosine(self, values: Float[Tensor, "n d"], votes: Tensor) -> Float[Tensor, "n c"]:
        return cache_votes(values, self.cache_keys_, votes, self.beta)

    def _by_signature(self, values: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        return signature_votes(values, self.signatures_, self.text_.weights, self.temperature)

    def predict_logits(self, features: Features) -> Float[Tensor, "n c"]:
        """Return the weighted mean of zero-shot logits and scaled votes, in blocks of images.

        Raises:
            ValueError: Before ``fit``, or if the features have another dimension.
        """
        if not hasattr(self, "signature_scale_"):
            raise ValueError("this adapter has learnt nothing yet; call fit first")
        votes = self.cache_values_.to_sparse()  # once, and not in every block

        def both(values: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
            near = self.cosine_scale_ * self._by_cosine(values, votes)
            alike = self.signature_scale_ * self._by_signature(values)
            return (near + self.gamma * alike) / (1 + self.gamma)

        return joined_logits(self.text_, both, features, scale=1.0, weight=self.alpha)
