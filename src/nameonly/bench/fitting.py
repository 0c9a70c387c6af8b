"""One fit and the answers it gives. Nothing in this file, or called from it, has seen a label."""

import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nameonly.bench.memory import PeakMemory
from nameonly.encoding import features_in_order
from nameonly.learning import scores
from nameonly.recipes import Recipe
from nameonly.task import Task
from nameonly.types import Features, ImageSet, PseudoLabels


@dataclass(frozen=True)
class Queries:
    """Images to score.

    Attributes:
        features: One row per image.
        images: The images, for a method that encodes them anew.
        columns: Classes that an answer may name.
    """

    features: Features
    images: ImageSet
    columns: Int[Tensor, " k"]


@dataclass(frozen=True)
class Answers:
    """What a fitted method says; labels are columns of the task's label space, -1 = none.

    Attributes:
        labels: Of the queries.
        zero_shot: Of the queries, by the class texts alone.
        pool_labels: Of the images it was fitted on.
        pool_zero_shot: Of these, by the class texts alone.
        pseudo_labels: What it learnt from, None where from none.
        seconds: Of the fit.
        memory: Of the fit.
        peak_memory: Megabytes.
    """

    labels: Int[Tensor, " m"]
    zero_shot: Int[Tensor, " m"]
    pool_labels: Int[Tensor, " n"]
    pool_zero_shot: Int[Tensor, " n"]
    pseudo_labels: PseudoLabels | None
    seconds: float
    memory: PeakMemory
    peak_memory: float | None


def answer(recipe: Recipe, task: Task, queries: Queries | None) -> Answers:
    """Fit a recipe and label the queries.

    Args:
        recipe: It stays as it is.
        task: What it may learn from.
        queries: What is labelled besides; None for the task's own images alone.

    Raises:
        ValueError: If the recipe refuses the task, or gives scores that are not finite.
    """
    memory = PeakMemory()
    begun = time.perf_counter()
    adapted = recipe.fit(task)
    seconds = time.perf_counter() - begun
    peak = memory.peak()
    pool_logits = _finite(scores(task, adapted))
    decision = recipe.decisions.fit(pool_logits, task.features)
    pool_labels = decision.decide(pool_logits, task.features)
    pool_zero_shot = task.text.predict_logits(task.features).argmax(dim=1)
    labels, zero_shot = pool_labels, pool_zero_shot
    if queries is not None:
        features, columns = queries.features, queries.columns
        zero_shot = columns[task.text.predict_logits(features)[:, columns].argmax(dim=1)]
        if adapted.backbone is not None:
            with TemporaryDirectory() as folder:
                features = features_in_order(queries.images, adapted.backbone, Path(folder))
        logits = _finite(adapted.scorer.predict_logits(features))[:, columns]
        decision = recipe.decisions.fit(pool_logits[:, columns], task.features)
        found = decision.decide(logits, features)
        labels = torch.where(found >= 0, columns[found], found)
    pseudo_labels = adapted.pseudo_labels
    return Answers(
        labels, zero_shot, pool_labels, pool_zero_shot, pseudo_labels, seconds, memory, peak
    )


def _finite(logits: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
    if not torch.isfinite(logits).all():
        raise ValueError("the method gave scores that are not finite")
    return logits
