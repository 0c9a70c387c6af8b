"""Gaussian discriminant: class means and one shared covariance beside the text classifier.

Paper: Wang et al. A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation. ICLR 2024,
    arXiv 2402.04087, section 3.
Code: https://github.com/mrflogs/ICLR24
Differs: means and covariance come from pseudo-labelled images, weighted by their soft labels, and
    from the images themselves, not from ten augmented views of each. The covariance keeps the
    trace it had before shrinkage, a factor that the weight of the branch absorbs. That weight is
    in units of the text logits' spread over the unlabelled images, where the published code
    searches it for every data set on labelled validation images (1e-4 to 100); both branches are
    averaged, not added, so that confidence stays the text's. A class without images stands where
    its text does, moved by the mean difference of images and texts. Classes are held to be equally
    frequent, as in the paper: the shares of pseudo-labels say how these were chosen.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from nameonly.ops.gaussians import ClassGaussians
from nameonly.ops.residuals import joined_logits, residual_scale, scale_sample
from nameonly.types import Features, PseudoLabels, TextClassifier

__all__ = ["GaussianDiscriminant"]


def with_text_means(
    fitted: ClassGaussians, text_weights: Float[Tensor, "c d"]
) -> Float[Tensor, "c d"]:
    """Return the class means; those without images are the texts, moved to where the images are."""
    texts = text_weights.double()
    shift = fitted.shares @ (fitted.means - texts)
    return torch.where(fitted.shares[:, None] > 0, fitted.means, texts + shift)


@dataclass
class GaussianDiscriminant:
    """Joins the log-likelihoods of class Gaussians to the zero-shot logits.

    ``logits = (t + a r) / (1 + a)``: t the text logits, r the log-likelihoods on the spread of t.
    Memory: O(c d) + O(d^2), and m x (d + c) while m selected images are learnt from.

    Attributes:
        residual_weight: a, the weight of the Gaussians in units of the text logits' spread
            (1 = equally loud).
    """

    residual_weight: float = 4.0
    transductive: ClassVar[bool] = False

    text_: TextClassifier = field(init=False, repr=False, compare=False)
    means_: Float[Tensor, "c d"] = field(init=False, repr=False, compare=False)
    factor_: Float[Tensor, "d d"] = field(init=False, repr=False, compare=False)
    shares_: Float[Tensor, " c"] = field(init=False, repr=False, compare=False)
    residual_scale_: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.residual_weight < math.inf:
            raise ValueError(f"residual_weight must be at least 0, got {self.residual_weight}")

    @property
    def gaussians(self) -> ClassGaussians:
        """The fitted Gaussians, which can be sampled."""
        return ClassGaussians(self.means_, self.factor_, self.shares_)

    def fit(
        self, features: Features, text: TextClassifier, pseudo_labels: PseudoLabels
    ) -> "GaussianDiscriminant":
        """Estimate the Gaussians from the selected images.

        Args:
            features: All unlabelled images; they set the scale of the log-likelihoods.
            text: The zero-shot classifier, left as it is.
            pseudo_labels: One row per image of ``features``, in the same order.

        Raises:
            ValueError: If no image is selected, or the pseudo-labels belong to other images.
        """
        pseudo_labels.check_fits(features)
        rows = pseudo_labels.selected.nonzero()[:, 0]
        fitted = ClassGaussians.estimate(
            features.values[rows], pseudo_labels.targets_of(rows), text.weights
        )
        self.text_, self.means_ = text, with_text_means(fitted, text.weights)
        self.factor_, self.shares_ = fitted.factor, fitted.shares
        self.residual_scale_ = residual_scale(
            text, self.gaussians.log_likelihood, scale_sample(features)
        )
        return self

    def _advantages(self, values: Float[Tensor, "b d"]) -> Float[Tensor, "b c"]:
        scores = self.gaussians.log_likelihood(values)
        # what all classes share moves no softmax, and would cost float32 its digits
        return scores - scores.mean(dim=1, keepdim=True)

    def predict_logits(self, features: Features) -> Float[Tensor, "n c"]:
        """Return the weighted mean of zero-shot logits and scaled log-likelihoods.

        Raises:
            ValueError: Before ``fit``, or if the features have another dimension.
        """
        if not hasattr(self, "residual_scale_"):
            raise ValueError("this adapter has learnt nothing yet; call fit first")
        return joined_logits(
            self.text_,
            self._advantages,
            features,
            scale=self.residual_scale_,
            weight=self.residual_weight,
        )
