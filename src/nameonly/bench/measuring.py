"""One run from rows of a data set to a row of figures."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from nameonly.backbones import Backbone
from nameonly.bench.data import SIDES, BenchData
from nameonly.bench.draws import Draw, draw
from nameonly.bench.fitting import Answers, Queries, answer
from nameonly.bench.plan import Plan
from nameonly.bench.rows import Row
from nameonly.bench.runs import Run
from nameonly.bench.scoring import figures
from nameonly.encoding import build_text_classifier, features_in_order
from nameonly.journal import Journal
from nameonly.methods import build_recipe
from nameonly.recipes import Recipe
from nameonly.task import Task
from nameonly.types import Features, ImageSet

Values = dict[int, Float[Tensor, "n d"]]


@dataclass(frozen=True)
class Context:
    """What all runs of a plan share.

    Attributes:
        plan: The plan.
        backbone: Makes the features.
        cache: Folder of the feature stores.
    """

    plan: Plan
    backbone: Backbone
    cache: Path


def encode(data: BenchData, context: Context, journal: Journal) -> Values:
    """Return the features of both splits of a data set, by the identity of the split.

    Raises:
        ValueError: If an image cannot be read or decoded.
    """
    values: Values = {}
    for side in SIDES:
        with journal.stage("ingest"):
            split = data.split(side)
        if id(split) not in values and len(split.images):
            with journal.stage("encode"):
                values[id(split)] = features_in_order(
                    split.images, context.backbone, context.cache, journal.on_progress
                ).values
    return values


def measure(run: Run, data: BenchData, values: Values, context: Context, journal: Journal) -> Row:
    """Make one run; the truth is looked at when its answers stand.

    Args:
        run: The run.
        data: Its data set.
        values: See ``encode``.
        context: What it shares with other runs.
        journal: Hears of progress.

    Raises:
        ValueError: If there are not the images it needs, or the method refuses them.
    """
    drawn = draw(data, run, context.plan)
    answers = _answers(run, data, drawn, values, context, journal)
    y_pool = data.truth(drawn.adapt_side)[drawn.adapt_rows]
    y_true = data.truth(drawn.score_side)[drawn.score_rows]
    pool = set(data.split(drawn.adapt_side).images.subset(drawn.adapt_rows.tolist()).ids)
    test = data.split(drawn.score_side).images.subset(drawn.score_rows.tolist()).ids
    return {
        **figures(answers, y_pool, y_true, drawn),
        "n_pool": len(y_pool),
        "n_given": 0 if drawn.given is None else int((drawn.given >= 0).sum()),
        "n_test": len(y_true),
        "n_test_in_pool": sum(image_id in pool for image_id in test),
        "fit_seconds": answers.seconds,
        "peak_memory_mb": answers.peak_memory,
        "memory_before_mb": answers.memory.before,
        "peak_memory_of": answers.memory.of,
    }


def _answers(
    run: Run, data: BenchData, drawn: Draw, values: Values, context: Context, journal: Journal
) -> Answers:
    """Fit and score. Truth comes here as given labels alone."""
    recipe: Recipe = build_recipe(run.method.recipe, run.method.set, run.seed)
    space = data.label_space
    if drawn.seen is not None:
        space = replace(space, seen=tuple(drawn.seen.tolist()))
    texts = recipe.prompts.texts(space)
    text = build_text_classifier(texts, space, context.backbone, context.cache)
    features, images = _chosen(data, drawn, values, context, adapt=True)
    task = Task(
        features,
        text,
        space,
        given=None if drawn.given is None else torch.from_numpy(drawn.given),
        backbone=context.backbone,
        images=images,
        cache=context.cache,
        on_progress=journal.on_progress,
    )
    if run.batch is not None:
        return answer(recipe, task, None)
    queries, images = _chosen(data, drawn, values, context, adapt=False)
    return answer(recipe, task, Queries(queries, images, torch.from_numpy(data.columns)))


def _chosen(
    data: BenchData, drawn: Draw, values: Values, context: Context, *, adapt: bool
) -> tuple[Features, ImageSet]:
    """Return drawn images and their features; images are named by their id.

    A source is not handed on: its folder may tell the class.
    """
    side, rows = (
        (drawn.adapt_side, drawn.adapt_rows) if adapt else (drawn.score_side, drawn.score_rows)
    )
    split = data.split(side)
    images = split.images.subset(rows.tolist())
    numbered = tuple(f"{i}:{image_id}" for i, image_id in enumerate(images.ids))
    features = Features(
        values[id(split)][torch.from_numpy(rows)], images.ids, context.backbone.name
    )
    return features, ImageSet(numbered, images.ids, images.locations)
