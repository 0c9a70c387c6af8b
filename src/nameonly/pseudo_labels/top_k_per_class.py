"""Top-k pseudo-labels per class.

Paper: Huang, Chu, Wei. Unsupervised Prompt Learning for Vision-Language Models. 2022.
    arXiv 2204.03649, section 3.2.
Code: https://github.com/tonyhuang2022/UPL
Differs: no ensemble of backbones; ``by="column"`` is UP-Adapter's reading (each class takes the
    images in which its own probability is highest, so no class is empty), ``by="row"`` is UPL's
    (each class takes from the images predicted as it); images rank
    by log-odds, which do not round to one, and ties by a hash of the features, then by id.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nameonly.ops.labelling import hard_candidates, open_logits, with_given
from nameonly.ops.selection import log_odds, top_k_mask, top_k_of_each, top_log_odds
from nameonly.types import Features, LabelSpace, PseudoLabels

__all__ = ["TopKPerClass"]


@dataclass(frozen=True)
class TopKPerClass:
    """Keeps the most confident images of every class, however low their confidence.

    Attributes:
        images_per_class: How many to keep (the paper keeps 16).
        by: ``"row"`` picks among the images predicted as the class, so that an image has one label
            and a class may stay empty; ``"column"`` picks by the class's own probability, so that
            every class has images and an image may have several candidates.
    """

    images_per_class: int = 16
    by: Literal["row", "column"] = "row"

    def __post_init__(self) -> None:
        if self.images_per_class < 1:
            raise ValueError(f"images_per_class must be at least 1, got {self.images_per_class}")

    def label(
        self,
        features: Features,
        logits: Float[Tensor, "n c"],
        label_space: LabelSpace,
        given: Int[Tensor, " n"] | None = None,
    ) -> PseudoLabels:
        """Return pseudo-labels with at most ``images_per_class`` images of each class.

        Images with a given label keep it, whatever their rank, and are not ranked again. Memory:
        O(n c) for the
        probabilities and the mask, by column for the log-odds in float64 as well.

        Raises:
            ValueError: If the logits are of other images or classes.
        """
        logits, is_open = open_logits(features, logits, label_space, given)
        c = len(label_space)
        # not the probabilities: at a logit scale of 100 those of many images round to 1
        if self.by == "row":
            scores, best = top_log_odds(logits)
            scores = scores.masked_fill(~is_open, -torch.inf)
            chosen = top_k_of_each(scores, best, self.images_per_class, features.content_order)
            candidates = hard_candidates(torch.where(chosen, best, -1), c)
        else:
            odds = log_odds(logits).masked_fill_(~is_open[:, None], -torch.inf)
            candidates = top_k_mask(odds, self.images_per_class, features.content_order)
        return with_given(features, logits.softmax(dim=1), candidates, given)
