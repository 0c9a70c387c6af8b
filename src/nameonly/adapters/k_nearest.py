"""Nearest neighbours: pseudo-labelled images vote for the class of an image.

Paper: Cover, Hart. Nearest Neighbor Pattern Classification. IEEE Transactions on Information
    Theory 13 (1967).
Differs: votes count by cosine and by the pseudo-labels' confidence, and a small share of the text's
    probabilities decides where they are even and keeps every class possible. It is a control for
    what costs more, and the scorer of new images for labels that were propagated over a graph.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from nameonly.ops.neighbours import nearest_neighbours
from nameonly.ops.selection import row_blocks
from nameonly.types import Features, PseudoLabels, TextClassifier

__all__ = ["KNearest"]


def vote_shares(
    similarities: Float[Tensor, "n k"], nearest: Int[Tensor, "n k"], values: Float[Tensor, "m c"]
) -> Float[Tensor, "n c"]:
    """Return the share of each class among the votes of the nearest keys.

    A key votes with the positive part of its cosine times its values; a row without votes is zero.
    """
    weights = similarities.clamp(min=0)
    votes = embedding_bag(nearest, values, mode="sum", per_sample_weights=weights)
    return votes / votes.sum(dim=1, keepdim=True).clamp(min=1e-30)


@dataclass
class KNearest:
    """Scores an image by the labels of the most similar selected images.

    ``logits = log((1 - w) v + w p)``: v the shares of the votes, p the text's probabilities.

    Attributes:
        k: How many images vote.
        text_weight: w, the share of the text, above 0 and below 1.
    """

    k: int = 5
    text_weight: float = 0.05
    transductive: ClassVar[bool] = False

    text_: TextClassifier = field(init=False, repr=False, compare=False)
    keys_: Float[Tensor, "m d"] = field(init=False, repr=False, compare=False)
    values_: Float[Tensor, "m c"] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k must be at least 1, got {self.k}")
        if not 0 < self.text_weight < 1:
            raise ValueError(f"text_weight must be between 0 and 1, got {self.text_weight}")

    def fit(
        self, features: Features, text: TextClassifier, pseudo_labels: PseudoLabels
    ) -> "KNearest":
        """Keep the selected images and their labels.

        Memory: m x (d + c) for m selected images; a saved classifier holds as much.

        Args:
            features: All unlabelled images.
            text: The zero-shot classifier, left as it is.
            pseudo_labels: One row per image of ``features``, in the same order.

        Raises:
            ValueError: If no image is selected, or the pseudo-labels belong to other images.
        """
        pseudo_labels.check_fits(features)
        order = features.content_order().to(features.values.device)
        chosen = order[pseudo_labels.selected[order]]
        weights = pseudo_labels.confidence[chosen, None]
        self.text_ = text
        self.keys_ = features.values[chosen]
        self.values_ = (pseudo_labels.targets_of(chosen) * weights).to(features.values.dtype)
        return self

    def predict_logits(self, features: Features) -> Float[Tensor, "n c"]:
        """Return the logarithm of the votes' shares mixed with the text's probabilities.

        Images that were fitted on count among their own neighbours.

        Raises:
            ValueError: Before ``fit``, or if the features have another dimension.
        """
        if not hasattr(self, "keys_"):
            raise ValueError("this adapter has learnt nothing yet; call fit first")
        logits = self.text_.predict_logits(features)
        similarities, nearest = nearest_neighbours(features.values, self.keys_, self.k)
        for rows in row_blocks(*logits.shape):
            text = logits[rows].log_softmax(dim=1) + math.log(self.text_weight)
            votes = vote_shares(similarities[rows], nearest[rows], self.values_).log()
            logits[rows] = torch.logaddexp(votes + math.log1p(-self.text_weight), text)
        return logits
