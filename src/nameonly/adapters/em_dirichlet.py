"""EM-Dirichlet: a mixture of Dirichlet laws over the images' zero-shot probabilities.

Paper: Martin et al. Transductive Zero-Shot and Few-Shot CLIP. CVPR 2024, arXiv 2405.18437,
    sections 4 and 5.
Code: https://github.com/SegoleneMartin/transductive-CLIP
Differs: the few-shot form, in which the selected images are the support set: their soft labels are
    kept throughout and tie every cluster to its class, so that no matching of clusters to classes
    follows. The probabilities are the softmax of 0.3 times the zero-shot logits, which is the
    paper's temperature of 30 at CLIP's logit scale of 100. The weight of the class shares is
    ``c / effective_classes``, one unless few classes are expected, which is the mixture's own; the
    published code takes five classes for granted. Shares count all images, the paper's the query
    alone. At most 50 steps of the parameters in a round, each round going on where the last stood
    (1,000 in the code). Logarithms are exact, with no epsilon inside; the logits are centred and
    put on the spread of the text logits. The densities score unseen images too, by the function
    that assigns the fitted ones, so that there are no transductive scores to tell apart.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import one_hot

from nameonly.ops.residuals import ROWS_PER_BLOCK, residual_scale, scale_sample
from nameonly.types import Features, PseudoLabels, TextClassifier

__all__ = ["EmDirichlet"]

LEAST_SHARE = 1e-15
LEAST_CHANGE = 1e-11
SMALL = 1e-4


def dirichlet_log_density(
    log_probs: Float[Tensor, "n c"], alpha: Float[Tensor, "k c"]
) -> Float[Tensor, "n k"]:
    """Return the log-density of every row of probabilities under every Dirichlet law."""
    volume = torch.lgamma(alpha.sum(dim=1)) - torch.lgamma(alpha).sum(dim=1)
    return log_probs @ (alpha - 1).T + volume


def majorise_minimise(
    alpha: Float[Tensor, "k c"], mean_log_probs: Float[Tensor, "k c"]
) -> Float[Tensor, "k c"]:
    """Take one step towards the likeliest parameters; the likelihood never falls.

    ``lgamma(a) = lgamma(a + 1) - log a``, of which the first has a quadratic and the sum's
    ``-lgamma`` a linear majorant; what is left has the positive root of a square equation.
    """
    digamma = torch.digamma(alpha + 1)
    exact = 2 * (digamma * alpha - torch.lgamma(alpha + 1)) / alpha.square()
    # its limit at zero and bound everywhere; near zero the difference above is rounding
    curvature = torch.where(alpha > SMALL, exact, math.pi**2 / 6)
    total = torch.digamma(alpha.sum(dim=1, keepdim=True))
    slope = digamma - total - curvature * alpha - mean_log_probs
    root = (slope.square() + 4 * curvature).sqrt()
    # two spellings of one root; each loses its digits where the other keeps them
    return torch.where(slope > 0, 2 / (slope + root), (root - slope) / (2 * curvature))


def fit_dirichlet(
    alpha: Float[Tensor, "k c"], mean_log_probs: Float[Tensor, "k c"], steps: int
) -> Float[Tensor, "k c"]:
    """Repeat ``majorise_minimise`` until the parameters stand still, at most ``steps`` times."""
    for _ in range(steps):
        before, alpha = alpha, majorise_minimise(alpha, mean_log_probs)
        if (alpha - before).norm() ** 2 <= LEAST_CHANGE * before.norm() ** 2:
            break
    return alpha


@dataclass
class EmDirichlet:
    """Scores images by the Dirichlet law and the share of each class, fitted without labels.

    Memory: O(c^2) and a block of rows; the assignments are made anew from the parameters.

    Attributes:
        sharpness: Multiplier of the zero-shot logits in the probabilities; smaller is softer.
        effective_classes: How many classes are expected among the images; None for all. Fewer
            makes the penalty on the number of classes heavier.
        hard: Assign every image to one class (the paper's Hard EM-Dirichlet).
        iterations: Rounds of parameters and assignments.
        mm_steps: Most steps of the parameters in a round.
    """

    sharpness: float = 0.3
    effective_classes: int | None = None
    hard: bool = False
    iterations: int = 20
    mm_steps: int = 50
    transductive: ClassVar[bool] = False

    text_: TextClassifier = field(init=False, repr=False, compare=False)
    alpha_: Float[Tensor, "c c"] = field(init=False, repr=False, compare=False)
    log_shares_: Float[Tensor, " c"] = field(init=False, repr=False, compare=False)
    outer_scale_: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 < self.sharpness < math.inf:
            raise ValueError(f"sharpness must be above 0, got {self.sharpness}")
        for name in ("effective_classes", "iterations", "mm_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")

    def fit(
        self, features: Features, text: TextClassifier, pseudo_labels: PseudoLabels
    ) -> "EmDirichlet":
        """Fit the mixture to all images, beginning at their zero-shot probabilities.

        Args:
            features: All unlabelled images.
            text: The zero-shot classifier, left as it is.
            pseudo_labels: One row per image of ``features``, in the same order. Selected images
                keep their soft label in every round.

        Raises:
            ValueError: If no image is selected, or the pseudo-labels belong to other images.
        """
        pseudo_labels.check_fits(features)
        n, c = pseudo_labels.probs.shape
        self.text_ = text
        self.alpha_ = text.weights.new_ones(c, c, dtype=torch.float64)
        self.log_shares_ = text.weights.new_zeros(c, dtype=torch.float64)
        selected, order = pseudo_labels.selected, features.content_order()
        for iteration in range(self.iterations):
            counts, moments = self.alpha_.new_zeros(c), self.alpha_.new_zeros(c, c)
            for rows in torch.split(order, ROWS_PER_BLOCK):
                log_probs = self._log_probs(features.values[rows])
                shares = self._assign(log_probs) if iteration else log_probs.exp()
                targets = pseudo_labels.targets_of(rows).double()
                shares = torch.where(selected[rows, None], targets, shares)
                counts += shares.sum(dim=0)
                moments += shares.T @ log_probs
            filled = counts > LEAST_SHARE
            means = moments[filled] / counts[filled, None]
            self.alpha_[filled] = fit_dirichlet(self.alpha_[filled], means, self.mm_steps)
            self.log_shares_ = (counts / n).clamp(min=LEAST_SHARE).log()
        self.outer_scale_ = residual_scale(text, self._scores, scale_sample(features))
        return self

    def _log_probs(self, values: Float[Tensor, "b d"]) -> Float[Tensor, "b c"]:
        cosines = values.double() @ self.text_.weights.double().T
        return (self.sharpness * self.text_.logit_scale * cosines).log_softmax(dim=1)

    def _mixture(self, log_probs: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
        share_weight = max(1.0, len(self.alpha_) / (self.effective_classes or len(self.alpha_)))
        return dirichlet_log_density(log_probs, self.alpha_) + share_weight * self.log_shares_

    def _assign(self, log_probs: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
        scores = self._mixture(log_probs)
        if self.hard:
            return one_hot(scores.argmax(dim=1), scores.shape[1]).double()
        return scores.softmax(dim=1)

    def _scores(self, values: Float[Tensor, "b d"]) -> Float[Tensor, "b c"]:
        return self._mixture(self._log_probs(values))

    def predict_logits(self, features: Features) -> Float[Tensor, "n c"]:
        """Return log-density plus weighted log-share of every class, on the text logits' spread.

        Raises:
            ValueError: Before ``fit``, or if the features have another dimension.
        """
        if not hasattr(self, "outer_scale_"):
            raise ValueError("this adapter has learnt nothing yet; call fit first")
        self.text_.check_fits(features)
        logits = features.values.new_empty(len(features), len(self.alpha_))
        for start in range(0, len(logits), ROWS_PER_BLOCK):
            block = slice(start, start + ROWS_PER_BLOCK)
            scores = self._scores(features.values[block])
            scores -= scores.mean(dim=1, keepdim=True)
            logits[block] = self.outer_scale_ * scores
        return logits
