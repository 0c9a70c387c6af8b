"""Filter: keeps the synthetic images that the backbone agrees with, and one of near-duplicates.

Paper: He et al. Is Synthetic Data from Generative Models Ready for Image Recognition? ICLR 2023,
    arXiv 2210.07574, section 3.2 (clip filter); near-duplicates: Barz, Denzler. Do We Train on Test
    Data? 2020, arXiv 1902.00423.
Differs: a share of each class as well as a threshold, so that a hard class does not end up empty;
    near-duplicates are judged by the backbone's cosine, within a class, and the one that the
    backbone agrees with most stays.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nameonly.types import Features, TextClassifier

__all__ = ["Filter"]


@dataclass(frozen=True)
class Kept:
    """Which images stay, and why the others go.

    Attributes:
        kept: True where an image stays.
        reasons: Why it goes, empty where it stays.
        agreement: The backbone's probability of the class that the image was made for.
    """

    kept: Bool[Tensor, " n"]
    reasons: tuple[str, ...]
    agreement: Float[Tensor, " n"]


def first_of_alike(values: Float[Tensor, "n d"], limit: float) -> Bool[Tensor, " n"]:
    """Return True for rows whose cosine with every row kept before them is at most the limit.

    Args:
        values: Unit rows, the best first.
        limit: Largest cosine of two rows that both stay.
    """
    kept = torch.zeros(len(values), dtype=torch.bool, device=values.device)
    for i, row in enumerate(values):
        kept[i] = not (values[:i][kept[:i]] @ row > limit).any()
    return kept


@dataclass(frozen=True)
class Filter:
    """Sieves, one after the other; every class keeps at least one image.

    Attributes:
        agreed: Whether an image goes that the backbone takes for another class.
        threshold: Least probability of the class that an image was made for.
        share: Share of each class's images that may stay, those the backbone agrees with most.
        largest_cosine: Two images of a class that are closer are near-duplicates; 1 keeps all.
    """

    agreed: bool = False
    threshold: float = 0.0
    share: float = 1.0
    largest_cosine: float = 0.99

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 1:
            raise ValueError(f"threshold must be in [0, 1), got {self.threshold}")
        for name in ("share", "largest_cosine"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in (0, 1], got {getattr(self, name)}")

    def keep(self, features: Features, labels: Int[Tensor, " n"], text: TextClassifier) -> Kept:
        """Judge every image.

        Memory: O(n c); near-duplicates are compared within a class.

        Args:
            features: Of the synthetic images.
            labels: The class that each was made for.
            text: The zero-shot classifier.

        Raises:
            ValueError: If there is not one label an image, or a label is no class.
        """
        if len(labels) != len(features) or not 0 <= labels.min() <= labels.max() < len(
            text.class_names
        ):
            raise ValueError(
                f"{len(labels)} labels from {labels.min().item()} to {labels.max().item()} for "
                f"{len(features)} images of {len(text.class_names)} classes"
            )
        probs = text.predict_logits(features).softmax(dim=1)
        agreement = probs[torch.arange(len(labels)), labels]
        reasons = [""] * len(labels)
        content = features.content_order()
        for label in sorted(set(labels.tolist())):
            rows = content[labels[content] == label]
            rows = rows[agreement[rows].sort(descending=True, stable=True).indices]
            enough = agreement[rows] >= self.threshold
            if self.agreed:
                enough &= probs[rows].argmax(dim=1) == label
            enough[0] = True  # what is judged only by rank still has a first
            for i in rows[~enough].tolist():
                reasons[i] = f"agreement {agreement[i]:.3f} below {self.threshold}"
                if agreement[i] >= self.threshold:
                    reasons[i] = f"taken for {text.class_names[int(probs[i].argmax())]!r}"
            most = max(1, math.ceil(self.share * len(rows)))
            for i in rows[enough][most:].tolist():
                reasons[i] = f"not among the best {most} of {len(rows)}"
            rows = rows[enough][:most]
            for i in rows[~first_of_alike(features.values[rows], self.largest_cosine)].tolist():
                reasons[i] = f"near-duplicate: cosine above {self.largest_cosine}"
        kept = torch.tensor([not reason for reason in reasons])
        return Kept(kept, tuple(reasons), agreement)
