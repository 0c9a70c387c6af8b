"""The nouns that flow between stages.

Axes: n images, m support images, c classes, d feature dimension.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt64
from torch import Tensor

# a few rows of n x c at a time, where all of them at once would double the memory
LABELLED_AT_ONCE = 4096


def class_key(name: str) -> str:
    """Return the form in which two class names are compared: folded case, single spaces."""
    return " ".join(name.replace("_", " ").split()).casefold()


@dataclass(frozen=True)
class LabelSpace:
    """The classes of a task, in column order.

    Attributes:
        class_names: One readable name per class; they differ after case folding.
        seen: True where labelled images exist, so that an unlabelled one belongs to an unseen class
            (TRZSL) as long as there is one; None when any class may occur.
        templates: Sentences with one ``{}`` that replace the recipe's own templates.
        prompts: Per class, texts that stand in place of the filled templates; a ``{}`` in them is
            filled with the class name. An empty tuple keeps the templates for that class.
        descriptions: Per class, sentences about it that are encoded beside its other texts.
        parents: Per class, the name of a broader class, or None.
    """

    class_names: tuple[str, ...]
    seen: tuple[bool, ...] | None = None
    templates: tuple[str, ...] | None = None
    prompts: tuple[tuple[str, ...], ...] | None = None
    descriptions: tuple[tuple[str, ...], ...] | None = None
    parents: tuple[str | None, ...] | None = None

    def __post_init__(self) -> None:
        if not self.class_names:
            raise ValueError("a label space needs class names, got none")
        blank = [i for i, name in enumerate(self.class_names) if not name.strip()]
        if blank:
            raise ValueError(f"class names at positions {blank} are empty")
        keys = [class_key(name) for name in self.class_names]
        counts = Counter(keys)
        repeated = [n for n, k in zip(self.class_names, keys, strict=True) if counts[k] > 1]
        if repeated:
            raise ValueError(f"class names repeat (case and spacing ignored): {sorted(repeated)}")
        for field in ("seen", "prompts", "descriptions", "parents"):
            value = getattr(self, field)
            if value is not None and len(value) != len(keys):
                raise ValueError(f"{field} has {len(value)} entries for {len(keys)} classes")
        for template in self.templates or ():
            if template.count("{}") != 1:
                raise ValueError(f"a template has exactly one {{}}, got {template!r}")

    def __len__(self) -> int:
        return len(self.class_names)

    @property
    def targets(self) -> Bool[Tensor, " c"]:
        """The classes an unlabelled image may have: the unseen ones where both kinds exist."""
        seen = torch.tensor(self.seen or (False,) * len(self))
        return seen | True if seen.all() else ~seen


@runtime_checkable
class Location(Protocol):
    """Where the encoded bytes of one image lie."""

    def read(self) -> bytes:
        """Return the encoded bytes.

        Raises:
            OSError: If they are no longer there or cannot be read.
        """
        ...


@dataclass(frozen=True)
class ImageSet:
    """Unlabelled images, opened lazily. It has no field in which a label could travel.

    Attributes:
        sources: Where each row came from, readable and unique: a path, a shard member.
        ids: Hash of each row's encoded bytes; duplicates share one id.
        locations: How to read each row's bytes.
    """

    sources: tuple[str, ...]
    ids: tuple[str, ...]
    locations: tuple[Location, ...]

    def __post_init__(self) -> None:
        if not len(self.sources) == len(self.ids) == len(self.locations):
            raise ValueError(
                f"{len(self.sources)} sources, {len(self.ids)} ids and "
                f"{len(self.locations)} locations do not match"
            )
        if len(set(self.sources)) != len(self.sources):
            raise ValueError("sources repeat; every row needs its own")

    def __len__(self) -> int:
        return len(self.sources)

    def subset(self, rows: Sequence[int]) -> "ImageSet":
        """Return the chosen rows, in the given order."""
        return ImageSet(
            tuple(self.sources[i] for i in rows),
            tuple(self.ids[i] for i in rows),
            tuple(self.locations[i] for i in rows),
        )

    def first_rows(self) -> dict[str, int]:
        """Map every id, in sorted order, to the first row that has it."""
        rows: dict[str, int] = {}
        for row, image_id in enumerate(self.ids):
            rows.setdefault(image_id, row)
        return dict(sorted(rows.items()))


@dataclass(frozen=True)
class Features:
    """Image features of one backbone.

    Attributes:
        values: Unit rows, float32.
        ids: One stable id per row.
        backbone: Name of the model that made them; features of two backbones never mix.
        views: Unit rows of augmented views of the same images, for methods that train on them;
            None where there are none.
    """

    values: Float[Tensor, "n d"]
    ids: tuple[str, ...]
    backbone: str
    views: Float[Tensor, "v n d"] | None = None

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.values):
            raise ValueError(f"{len(self.ids)} ids for {len(self.values)} feature rows")
        if self.views is not None and self.views.shape[1:] != self.values.shape:
            raise ValueError(
                f"views of shape {tuple(self.views.shape)} for features of shape "
                f"{tuple(self.values.shape)}"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def subset(self, rows: Int[Tensor, " m"]) -> "Features":
        """Return the chosen rows, in the given order."""
        return replace(
            self,
            values=self.values[rows],
            ids=tuple(self.ids[i] for i in rows.tolist()),
            views=None if self.views is None else self.views[:, rows],
        )

    def content_order(self) -> Int[Tensor, " n"]:
        """Return the rows in order of a hash of their values: no name and no order can change it.

        Rows of equal values follow their ids.
        """
        return self._content_order

    @cached_property
    def _content_order(self) -> Int[Tensor, " n"]:
        keys = row_hashes(self.values.detach().cpu().numpy())
        order = np.argsort(keys, kind="stable")
        ranked = keys[order]
        same = ranked[1:] == ranked[:-1]
        for start in np.flatnonzero(same & ~np.r_[False, same[:-1]]):
            end = int(np.searchsorted(ranked, ranked[start], side="right"))
            order[start:end] = sorted(order[start:end], key=self.ids.__getitem__)
        return torch.from_numpy(order)


def row_hashes(values: Float[np.ndarray, "n d"]) -> UInt64[np.ndarray, " n"]:
    """Return a 64-bit hash of every row's bytes: a sum of its words, each times an odd number.

    Rows that differ in one word never share a hash, others with a chance of about 2^-60.
    """
    raw = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)
    padded = -raw.shape[1] % 8
    generator = np.random.default_rng(0)
    width = (raw.shape[1] + padded) // 8
    factors = generator.integers(0, 2**64, width, dtype=np.uint64) | np.uint64(1)
    hashes = np.empty(len(values), np.uint64)
    # torch has no unsigned products, but those of signed words have the same bits, on all cores
    signed = torch.from_numpy(factors.view(np.int64))
    for start in range(0, len(values), 4096):
        rows = raw[start : start + 4096]
        words = np.ascontiguousarray(np.pad(rows, ((0, 0), (0, padded)))) if padded else rows
        sums = (torch.from_numpy(words.view(np.int64)) * signed).sum(dim=1)
        hashes[start : start + 4096] = sums.numpy().view(np.uint64)
    return hashes


@dataclass(frozen=True)
class TextClassifier:
    """Class weights made from text: the zero-shot classifier.

    Attributes:
        weights: Unit rows, one per class.
        logit_scale: Multiplier of cosine similarity, already exponentiated (100 for OpenAI CLIP).
        class_names: Names of the rows; initial values of adapters are keyed by them.
    """

    weights: Float[Tensor, "c d"]
    logit_scale: float
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.class_names) != len(self.weights):
            raise ValueError(f"{len(self.class_names)} names for {len(self.weights)} text weights")

    def check_fits(self, features: Features) -> None:
        """Refuse features that these weights cannot score.

        Raises:
            ValueError: If the features have another dimension than the text weights.
        """
        if features.values.shape[1] != self.weights.shape[1]:
            raise ValueError(
                f"features of {features.backbone!r} have {features.values.shape[1]} dimensions, "
                f"the text weights {self.weights.shape[1]}; use one backbone for both"
            )

    def predict_logits(self, features: Features) -> Float[Tensor, "n c"]:
        """Return the scaled cosine similarity of every image with every class.

        Raises:
            ValueError: If the features have another dimension than the text weights.
        """
        self.check_fits(features)
        return features.values @ (self.logit_scale * self.weights).T


@dataclass(frozen=True)
class PromptShape:
    """What learned vectors must look like to enter a backbone.

    Attributes:
        text_width: Length of a text token's vector.
        image_width: Length of an image token's vector.
        image_layers: Layers of the image tower.
    """

    text_width: int
    image_width: int
    image_layers: int


@dataclass(frozen=True)
class PseudoLabels:
    """Machine-made labels for unlabelled images.

    Attributes:
        ids: One image id per row, in the order of the features they were made from.
        probs: Class probabilities; rows sum to one.
        candidates: Labels allowed in training. One True in a row is a hard pseudo-label, several
            are a candidate set, none leaves the image out.
        confidence: Training weight of each image, in [0, 1].
        places: Where classes have a limited number of places: the class whose place each image
            took, -1 for none. It may be another than its most probable candidate.
        weights: Of each image in the loss of prompts; None for 1.
    """

    ids: tuple[str, ...]
    probs: Float[Tensor, "n c"]
    candidates: Bool[Tensor, "n c"]
    confidence: Float[Tensor, " n"]
    places: Int[Tensor, " n"] | None = None
    weights: Float[Tensor, " n"] | None = None

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.probs):
            raise ValueError(f"{len(self.ids)} ids for {len(self.probs)} rows of probabilities")

    @cached_property
    def selected(self) -> Bool[Tensor, " n"]:
        """True where the image takes part in training."""
        # as bytes: ``any`` of bools takes three times as long
        return self.candidates.view(torch.uint8).amax(dim=1).bool()

    @cached_property
    def labels(self) -> Int[Tensor, " n"]:
        """The most probable candidate, -1 where the image is left out."""
        rows = self.selected.nonzero()[:, 0]
        labels = torch.full_like(self.selected, -1, dtype=torch.long)
        for block in torch.split(rows, LABELLED_AT_ONCE):
            best = self.probs[block].masked_fill(~self.candidates[block], -1.0).argmax(dim=1)
            labels[block] = best
        return labels

    @cached_property
    def targets(self) -> Float[Tensor, "n c"]:
        """The probabilities renormalised over each row's candidates, zero where there is none.

        A row whose candidates have no probability at all (a given label) shares it evenly.
        """
        return _renormalised(self.probs, self.candidates)

    def targets_of(self, rows: Int[Tensor, " m"]) -> Float[Tensor, "m c"]:
        """Return the chosen rows of ``targets``, without making the others."""
        return _renormalised(self.probs[rows], self.candidates[rows])

    def subset(self, rows: Int[Tensor, " m"]) -> "PseudoLabels":
        """Return the chosen rows, in the given order."""
        return PseudoLabels(
            tuple(self.ids[i] for i in rows.tolist()),
            self.probs[rows],
            self.candidates[rows],
            self.confidence[rows],
            None if self.places is None else self.places[rows],
            None if self.weights is None else self.weights[rows],
        )

    def check_fits(self, inputs: Features | ImageSet) -> None:
        """Refuse to be learnt from with other images, or with none selected.

        Raises:
            ValueError: If the rows are of other images or no image has a label.
        """
        if self.ids != inputs.ids:
            raise ValueError("pseudo-labels and inputs are of different images or orders")
        if not self.selected.any():
            raise ValueError(f"none of the {len(inputs)} images has a pseudo-label")


def _renormalised(
    probs: Float[Tensor, "m c"], candidates: Bool[Tensor, "m c"]
) -> Float[Tensor, "m c"]:
    kept = probs * candidates
    total = kept.sum(dim=1, keepdim=True)
    kept.div_(total.clamp(min=1e-30))
    even = (total[:, 0] <= 0) & candidates.any(dim=1)
    allowed = candidates[even]
    kept[even] = (allowed / allowed.sum(dim=1, keepdim=True)).to(kept.dtype)
    return kept


@dataclass(frozen=True)
class Predictions:
    """What export, report and review read.

    Attributes:
        probs: Class probabilities; rows sum to one.
        labels: Class index, -1 where the decision abstained.
        ids: One image id per row.
    """

    probs: Float[Tensor, "n c"]
    labels: Int[Tensor, " n"]
    ids: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.ids) == len(self.probs) == len(self.labels):
            raise ValueError(
                f"{len(self.ids)} ids, {len(self.probs)} rows and {len(self.labels)} labels"
            )


@runtime_checkable
class Scorer(Protocol):
    """The one verb that text classifiers, adapters and trained heads share."""

    def predict_logits(self, features: Features) -> Float[Tensor, "n c"]:
        """Return class logits for every row."""
        ...
