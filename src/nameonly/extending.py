"""A run of more images than can be learnt from at once: learn from some, then label all."""

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nameonly.assessment import Answered, Assessment, Level, assess_answers
from nameonly.backbones import Backbone
from nameonly.classifier import Classifier
from nameonly.encoding import encode_image_set
from nameonly.journal import Journal
from nameonly.ops.scoring import most_probable
from nameonly.ops.selection import row_blocks
from nameonly.pipeline import Inputs, Outcome, adapt
from nameonly.predicting import predict_sources
from nameonly.preparation import Setup, given_labels
from nameonly.task import Task
from nameonly.trust.accuracy import find_clusters, label_stability
from nameonly.types import Features, Predictions


def adapt_on_some(
    inputs: Inputs,
    n: int,
    seed: int,
    setup: Setup,
    journal: Journal,
    made: dict[str, Any],
    kept: ExitStack,
) -> Outcome:
    """Adapt to a random sample of the images, and label every source with the classifier.

    What is estimated of the labels is estimated of all of them; the temperature is the sample's.

    Args:
        inputs: All images.
        n: Distinct images to learn from: those whose label is given, and others at random. Where
            there are no more, this is ``adapt``.
        seed: Of the sample.
        setup: What was asked.
        journal: Times the stages.
        made: What the classifier shall say of how it was made.
        kept: Holds the training's checkpoints until it is closed without an error.

    Raises:
        ValueError: If the sample has no room for an image without a given label, or see ``adapt``.
    """
    if n >= len(inputs.features):
        return adapt(inputs, setup, journal, made, kept)
    given = None
    if setup.given is not None:
        given = given_labels(setup.given, inputs.features, inputs.images, setup.label_space)
    some = _subset(inputs, draw(len(inputs.features), n, seed, given))
    learnt = adapt(some, setup, journal, made, kept)
    assert learnt.task is not None
    with journal.stage("encode all"):
        seen, read = _features(inputs, setup, learnt.task, learnt.classifier, journal)
    inputs, rows = replace(inputs, features=seen), inputs.feature_rows()
    with journal.stage("decide all"):
        predictions = predict_sources(learnt.classifier, read, rows, setup.cache)
        zero_shot = most_probable(learnt.task.text, seen)
    with journal.stage("assess all"):
        assessment = _assessed(learnt, seen, predictions, zero_shot, given, rows)
    return replace(
        learnt,
        inputs=inputs,
        predictions=predictions,
        zero_shot=zero_shot[rows],
        given=None if given is None else given[rows],
        transductive=False,
        assessment=assessment,
    )


def draw(n: int, wanted: int, seed: int, given: Int[Tensor, " n"] | None) -> Int[Tensor, " m"]:
    """Return the rows to learn from, in their order: those with a given label, others at random.

    Args:
        n: Images.
        wanted: How many rows.
        seed: Of the draw.
        given: Known labels, -1 = none.

    Raises:
        ValueError: If there are as many given labels as rows.
    """
    known = torch.zeros(n, dtype=torch.bool) if given is None else given >= 0
    open_ = (~known).nonzero()[:, 0]
    left = wanted - int(known.sum())
    if left < 1:
        raise ValueError(
            f"{int(known.sum()):,} images with given labels leave no room for others among the "
            f"{wanted:,} to adapt on; raise --adapt-on"
        )
    generator = torch.Generator().manual_seed(seed)
    known[open_[torch.randperm(len(open_), generator=generator)[:left]]] = True
    return known.nonzero()[:, 0]


def _subset(inputs: Inputs, rows: Int[Tensor, " m"]) -> Inputs:
    """Return some distinct images with all of their sources."""
    features, images = inputs.features.subset(rows), inputs.images
    if images is not None:
        chosen = torch.zeros(len(inputs.features), dtype=torch.bool)
        chosen[rows] = True
        images = images.subset(chosen[inputs.feature_rows()].nonzero()[:, 0].tolist())
    return replace(inputs, features=features, images=images)


def _features(
    inputs: Inputs, setup: Setup, task: Task, classifier: Classifier, journal: Journal
) -> tuple[Features, Features]:
    """Return the features that labels are assessed by, and those that the classifier reads."""

    def made_by(backbone: Backbone, anew: bool) -> Features:
        images = inputs.distinct_images()
        assert images is not None
        engine = None if anew else setup.engine  # what was just trained is on this machine alone
        found = encode_image_set(images, backbone, setup.cache, journal.on_progress, engine)
        if found.quarantined:
            first = found.quarantined[0]
            raise ValueError(f"{first.source} could be read before, and now: {first.reason}")
        return found.features

    chosen = task.backbone or setup.backbone
    seen = inputs.features if chosen is setup.backbone else made_by(chosen, anew=False)
    read = seen if classifier.backbone is chosen else made_by(classifier.backbone, anew=True)
    return seen, read


def _assessed(
    learnt: Outcome,
    features: Features,
    predictions: Predictions,
    zero_shot: Int[Tensor, " n"],
    given: Int[Tensor, " n"] | None,
    rows: Int[Tensor, " s"],
) -> Assessment:
    """Return what is estimated of the labels of all images."""
    assert learnt.assessment is not None and learnt.task is not None
    source = torch.empty(len(features), dtype=torch.long)
    source[rows] = torch.arange(len(rows))  # of copies any will do
    probability, best = _tops(learnt.classifier, predictions.probs, source)
    clusters = find_clusters(features, zero_shot, predictions.probs.shape[1])
    stability = label_stability(features, clusters, best)
    accuracy = stability.mean().item()
    level = Level(stability, accuracy, learnt.classifier.temperature, clusters)
    labels, prior = predictions.labels[source], learnt.assessment.class_prior
    answered = Answered(probability, labels, prior, given)
    return assess_answers(features, learnt.task.text, answered, level, learnt.pseudo_labels)


def _tops(
    classifier: Classifier, probs: Float[Tensor, "s c"], source: Int[Tensor, " n"]
) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
    """Return every image's largest probability at the temperature, and its class."""
    values, classes = torch.empty(len(source)), torch.empty(len(source), dtype=torch.long)
    for rows in row_blocks(len(source), probs.shape[1]):
        values[rows], classes[rows] = classifier.calibrated(probs[source[rows]]).max(dim=1)
    return values, classes
