"""Candidate sets: several labels where the scores cannot decide between them.

Paper: Zhang, Wei, Liu, Feng. Candidate Pseudolabel Learning: Enhancing Vision-Language Models by
    Prompt Tuning with Unlabeled Data. ICML 2024, arXiv 2406.10502.
Code: https://github.com/vanillaer/CPL-ICML2024
Differs: one fixed setting; the paper sets alpha and beta for each data set. alpha 0.75 is the
    median of its table. beta is always 1 - gamma / C' (C' classes that an image may have), which
    the paper keeps for unseen classes: a fixed beta of 0.98 lets a class have twice its share of
    the images among 100 classes, a fifth of it among 10. gamma 2, the paper's median with either
    form, is twice a balanced share from 10 to 1,000 classes; a beta of the paper is gamma =
    (1 - beta) C'. No probability is too small for a candidate (the code drops those below 1e-7),
    and classes of equal probability stand or fall together. Sums and ranks are taken where
    probabilities do not round to one; ties go by a hash of the features, then by id.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nameonly.ops.assignment import check_places, deferred_acceptance, name_order, places_per_class
from nameonly.ops.labelling import open_logits, with_given
from nameonly.ops.selection import log_odds, row_blocks
from nameonly.types import Features, LabelSpace, PseudoLabels

__all__ = ["CandidateSets"]

TINY = torch.finfo(torch.float64).tiny
COLUMNS_AT_ONCE = 16


def top_classes(
    logits: Float[Tensor, "n c"], is_open: Bool[Tensor, " n"], quantile: float
) -> Bool[Tensor, "n c"]:
    """Mark each image's fewest most probable classes whose probabilities sum to more than tau.

    tau is the quantile of the open images' top probabilities: the surest images keep one class,
    the others several. 1 - tau is compared with what a sum leaves, since sums round to one.
    Memory beyond the mask: O(n).
    """
    blocks = row_blocks(*logits.shape)
    left = torch.empty(len(logits), dtype=torch.float64, device=logits.device)
    for rows in blocks:
        probs = logits[rows].double().softmax(dim=1)
        left[rows] = probs.scatter_(1, probs.argmax(dim=1, keepdim=True), 0.0).sum(dim=1)
    least_left = torch.quantile(left[is_open], 1 - quantile)
    mask = torch.empty_like(logits, dtype=torch.bool)
    for rows in blocks:
        probs = logits[rows].double().softmax(dim=1)
        least = probs.amax(dim=1)
        unsure = left[rows] >= least_left  # the others need no second class, so no sorting
        least[unsure] = _least_kept(probs[unsure], least_left)
        mask[rows] = probs >= least.clamp(min=TINY)[:, None]
    return mask


def _least_kept(probs: Float[Tensor, "b c"], least_left: Float[Tensor, ""]) -> Float[Tensor, " b"]:
    """Return the probability of the last class that is kept, where the first is not enough."""
    ranked = probs.sort(dim=1, descending=True).values
    left_by_two_or_more = ranked.flip(1).cumsum(dim=1).flip(1)[:, 2:]
    n_kept = 2 + (left_by_two_or_more >= least_left).sum(dim=1, keepdim=True)
    return ranked.gather(1, (n_kept - 1).clamp(max=probs.shape[1] - 1))[:, 0]


def least_scores(
    scores: Float[Tensor, "n c"], is_open: Bool[Tensor, " n"], quantile: float
) -> Float[Tensor, " c"]:
    """Return every class's quantile over the open images' scores.

    Between two images' scores the quantile lies above the lower one, so that the next image's
    score stands for it. Memory: O(n).
    """
    n_open = int(is_open.sum())
    # rounded: 0.07 * 100 is a little more than 7
    place = 1 + math.ceil(round(quantile * (n_open - 1), 6))
    # several classes at a time: a column alone would read all the memory that the others lie in
    columns = torch.split(scores, COLUMNS_AT_ONCE, dim=1)
    return torch.cat([block[is_open].T.contiguous().kthvalue(place).values for block in columns])


@dataclass(frozen=True)
class CandidateSets:
    """Keeps for every image the classes that are probable for it and for which it stands out.

    A class is a candidate if it is among the image's most probable classes and the image among the
    class's most probable images. Images without a candidate are left out. The soft label is
    ``PseudoLabels.targets``, the 0/1 label ``PseudoLabels.candidates``.

    Attributes:
        confidence_quantile: alpha; the classes of an image sum to more than this quantile of the
            images' top probabilities. Larger keeps more classes.
        class_share: gamma; the images that a class may be a candidate of, as a multiple of a
            balanced class's share.
        images_per_class: Places of every class, or one number per class; deferred acceptance by
            the candidates fills them and leaves the other images out. A place selects the image,
            whose label is its whole candidate set. None leaves no image out.
    """

    confidence_quantile: float = 0.75
    class_share: float = 2.0
    images_per_class: int | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.confidence_quantile <= 1:
            raise ValueError(
                f"confidence_quantile must lie in [0, 1], got {self.confidence_quantile}"
            )
        if not 0 < self.class_share < math.inf:
            raise ValueError(f"class_share must be above 0, got {self.class_share}")
        if self.images_per_class is not None:
            check_places(self.images_per_class)

    def label(
        self,
        features: Features,
        logits: Float[Tensor, "n c"],
        label_space: LabelSpace,
        given: Int[Tensor, " n"] | None = None,
    ) -> PseudoLabels:
        """Return candidate sets; quantiles are taken over the images without a given label.

        Memory: O(n c) for the scores, which are freed before the probabilities are made, and the
        masks.

        Raises:
            ValueError: If the logits are of other images or classes, or there are not as many
                ``images_per_class`` as classes.
        """
        logits, is_open = open_logits(features, logits, label_space, given)
        scores = log_odds(logits, torch.promote_types(logits.dtype, torch.float32))
        if not is_open.any():
            candidates = torch.zeros_like(logits, dtype=torch.bool)
        else:
            share = min(1.0, self.class_share / int(label_space.targets.sum()))
            candidates = top_classes(logits, is_open, self.confidence_quantile)
            least = least_scores(scores, is_open, 1 - share)
            for rows in row_blocks(*scores.shape):
                stand_out = (scores[rows] >= least) & (scores[rows] > -torch.inf)
                candidates[rows] &= stand_out & is_open[rows, None]
        places = None
        if self.images_per_class is not None:
            places = deferred_acceptance(
                scores.masked_fill_(~candidates, -torch.inf),
                places_per_class(self.images_per_class, len(label_space)),
                features.content_order(),
                name_order(label_space.class_names),
            )
            candidates &= (places >= 0)[:, None]
        del scores
        labels = with_given(features, logits.softmax(dim=1), candidates, given)
        return replace(labels, places=places)
