"""The recipe whose labels cut the images into the clearest clusters.

Paper: Rousseeuw. Silhouettes: a Graphical Aid to the Interpretation and Validation of Cluster
    Analysis. Journal of Computational and Applied Mathematics, 1987, section 2.
Differs: of cosine distance, on a sample of the images; labels of a recipe stand in for clusters.
"""

from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Int
from sklearn.metrics import silhouette_score
from torch import Tensor

from nameonly import methods
from nameonly.learning import scores
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
    """Tries every recipe at its own settings.

    Attributes:
        recipes: Names of those to try, the plainest first: of equals the first is taken.
        sample: How many images silhouettes are computed on, at a cost of its square.
        seed: Of the recipes.
    """

    recipes: tuple[str, ...] = ("zero_shot", "up_adapter", "tip_adapter", "transclip", "zlap")
    sample: int = 5_000
    seed: int = 0

    def __post_init__(self) -> None:
        known = methods.names("recipes")
        wrong = [name for name in self.recipes if name not in known or name == "auto"]
        if wrong or not self.recipes:
            valid = [name for name in known if name != "auto"]
            raise ValueError(
                f"no recipe {', '.join(wrong) or '(none)'} to try; {methods.offer('', valid)}"
            )
        if self.sample < 2:
            raise ValueError(f"sample must be at least 2, got {self.sample}")

    def choose(self, task: Task) -> Adapted:
        """Return the best recipe's result; one that refuses the task is told and left out.

        Raises:
            ValueError: If every recipe refuses it.
        """
        best: Adapted | None = None
        rows: list[dict[str, Any]] = []
        votes: list[Int[Tensor, " n"]] = []
        for number, name in enumerate(self.recipes):
            if task.on_progress is not None:
                task.on_progress(number, len(self.recipes))
            try:
                quiet = replace(task, on_progress=None)
                adapted = methods.build_recipe(name, seed=self.seed).fit(quiet)
                labels = scores(task, adapted).argmax(dim=1)
            except ValueError as error:
                rows.append({"recipe": name, "refused": str(error)})
                continue
            value = mean_silhouette(task.features, labels, self.sample)
            known = [row["silhouette"] for row in rows if "silhouette" in row]
            rows.append({"recipe": name, "silhouette": value})
            votes.append(labels)
            if best is None or value > max(known):
                best = adapted
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
