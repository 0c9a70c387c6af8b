"""A data set of a plan, opened: what may be adapted on, what is scored, and where each lies."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Int

from nameonly.bench.plan import DataPlan
from nameonly.datasets.reading import Dataset, OnProgress, Split, open_dataset
from nameonly.types import LabelSpace, class_key

Side = Literal["pool", "test"]
SIDES: tuple[Side, Side] = ("pool", "test")


@dataclass(frozen=True)
class BenchData:
    """An opened data set.

    Attributes:
        plan: What was asked for.
        scored: The data set whose images are scored.
        adapted: The data set that is adapted on: the same but for a test set alone.
    """

    plan: DataPlan
    scored: Dataset
    adapted: Dataset

    @property
    def label_space(self) -> LabelSpace:
        """The classes that are adapted to."""
        return self.adapted.label_space

    @cached_property
    def columns(self) -> Int[np.ndarray, " k"]:
        """Per class of the images that are scored, its column of ``label_space``."""
        places = {class_key(name): i for i, name in enumerate(self.label_space.class_names)}
        names = self.scored.label_space.class_names
        strange = [name for name in names if class_key(name) not in places]
        if strange:
            raise ValueError(
                f"{len(strange)} classes of {self.scored.name} are none of {self.adapted.name}, "
                f"{strange[0]!r} first; take a data set of the same classes for adapt_on"
            )
        return np.array([places[class_key(name)] for name in names], dtype=np.int64)

    def split(self, side: Side) -> Split:
        """Return the images to adapt on or those to score, and their truth."""
        half = self.plan.half
        if half is not None:
            return self.scored.train if half == "development" else self.scored.test
        return self.adapted.train if side == "pool" else self.scored.test

    def truth(self, side: Side) -> Int[np.ndarray, " n"]:
        """Return the true column of ``label_space`` of every image."""
        y_true = self.split(side).y_true
        own = self.plan.half is not None or side == "pool"
        return y_true if own else self.columns[y_true]

    def rows(self, side: Side, seed: int) -> Int[np.ndarray, " n"]:
        """Return the rows of a split that a seed adapts on, or scores.

        Of a half of the digits, a random half each; of others, all.
        """
        n = len(self.split(side).images)
        if self.plan.half is None:
            return np.arange(n)
        order = np.random.default_rng(seed).permutation(n)
        return order[: n // 2] if side == "pool" else order[n // 2 :]

    @cached_property
    def fingerprint(self) -> str:
        """A hash of class names, templates and of every image's place and class, read or not."""
        digest = hashlib.sha256()
        for dataset in (self.adapted, self.scored):
            digest.update(repr((dataset.name, dataset.label_space)).encode())
            for rows in (dataset.listing.train, dataset.listing.test):
                digest.update(b"\0split")
                for row in rows:
                    digest.update(f"\0{row.source}\0{row.key}".encode(errors="surrogateescape"))
        return digest.hexdigest()[:24]


def open_data(
    plan: DataPlan,
    templates: Literal["protocol", "customary", "recipe"],
    on_progress: OnProgress | None = None,
) -> BenchData:
    """List a data set in its folder; no image is read yet.

    Args:
        plan: Which, and where it lies.
        templates: Which of its templates go into the label space; ``"recipe"`` for none.
        on_progress: Called while a split is read.

    Raises:
        ValueError: If the folder is not what its makers publish, or no image is to be adapted on.
    """

    def opened(name: str, root: str | None) -> Dataset:
        chosen: Literal["protocol", "customary"] = (
            "protocol" if templates == "recipe" else templates
        )
        found = open_dataset(name, root, templates=chosen, on_progress=on_progress)
        if templates == "recipe":
            space = LabelSpace(found.label_space.class_names)
            return Dataset(found.description, space, found.listing, found.columns, on_progress)
        return found

    scored = opened(plan.name, plan.root)
    adapted = scored if plan.adapt_on is None else opened(plan.adapt_on, plan.adapt_root)
    data = BenchData(plan, scored, adapted)
    _ = data.columns
    return data
