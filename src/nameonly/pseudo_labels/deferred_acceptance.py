"""Pseudo-labels with the same number of places in every class, filled by deferred acceptance.

Paper: Gale, Shapley. College Admissions and the Stability of Marriage. American Mathematical
    Monthly 1962; as pseudo-labels: Menghini, Delworth, Bach. Enhancing CLIP with CLIP: Exploring
    Pseudolabeling for Limited-Label Prompt Tuning. NeurIPS 2023, arXiv 2306.01669.
Code: https://github.com/BatsResearch/menghini-neurips23-code
Differs: the paper's boards filled without the quirks of its code, in which an image may stand on
    several boards, one that is refused by its best class is offered to all the others, one that
    loses its place is offered to none, and the order of files decides. Here an image has one place
    at most and an image that loses it goes on to its next class. Images rank by log-odds, which
    do not round to one; ties go by a hash of the features, then by id.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nameonly.ops.assignment import check_places, deferred_acceptance, name_order, places_per_class
from nameonly.ops.labelling import hard_candidates, open_logits, with_given
from nameonly.ops.selection import log_odds
from nameonly.types import Features, LabelSpace, PseudoLabels

__all__ = ["DeferredAcceptance"]


@dataclass(frozen=True)
class DeferredAcceptance:
    """Fills the places of every class so that no image and class would rather have each other.

    A class whose images are taken by more confident rivals is filled from the images that have it
    as their second or later choice, so that classes which are hardly ever predicted have images
    too. An image that no class takes is left out.

    Attributes:
        images_per_class: Places of every class (the paper has 16), or one number per class in
            the order of the label space, 0 allowed. With more places than images every image has
            the label that it is predicted as.
    """

    images_per_class: int | tuple[int, ...] = 16

    def __post_init__(self) -> None:
        check_places(self.images_per_class)

    def label(
        self,
        features: Features,
        logits: Float[Tensor, "n c"],
        label_space: LabelSpace,
        given: Int[Tensor, " n"] | None = None,
    ) -> PseudoLabels:
        """Return pseudo-labels with at most ``images_per_class`` images of each class.

        Images with a given label keep it and take no place. Memory: O(n c) for the scores, which
        are freed before the probabilities and the mask are made; time: see
        :func:`nameonly.ops.assignment.deferred_acceptance`.

        Raises:
            ValueError: If the logits are of other images or classes, or there are not as many
                ``images_per_class`` as classes.
        """
        logits, is_open = open_logits(features, logits, label_space, given)
        scores = log_odds(logits, torch.promote_types(logits.dtype, torch.float32))
        places = deferred_acceptance(
            scores.masked_fill_(~is_open[:, None], -torch.inf),
            places_per_class(self.images_per_class, len(label_space)),
            features.content_order(),
            name_order(label_space.class_names),
        )
        del scores
        candidates = hard_candidates(places, len(label_space))
        labels = with_given(features, logits.softmax(dim=1), candidates, given)
        return replace(labels, places=places)
