"""Cards: one image with its answer and runner-up, grouped into galleries."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from PIL import Image

from nameonly.report.answers import Answers, ClassPair
from nameonly.report.examples import extreme_rows, spread_rows
from nameonly.report.thumbnails import Thumbnail, make_thumbnail
from nameonly.report.wording import counted, file_name, probability_text, shortened

IMAGES_PER_SIDE = 3
MAX_CHANGED_IMAGES = 24
SOURCE_LENGTH = 160
NO_ANSWER = "no answer"


@dataclass(frozen=True)
class Pictures:
    """Everything that a card says about any row.

    Attributes:
        class_names: Names as shown on the page (c).
        sources: Where each row came from (n).
        labels: The run's labels (n), -1 where it abstained.
        zero_shot: Zero-shot's labels (n), -1 where it has none.
        answers: The answers and runners-up (n).
        open_image: Opens the image of a row.
    """

    class_names: tuple[str, ...]
    sources: tuple[str, ...]
    labels: Int[np.ndarray, " n"]
    zero_shot: Int[np.ndarray, " n"]
    answers: Answers
    open_image: Callable[[int], Image.Image]


@dataclass(frozen=True)
class Card:
    """One image on the page.

    Attributes:
        thumbnail: The image, None when it could not be opened.
        alt: Label and source, for those who do not see it.
        source: Where it came from.
        file_name: The last part of the source.
        label: The answer in words.
        probability: Of the answer; where the run abstained, of the most probable class.
        best: The most probable class where the run abstained, else None.
        runner_up: The best class beside the answer, None when there is only one class.
        runner_up_probability: Of the runner-up.
        zero_shot: What zero-shot said, None when it said nothing.
    """

    thumbnail: Thumbnail | None
    alt: str
    source: str
    file_name: str
    label: str
    probability: str
    best: str | None
    runner_up: str | None
    runner_up_probability: str
    zero_shot: str | None


@dataclass(frozen=True)
class Gallery:
    """The most and the least confident images of one class.

    Attributes:
        name: Of the class.
        note: Its counts in words.
        most: The most confident, highest first.
        least: The least confident, lowest first; none of them is among the most confident.
    """

    name: str
    note: str
    most: tuple[Card, ...]
    least: tuple[Card, ...]


def make_card(pictures: Pictures, row: int) -> Card:
    """Make the card of one row."""
    names, answers = pictures.class_names, pictures.answers
    abstained = pictures.labels[row] < 0
    answer = names[int(answers.classes[row])]
    runner_up = int(answers.runners_up[row])
    zero_shot = int(pictures.zero_shot[row])
    label = NO_ANSWER if abstained else answer
    source = shortened(pictures.sources[row], SOURCE_LENGTH)
    return Card(
        thumbnail=make_thumbnail(pictures.open_image, row),
        alt=f"{label}: {source}",
        source=source,
        file_name=shortened(file_name(pictures.sources[row]), 60),
        label=label,
        probability=probability_text(float(answers.probs[row])),
        best=answer if abstained else None,
        runner_up=None if runner_up < 0 else names[runner_up],
        runner_up_probability=probability_text(float(answers.runner_up_probs[row])),
        zero_shot=None if zero_shot < 0 else names[zero_shot],
    )


def make_gallery(pictures: Pictures, class_index: int) -> Gallery:
    """Make the gallery of one class, or of the images without an answer for -1."""
    rows = np.flatnonzero(pictures.labels == class_index)
    probs = pictures.answers.probs
    most, least = extreme_rows(rows, probs, IMAGES_PER_SIDE)
    median = probability_text(float(np.median(probs[rows])))
    return Gallery(
        name=pictures.class_names[class_index] if class_index >= 0 else NO_ANSWER,
        note=f"{counted(len(rows), 'image')}, median confidence {median}",
        most=tuple(make_card(pictures, row) for row in most),
        least=tuple(make_card(pictures, row) for row in least),
    )


def make_changed_cards(
    pictures: Pictures, rows: Int[np.ndarray, " m"], pairs: Sequence[ClassPair]
) -> tuple[Card, ...]:
    """Make cards of changed images, spread over the pairs of classes, most frequent pair first.

    Args:
        pictures: What the cards say.
        rows: The changed rows.
        pairs: From zero-shot's class to the run's class.
    """
    before, after = pictures.zero_shot[rows], pictures.answers.classes[rows]
    groups = [
        rows[(before == pair.first) & (after == pair.second)] for pair in pairs[:MAX_CHANGED_IMAGES]
    ]
    chosen = spread_rows(groups, pictures.answers.probs, MAX_CHANGED_IMAGES)
    return tuple(make_card(pictures, row) for row in chosen)
