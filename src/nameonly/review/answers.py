"""What the server answers: plain data, made from the labels, the queues and the decisions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from nameonly.review.decisions import ACCEPTED, CORRECTED, NONE, UNDONE, UNSURE, Decisions, Wish
from nameonly.review.labels import RunLabels
from nameonly.review.queues import ABOUT, CLASS, Queues

DIGITS = 4
LABEL, UNDO = "label", "undo"
WISHES = {LABEL: ACCEPTED, NONE: NONE, UNSURE: UNSURE, UNDO: UNDONE}
MOST_WISHES = 5000


@dataclass(frozen=True)
class Review:
    """What is reviewed.

    Attributes:
        labels: Of the run.
        queues: Images by the name of a queue.
        decisions: About them.
    """

    labels: RunLabels
    queues: Queues
    decisions: Decisions


def image_columns(labels: RunLabels) -> dict[str, Any]:
    """Return all that the page shows of every image; classes are numbers, -1 for none."""
    return {
        "class_names": list(labels.class_names),
        "path": [labels.paths[row] for row in labels.first_row.tolist()],
        "label": labels.label.tolist(),
        "probability": _rounded(labels.probability),
        "confidence": None if labels.confidence is None else _rounded(labels.confidence),
        "runner_up": labels.runner_up.tolist(),
        "margin": _rounded(labels.margin),
        "zero_shot": labels.zero_shot.tolist(),
        "copies": labels.copies.tolist(),
    }


def queue_list(review: Review) -> list[dict[str, Any]]:
    """Return the queues without their images; the page asks for those by a queue's number."""
    return [
        {
            "name": name.removeprefix(CLASS),
            "of_class": name.startswith(CLASS),
            "about": ABOUT.get(name, ""),
            "n": len(images),
        }
        for name, images in review.queues.items()
    ]


def changes(review: Review, since: int) -> dict[str, Any]:
    """Return what was decided after a revision, by whomever."""
    ids, revision = review.decisions.changed_since(since)
    places = review.labels.image_of_id
    images = [places[image_id] for image_id in ids if image_id in places]
    return {"revision": revision, "changes": [state(review, image) for image in images]}


def state(review: Review, image: int) -> dict[str, Any]:
    """Return what is decided of an image; a decision for a class that is gone counts for none."""
    labels = review.labels
    found, revision = review.decisions.state(labels.ids[image])
    named = None if found is None else found.label
    if found is None or (named is not None and named not in labels.class_names):
        return {"image": image, "revision": revision, "decision": None, "class": -1, "at": None}
    return {
        "image": image,
        "revision": revision,
        "decision": found.decision,
        "class": -1 if named is None else labels.class_names.index(named),
        "at": found.decided_at,
    }


def decide(review: Review, body: Any) -> tuple[int, dict[str, Any]]:
    """Write down what the page sent.

    Returns:
        200, or 409 if an image has a newer decision than the page saw; with the state of the
        images that were decided, and of those in conflict.

    Raises:
        ValueError: If it is not what the page sends; then nothing is decided.
        OSError: If it cannot be written; then nothing is decided.
    """
    sent = body.get("decisions") if isinstance(body, Mapping) else None
    if not isinstance(sent, list) or not 0 < len(sent) <= MOST_WISHES:
        raise ValueError(f"expected {{'decisions': [...]}} with 1 to {MOST_WISHES} of them")
    images = [_number(wish, "image", len(review.labels)) for wish in sent]
    wishes = [_wish(review, image, wish) for image, wish in zip(images, sent, strict=True)]
    followed = review.decisions.decide(wishes)
    saved, conflicts = _apart(images, followed)
    answer = {
        "saved": [state(review, image) for image in saved],
        "conflicts": [state(review, image) for image in conflicts],
    }
    return (409 if conflicts else 200), answer


def _wish(review: Review, image: int, sent: Mapping[str, Any]) -> Wish:
    labels, names = review.labels, tuple(review.queues)
    asked = sent.get("decision")
    if not isinstance(asked, str) or asked not in WISHES:
        raise ValueError(f"decision is one of {', '.join(WISHES)}, got {str(asked)[:80]!r}")
    kind, chosen = WISHES[asked], -1
    if asked == LABEL:
        chosen = _number(sent, "class", len(labels.class_names))
        kind = ACCEPTED if chosen == labels.label[image] else CORRECTED
    return Wish(
        labels.ids[image],
        _number(sent, "seen", 2**63),
        kind,
        labels.name(chosen),
        labels.name(int(labels.label[image])),
        names[_number(sent, "queue", len(names))] if sent.get("queue") is not None else "reviewed",
    )


def _number(sent: Any, key: str, below: int) -> int:
    value = sent.get(key) if isinstance(sent, Mapping) else None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < below:
        shown = str(value)[:80] if not isinstance(value, int) else "another"
        raise ValueError(f"{key} is a number from 0 to {below - 1}, got {shown}")
    return value


def _apart(images: Sequence[int], followed: Sequence[bool]) -> tuple[list[int], list[int]]:
    pairs = list(zip(images, followed, strict=True))
    saved = [image for image, done in pairs if done]
    return saved, [image for image, done in pairs if not done]


def _rounded(values: Float[np.ndarray, " n"]) -> list[float | None]:
    """Return numbers as JSON has them, which knows no NaN."""
    return [None if v != v else v for v in np.round(values, DIGITS).tolist()]
