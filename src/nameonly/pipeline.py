"""The run, every step visible: ingest -> encode -> text -> adapt -> decide.

Nothing is written here but the feature store; ``jobs`` writes what a run gives.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict, Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nameonly.assessment import Assessment, assess, find_level
from nameonly.backbones import Backbone
from nameonly.backbones._feature_file import is_feature_file
from nameonly.backbones.precomputed import PrecomputedBackbone
from nameonly.classifier import Classifier
from nameonly.encoding import encode_image_set
from nameonly.engines import Engine
from nameonly.images import Quarantined, open_images, shortened
from nameonly.journal import Journal
from nameonly.learning import scores
from nameonly.ops.scoring import most_probable
from nameonly.predicting import per_source, predict_sources
from nameonly.preparation import (
    Setup,
    ensemble_logits,
    given_labels,
    text_classifier,
    training_folder,
)
from nameonly.task import Adapted, Support, Task
from nameonly.trust.synthetic import Measured, measure
from nameonly.types import Features, ImageSet, Predictions, PseudoLabels

ImageSpec = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class Inputs:
    """Encoded input of a run.

    Attributes:
        features: One row per distinct readable image, in order of id.
        images: One row per readable source; None for the user's own features.
        quarantined: Sources that could not be read, with reasons.
        n_encoded: Images that went through the model now.
        repairs: What the feature store found damaged.
    """

    features: Features
    images: ImageSet | None
    quarantined: tuple[Quarantined, ...]
    n_encoded: int = 0
    repairs: tuple[str, ...] = ()

    @property
    def sources(self) -> tuple[str, ...]:
        """One readable source per row of the result."""
        return self.features.ids if self.images is None else self.images.sources

    def distinct_images(self) -> ImageSet | None:
        """Return one image per row of the features, in their order."""
        if self.images is None:
            return None
        first = self.images.first_rows()
        return self.images.subset([first[i] for i in self.features.ids])

    def feature_rows(self) -> Int[Tensor, " s"]:
        """Return, for every source, the row of its features."""
        return self._feature_rows

    @cached_property
    def _feature_rows(self) -> Int[Tensor, " s"]:
        if self.images is None:
            return torch.arange(len(self.features))
        row = {image_id: i for i, image_id in enumerate(self.features.ids)}
        return torch.tensor([row[i] for i in self.images.ids], dtype=torch.long)


@dataclass(frozen=True)
class Outcome:
    """What a run gives, one row per source.

    Attributes:
        inputs: What was labelled.
        classifier: The product.
        predictions: One row per source; duplicates have equal rows.
        zero_shot: What the text classifier alone says; None when predicting with a saved one.
        pseudo_labels: What the recipe was fitted on, over distinct images.
        given: Known label of every source, -1 = none; None where none were given.
        transductive: Whether these predictions say more of these images than the classifier does.
        support: The synthetic images that were learnt from, where there were some.
        worth: What these are worth, beside the images that were labelled.
        assessment: What is estimated of the labels; None when predicting with a saved classifier.
        candidates: The recipes tried, where one was chosen among them.
        task: What was learnt from; None when predicting with a saved classifier.
    """

    inputs: Inputs
    classifier: Classifier
    predictions: Predictions
    zero_shot: Int[Tensor, " n"] | None = None
    pseudo_labels: PseudoLabels | None = None
    given: Int[Tensor, " n"] | None = None
    transductive: bool = False
    support: Support | None = None
    worth: Measured | None = None
    assessment: Assessment | None = None
    candidates: tuple[dict[str, Any], ...] = ()
    task: Task | None = None


class ReadOptions(TypedDict, total=False):
    """What ``read_inputs`` may be told.

    Keys:
        limit: Take a random sample of this many sources.
        seed: Of that sample.
        column: Column of images in a table.
        check: Called with the number of images before any is encoded, to refuse too many.
        engine: Reads and encodes first what it can; None leaves all to this process.
    """

    limit: int | None
    seed: int
    column: str | None
    check: Callable[[int], None]
    engine: Engine | None


def read_inputs(
    source: ImageSpec,
    backbone: Backbone,
    cache: Path,
    journal: Journal,
    **options: Unpack[ReadOptions],
) -> Inputs:
    """Open and encode images, or read a file of features.

    Args:
        source: What ``open_images`` takes, or an npz or safetensors file.
        backbone: Makes the features; for a file of features, the reader of that file.
        cache: Folder of the feature stores.
        journal: Times the stages.
        options: See ``ReadOptions``.

    Raises:
        ValueError: If nothing readable is found, the file of features is bad, or there are too
            many images.
    """
    limit, seed = options.get("limit"), options.get("seed", 0)
    check, engine = options.get("check"), options.get("engine")
    with journal.stage("load"):  # a model that cannot be had must show before images are read
        _ = backbone.dim, backbone.image_key
    if isinstance(backbone, PrecomputedBackbone):
        with journal.stage("ingest"):
            features = _sample(backbone.features, limit, seed)
            if check is not None:
                check(len(features))
            return Inputs(features, None, ())
    with journal.stage("ingest"):
        images, unreadable = open_images(
            source,
            column=options.get("column"),
            limit=limit,
            seed=seed,
            on_progress=journal.on_progress,
            hash_all=None if engine is None else engine.hash_locations,
        )
        if check is not None:
            check(len(images))
    with journal.stage("encode"):
        encoded = encode_image_set(images, backbone, cache, journal.on_progress, engine)
    kept = images
    if encoded.quarantined:
        bad = {entry.source for entry in encoded.quarantined}
        kept = images.subset([row for row, name in enumerate(images.sources) if name not in bad])
    quarantined = sorted([*unreadable, *encoded.quarantined], key=lambda q: q.source)
    for entry in quarantined:
        journal.write("quarantined", source=entry.source, reason=entry.reason)
    for words in encoded.repairs:
        journal.write("repaired", words=words)
    made, repairs = encoded.n_encoded, tuple(encoded.repairs)
    return Inputs(encoded.features, kept, tuple(quarantined), made, repairs)


def adapt(
    inputs: Inputs, setup: Setup, journal: Journal, made: Mapping[str, Any], kept: ExitStack
) -> Outcome:
    """Adapt to the features and label every source.

    Args:
        inputs: What to adapt to.
        setup: What was asked.
        journal: Times the stages.
        made: What the classifier shall say of how it was made.
        kept: Holds the training's checkpoints until it is closed without an error.

    Raises:
        ValueError: If the names, the texts, the given labels or the features do not fit each other.
    """
    with journal.stage("text"):
        task = _task(inputs, setup, journal)
    if setup.ensemble:
        with journal.stage("ensemble"):
            start = ensemble_logits(setup, task, journal.on_progress)
            task = replace(task, start=start)
    with journal.stage("adapt"):
        folder = kept.enter_context(training_folder(setup, task))
        adapted = setup.recipe.fit(replace(task, checkpoints=folder))
    task = adapted.task or task
    features, text = task.features, task.text
    inputs = replace(inputs, features=features)
    support, worth = adapted.support, None
    if support is not None:
        with journal.stage("measure"):
            tricks = [str(row["trick"]) for row in support.rows]
            worth = measure(support.features, support.labels, text, features, tricks)
    with journal.stage("decide"):
        logits = scores(task, adapted)
        level = find_level(features, text, logits)
        given = task.given
        known = {} if given is None else {"given": int((given >= 0).sum())}
        made = {**made, "images": len(features), **known}
        if adapted.candidates:
            made["chosen"] = next(row for row in adapted.candidates if row.get("chosen"))
        classifier = _classifier(setup, task, adapted, logits, level.temperature, made)
        found = classifier.decide(logits, features)
        transductive = adapted.logits is not None and adapted.backbone is None
        if transductive:  # its classifier has scores of its own, and another temperature
            own = adapted.scorer.predict_logits(features)
            warmth = find_level(features, text, own, level.clusters).temperature
            classifier = _classifier(setup, task, adapted, own, warmth, made)
        rows = inputs.feature_rows()
        zero_shot = most_probable(text, features)[rows]
    with journal.stage("assess"):
        assessment = assess(task, logits, found.labels, level, adapted.pseudo_labels)
        classifier = replace(classifier, made={**made, **assessment.when_made()})
    return Outcome(
        inputs,
        classifier,
        per_source(found, rows),
        zero_shot,
        adapted.pseudo_labels,
        None if given is None else given[rows],
        transductive,
        support,
        worth,
        assessment,
        adapted.candidates,
        task,
    )


def _task(inputs: Inputs, setup: Setup, journal: Journal) -> Task:
    """Return what the recipe is given."""
    given = None
    if setup.given is not None:
        given = given_labels(setup.given, inputs.features, inputs.images, setup.label_space)
    return Task(
        inputs.features,
        text_classifier(setup),
        setup.label_space,
        given,
        backbone=None if isinstance(setup.backbone, PrecomputedBackbone) else setup.backbone,
        images=inputs.distinct_images(),
        cache=setup.cache,
        engine=setup.engine,
        on_progress=journal.on_progress,
        on_note=journal.listener,
    )


def _classifier(
    setup: Setup,
    task: Task,
    adapted: Adapted,
    logits: Float[Tensor, "n c"],
    temperature: float,
    made: Mapping[str, Any],
) -> Classifier:
    """Return the product, whose decision has seen the unlabelled scores."""
    backbone = adapted.backbone or task.backbone or setup.backbone
    fingerprint = str(backbone.reference().get("fingerprint", ""))
    decision = deepcopy(setup.recipe.decisions).fit(logits / temperature, task.features)
    return Classifier(
        backbone, adapted.scorer, decision, setup.label_space, fingerprint, made, temperature
    )


def score(inputs: Inputs, classifier: Classifier, cache: Path, journal: Journal) -> Outcome:
    """Label every source with a classifier that exists.

    Raises:
        ValueError: If the features were made by another backbone.
    """
    with journal.stage("decide"):
        rows = inputs.feature_rows()
        predictions = predict_sources(classifier, inputs.features, rows, cache)
    return Outcome(inputs, classifier, predictions)


def backbone_for(source: ImageSpec, backbone: Backbone) -> Backbone:
    """Return the reader of a file of features, or the backbone for images.

    Raises:
        ValueError: If a classifier of own features is given images.
    """
    if is_feature_file(source):
        return PrecomputedBackbone(str(source))
    if isinstance(backbone, PrecomputedBackbone):
        raise ValueError(
            f"this classifier was made from own features of {backbone.dim} dimensions; it reads an "
            f"npz or safetensors file of such features, not {shortened(source)}"
        )
    return backbone


def _sample(features: Features, limit: int | None, seed: int) -> Features:
    if limit is None or limit >= len(features):
        return features
    if limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    generator = torch.Generator().manual_seed(seed)
    return features.subset(torch.randperm(len(features), generator=generator)[:limit].sort().values)
