"""What a run says of its own labels: how accurate, how sure of each, which images fit no class."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor

from nameonly.task import Task
from nameonly.trust import unknown
from nameonly.trust.accuracy import (
    AccuracyEstimate,
    class_centres,
    estimate_accuracy,
    label_stability,
    n_draws,
)
from nameonly.trust.calibration import combined_confidence, temperature_for
from nameonly.trust.class_prior import prior_warnings, transport_prior
from nameonly.types import Features, TextClassifier

LEVEL = 0.9


@dataclass(frozen=True)
class Assessment:
    """Estimates from the unlabelled images alone, one row per distinct image.

    Attributes:
        accuracy: Of the labels given to images without a known one; None where none was given.
        temperature: Of the classifier, see ``trust/calibration.py``.
        confidence: That each image's most probable class is right, calibrated.
        unknown_scores: Higher for images that no name fits.
        suspected: Which of them stand out.
        class_shares: Estimated.
        warnings: What a person should look at, in words.
    """

    accuracy: AccuracyEstimate | None
    temperature: float
    confidence: Float[Tensor, " n"]
    unknown_scores: Float[Tensor, " n"]
    suspected: Bool[Tensor, " n"]
    class_shares: Float[Tensor, " c"]
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
            "class_shares": dict(
                zip(class_names, [round(v, 4) for v in self.class_shares.tolist()], strict=True)
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
    """

    stability: Float[Tensor, " n"]
    accuracy: float
    temperature: float


def find_level(features: Features, text: TextClassifier, logits: Float[Tensor, "n c"]) -> Level:
    """Return how sure scores are."""
    start, top = text.predict_logits(features).argmax(dim=1), logits.argmax(dim=1)
    stability = label_stability(features, start, top, logits.shape[1])
    accuracy = stability.mean().item()
    return Level(stability, accuracy, temperature_for(logits, accuracy))


def assess(
    task: Task, logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"], level: Level
) -> Assessment:
    """Return what is estimated of labels.

    Args:
        task: The images, the classes and the given labels, which are left out of the estimate.
        logits: Of the images.
        labels: What was decided, -1 = none.
        level: Of these logits.
    """
    features, names = task.features, task.text.class_names
    start = task.text.predict_logits(features).argmax(dim=1)
    probs = (logits / level.temperature).softmax(dim=1)
    draws = n_draws(len(features), len(names), features.values.shape[1])
    confidence = combined_confidence(probs.amax(dim=1), level.stability, level.accuracy, draws)
    counted = labels >= 0
    if task.given is not None and not (task.given >= 0).all():
        counted &= task.given.to(labels.device) < 0
    estimate = None
    if counted.any():
        estimate = estimate_accuracy(
            features,
            start,
            labels,
            len(names),
            level=LEVEL,
            counted=counted,
            stability=level.stability,
        )
    shares = transport_prior(probs)
    centres, _ = class_centres(features.values.float(), start, len(names))
    scores = unknown.combined_score(features, task.text, centres)
    warnings = prior_warnings(labels, shares, names)
    return Assessment(
        estimate,
        level.temperature,
        confidence,
        scores,
        unknown.suspected(scores),
        shares,
        tuple(warning.text for warning in warnings),
    )
