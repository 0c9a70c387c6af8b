"""What a run says of its own labels: how accurate, how sure of each, which images fit no class."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nameonly.ops.scoring import most_probable, tempered
from nameonly.task import Task
from nameonly.trust import unknown
from nameonly.trust.accuracy import (
    AccuracyEstimate,
    Clusters,
    estimate_accuracy,
    find_clusters,
    label_stability,
    n_draws,
)
from nameonly.trust.calibration import combined_confidence, temperature_for
from nameonly.trust.class_prior import prior_warnings, transport_prior
from nameonly.types import Features, PseudoLabels, TextClassifier

LEVEL = 0.9
# of the largest class: one with fewer pseudo-labels was not meant to be as large
EQUAL = 0.8


@dataclass(frozen=True)
class Assessment:
    """Estimates from the unlabelled images alone, one row per distinct image.

    Attributes:
        accuracy: Of the labels given to images without a known one; None where none was given.
        temperature: Of the classifier, see ``trust/calibration.py``.
        confidence: That each image's most probable class is right, calibrated.
        unknown_scores: Higher for images that no name fits.
        suspected: Which of them stand out.
        class_prior: Estimated share of each class.
        warnings: What a person should look at, in words.
    """

    accuracy: AccuracyEstimate | None
    temperature: float
    confidence: Float[Tensor, " n"]
    unknown_scores: Float[Tensor, " n"]
    suspected: Bool[Tensor, " n"]
    class_prior: Float[Tensor, " c"]
    warnings: tuple[str, ...]

    def when_made(self) -> dict[str, Any]:
        """Return what a classifier keeps of this, which is about the images it was made with."""
        if self.accuracy is None:
            return {}
        ends = [round(end, 4) for end in (self.accuracy.low, self.accuracy.high)]
        told = {"accuracy": round(self.accuracy.value, 4), "interval": ends, "level": LEVEL}
        return {"estimated_when_made": told}

    def as_dict(self, class_names: tuple[str, ...]) -> dict[str, Any]:
        """Return plain data for ``run.json``."""
        found = self.accuracy
        per_class = [] if found is None else found.per_class.tolist()
        return {
            "level": LEVEL,
            "images": 0 if found is None else found.n,
            "temperature": self.temperature,
            "accuracy_of_labels": {
                name: None if value != value else round(value, 4)
                for name, value in zip(class_names, per_class, strict=False)
            },
            "class_prior": dict(
                zip(class_names, [round(v, 4) for v in self.class_prior.tolist()], strict=True)
            ),
            "suspected_unknown": int(self.suspected.sum()),
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class Level:
    """How sure a run's scores are, before anything is decided by them.

    Attributes:
        stability: Of every image's most probable class.
        accuracy: Estimated, of these classes.
        temperature: At which the mean confidence is that accuracy.
        clusters: Of the images, that the stability was found by.
    """

    stability: Float[Tensor, " n"]
    accuracy: float
    temperature: float
    clusters: Clusters


def find_level(
    features: Features,
    text: TextClassifier,
    logits: Float[Tensor, "n c"],
    clusters: Clusters | None = None,
) -> Level:
    """Return how sure scores are.

    Args:
        features: Unit rows.
        text: The zero-shot classifier, from whose labels clusters start.
        logits: The scores.
        clusters: Of the images, where they are known.
    """
    if clusters is None:
        clusters = find_clusters(features, most_probable(text, features), logits.shape[1])
    stability = label_stability(features, clusters, logits.argmax(dim=1))
    accuracy = stability.mean().item()
    return Level(stability, accuracy, temperature_for(logits, accuracy), clusters)


def assumed_equal(pseudo_labels: PseudoLabels | None) -> bool:
    """Return whether most images were taught in about equal numbers of each class."""
    if pseudo_labels is None or pseudo_labels.probs.shape[1] < 2:
        return False
    taught = pseudo_labels.labels[pseudo_labels.labels >= 0]
    counts = torch.bincount(taught, minlength=pseudo_labels.probs.shape[1])
    most = 2 * len(taught) > len(pseudo_labels.ids)
    return bool(most and counts.min() >= EQUAL * counts.max())


def assess(
    task: Task,
    logits: Float[Tensor, "n c"],
    labels: Int[Tensor, " n"],
    level: Level,
    pseudo_labels: PseudoLabels | None = None,
) -> Assessment:
    """Return what is estimated of labels.

    Args:
        task: The images, the classes and the given labels, which are left out of the estimate.
        logits: Of the images.
        labels: What was decided, -1 = none.
        level: Of these logits.
        pseudo_labels: What was learnt from, to tell whether equal classes were assumed.
    """
    probs = tempered(logits, level.temperature)
    found = Answered(probs.amax(dim=1), labels, transport_prior(probs), task.given)
    return assess_answers(task.features, task.text, found, level, pseudo_labels)


@dataclass(frozen=True)
class Answered:
    """What was answered to images, as far as it is assessed.

    Attributes:
        probability: Of every image's most probable class, at the classifier's temperature.
        labels: What was decided, -1 = none.
        class_prior: Estimated share of each class.
        given: Known labels, -1 = none, which are left out of the estimate.
    """

    probability: Float[Tensor, " n"]
    labels: Int[Tensor, " n"]
    class_prior: Float[Tensor, " c"]
    given: Int[Tensor, " n"] | None = None


def assess_answers(
    features: Features,
    text: TextClassifier,
    found: Answered,
    level: Level,
    pseudo_labels: PseudoLabels | None = None,
) -> Assessment:
    """Return what is estimated of labels, in memory that grows by the image alone.

    Args:
        features: Of the images, one row each.
        text: The zero-shot classifier.
        found: What was answered to them.
        level: Of these answers.
        pseudo_labels: What was learnt from, to tell whether equal classes were assumed.
    """
    names, labels = text.class_names, found.labels
    draws = n_draws(len(features), len(names), features.values.shape[1])
    confidence = combined_confidence(found.probability, level.stability, level.accuracy, draws)
    counted = labels >= 0
    if found.given is not None and not (found.given >= 0).all():
        counted &= found.given.to(labels.device) < 0
    estimate = None
    if counted.any():
        estimate = estimate_accuracy(
            features,
            level.clusters,
            labels,
            level=LEVEL,
            counted=counted,
            stability=level.stability,
        )
    prior = found.class_prior
    scores = unknown.combined_score(features, text, level.clusters.centres)
    warnings = prior_warnings(labels, prior, names, assumed_equal(pseudo_labels))
    return Assessment(
        estimate,
        level.temperature,
        confidence,
        scores,
        unknown.suspected(scores),
        prior,
        tuple(warning.text for warning in warnings),
    )
