"""The candidate whose labels cut the images into the clearest clusters.

Paper: Rousseeuw. Silhouettes: a Graphical Aid to the Interpretation and Validation of Cluster
    Analysis. Journal of Computational and Applied Mathematics, 1987, section 2.
Differs: of cosine distance, on a sample of the images; labels of a recipe stand in for clusters.
    Where backbones are tried, every labelling is judged in the features of each, and their mean is
    what counts: a backbone that crowds its images together would judge its own labels mildly.
"""

from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

from jaxtyping import Int
from sklearn.metrics import silhouette_score
from torch import Tensor

from nameonly.learning import scores
from nameonly.prompts import Prompts
from nameonly.selection._candidates import (
    Candidate,
    every_candidate,
    features_by_backbone,
    open_backbones,
    task_of,
)
from nameonly.task import Adapted, Task
from nameonly.trust.accuracy import dawid_skene, mean_agreement
from nameonly.types import Features

__all__ = ["Silhouette"]


def mean_silhouette(features: Features, labels: Int[Tensor, " n"], most: int) -> float:
    """Return the mean silhouette of labels, in [-1, 1]; -1 where they are all the same.

    Args:
        features: Unit rows.
        labels: Class indices.
        most: Images that it is computed on, the first ones in order of their content.
    """
    rows = features.content_order()[:most]
    values, found = features.values[rows].cpu(), labels.cpu()[rows]
    if not 1 < len(set(found.tolist())) < len(found):
        return -1.0
    return float(silhouette_score(values.numpy(), found.numpy(), metric="cosine"))


@dataclass(frozen=True)
class Silhouette:
    """Tries every recipe, under every prompt, on every backbone.

    Attributes:
        recipes: Those to try, the plainest first: of equals the first is taken. A name, and after
            it settings: ``"up_adapter pseudo_labels.images_per_class=16"``.
        prompts: What ``prompts.templates`` takes, to be tried beside the run's own.
        backbones: Names of further ones, to be tried beside the run's own.
        sample: How many images silhouettes are computed on, at a cost of its square.
        seed: Of the recipes.
    """

    recipes: tuple[str, ...] = ("zero_shot", "up_adapter", "tip_adapter", "transclip", "zlap")
    prompts: tuple[str, ...] = ()
    backbones: tuple[str, ...] = ()
    sample: int = 5_000
    seed: int = 0

    def __post_init__(self) -> None:
        self.candidates()
        if self.sample < 2:
            raise ValueError(f"sample must be at least 2, got {self.sample}")

    def candidates(self) -> list[Candidate]:
        """Return what is tried, in that order.

        Raises:
            ValueError: If a recipe, a setting or a set of templates does not exist.
        """
        return every_candidate(self.recipes, self.prompts, self.backbones, self.seed)

    def choose(self, task: Task, prompts: Prompts) -> Adapted:
        """Return the best candidate's result; one that refuses the task is told and left out.

        Raises:
            ValueError: If every candidate refuses it, or a backbone cannot be had.
        """
        if self.prompts and (task.label_space.templates or task.label_space.prompts):
            raise ValueError(
                "the classes bring texts of their own, which stand in for any templates; leave "
                "selection.prompts out"
            )
        backbones = open_backbones(task, self.backbones)
        spaces = features_by_backbone(task, backbones)
        best: Adapted | None = None
        rows: list[dict[str, Any]] = []
        votes: list[Int[Tensor, " n"]] = []
        candidates = self.candidates()
        for number, candidate in enumerate(candidates):
            if task.on_progress is not None:
                task.on_progress(number, len(candidates))
            folder = task.checkpoints and task.checkpoints / f"candidate-{number}"
            own = replace(task, on_progress=None, checkpoints=folder)
            key = candidate.backbone
            try:
                seen = task_of(own, candidate, prompts, backbones[key], spaces[key])
                adapted = candidate.recipe(self.seed).fit(seen)
                labels = scores(seen, adapted).argmax(dim=1)
            except ValueError as error:
                rows.append({**candidate.row(), "refused": str(error)})
                continue
            value = mean(mean_silhouette(f, labels, self.sample) for f in spaces.values())
            known = [row["silhouette"] for row in rows if "silhouette" in row]
            rows.append({**candidate.row(), "silhouette": value})
            votes.append(labels)
            if best is None or value > max(known):
                best = replace(adapted, task=replace(seen, on_progress=task.on_progress))
        if best is None:
            raise ValueError(f"no recipe could be tried; {rows[0]['recipe']}: {rows[0]['refused']}")
        return replace(best, candidates=tuple(_told(rows, votes, len(task.label_space))))


def _told(
    rows: list[dict[str, Any]], votes: list[Int[Tensor, " n"]], n_classes: int
) -> list[dict[str, Any]]:
    """Return the rows with what the recipes say of each other, the chosen one marked."""
    tried = [row for row in rows if "silhouette" in row]
    agreement = mean_agreement(votes) if len(votes) > 1 else [1.0]
    observed = dawid_skene(votes, n_classes).accuracy.tolist()
    for row, share, accuracy in zip(tried, agreement, observed, strict=True):
        row |= {"agreement": share, "observed_accuracy": accuracy, "chosen": False}
    max(tried, key=lambda row: row["silhouette"])["chosen"] = True
    return rows
