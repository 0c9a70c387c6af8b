"""What each section of the page says, as plain values for the template."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from markupsafe import Markup

from nameonly.report.answers import (
    Answers,
    ClassPair,
    class_counts,
    close_calls,
)
from nameonly.report.examples import largest_classes
from nameonly.report.figures import N_BINS, confidence_bins, confidence_histogram, count_bar
from nameonly.report.wording import (
    counted,
    duration_text,
    flat_settings,
    probability_text,
    setting_text,
    share_text,
    shortened,
)

MAX_CLASSES = 40
MAX_PAIRS = 12
MAX_ROWS = 200
MAX_DUPLICATE_GROUPS = 100
MAX_GROUP_SOURCES = 5
TEXT_LENGTH = 160

Row = tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Rows of text and how many were left out."""

    rows: tuple[Row, ...]
    n_left_out: int


@dataclass(frozen=True)
class ClassRow:
    """One bar of the histogram of classes."""

    name: str
    n_images: int
    n_zero_shot: int
    bar: Markup


@dataclass(frozen=True)
class ClassHistogram:
    """The predicted classes, largest first.

    Attributes:
        rows: The classes shown, and the images without an answer where there are any.
        n_others: Classes left out.
        n_other_images: Images in them.
        n_empty: Classes, shown or not, that no image got.
    """

    rows: tuple[ClassRow, ...]
    n_others: int
    n_other_images: int
    n_empty: int


@dataclass(frozen=True)
class Confidence:
    """The histogram of confidence with its numbers."""

    figure: Markup
    bins: tuple[Row, ...]
    median: str
    n_below_half: int


def count_tiles(
    run: Mapping[str, Any],
    labels: Int[np.ndarray, " n"],
    quarantine: Sequence[tuple[str, str]],
    duplicates: Sequence[Sequence[str]],
) -> list[tuple[str, str, str]]:
    """Return the counts as (number, name, explanation)."""
    n_images, n_abstained = len(labels), int((labels < 0).sum())
    n_copies = sum(len(group) - 1 for group in duplicates)
    different = counted(n_images - n_copies, "different image")
    adapted_on = mapping_at(run, "counts").get("adapted_on")
    learnt_from = f", {adapted_on:,} at random learnt from" if is_number(adapted_on) else ""
    tiles = [
        (f"{n_images:,}", "sources", different + learnt_from),
        (f"{n_images - n_abstained:,}", "labelled", share_text(n_images - n_abstained, n_images)),
        (f"{n_abstained:,}", "abstained", "left without an answer"),
    ]
    pseudo_labels = mapping_at(run, "counts").get("pseudo_labels")
    if isinstance(pseudo_labels, Mapping):
        numbers = [number for number in pseudo_labels.values() if is_number(number)]
        n_with = sum(1 for number in numbers if number)
        note = f"made by the model, in {counted(n_with, 'class', 'classes')}"
        tiles.append((f"{sum(numbers):,}", "pseudo-labels", note))
    tiles.append((f"{n_copies:,}", "duplicates", "copies of an earlier source"))
    tiles.append((f"{len(quarantine):,}", "quarantined", "files that could not be used"))
    return tiles


def class_histogram(
    class_names: Sequence[str], labels: Int[np.ndarray, " n"], zero_shot: Int[np.ndarray, " n"]
) -> ClassHistogram:
    """Count the predicted classes beside what zero-shot said, and draw their bars."""
    counts = class_counts(labels, len(class_names))
    before = class_counts(zero_shot, len(class_names))
    shown = largest_classes(counts, MAX_CLASSES)
    known, without = bool((zero_shot >= 0).any()), int((labels < 0).sum())
    longest = max(1, int(counts.max()), int(before[shown].max(initial=0)), without)
    marks = before / longest
    rows = [
        ClassRow(
            class_names[index],
            int(counts[index]),
            int(before[index]),
            count_bar(counts[index] / longest, marks[index] if known else None, "labelled"),
        )
        for index in shown
    ]
    if without:
        bar = count_bar(without / longest, None, "abstained")
        rows.append(ClassRow("no answer (abstained)", without, int((zero_shot < 0).sum()), bar))
    return ClassHistogram(
        rows=tuple(rows),
        n_others=len(class_names) - len(shown),
        n_other_images=int(counts.sum() - counts[shown].sum()),
        n_empty=int((counts == 0).sum()),
    )


def confidence(answers: Answers, abstained: Bool[np.ndarray, " n"]) -> Confidence:
    """Draw the histogram of confidence; there must be at least one image."""
    with_label = confidence_bins(answers.probs[~abstained])
    without = confidence_bins(answers.probs[abstained])
    median = probability_text(float(np.median(answers.probs)))
    n_below_half = int((answers.probs < 0.5).sum())
    description = (
        f"{counted(len(answers.probs), 'image')} in {N_BINS} bins from 0 to 1. "
        f"The median is {median}; {n_below_half:,} below 0.5."
    )
    bins = tuple(
        (f"{i / N_BINS:.2f} to {(i + 1) / N_BINS:.2f}", f"{with_label[i]:,}", f"{without[i]:,}")
        for i in range(N_BINS)
        if with_label[i] + without[i]
    )
    figure = confidence_histogram(with_label, without, description)
    return Confidence(figure, bins, median, n_below_half)


def confusable_table(
    pairs: Sequence[ClassPair], answers: Answers, class_names: Sequence[str]
) -> Table:
    """Return (class, class, close calls, images with either answer) of the most frequent pairs."""
    per_class = class_counts(answers.classes, len(class_names))
    rows = tuple(
        (
            class_names[pair.first],
            class_names[pair.second],
            f"{pair.n_images:,}",
            f"{per_class[pair.first] + per_class[pair.second]:,}",
        )
        for pair in pairs[:MAX_PAIRS]
    )
    return Table(rows, len(pairs) - len(rows))


def n_close_calls(answers: Answers) -> int:
    """Return how many images have a runner-up close to the answer."""
    return int(close_calls(answers).sum())


def changed_table(pairs: Sequence[ClassPair], class_names: Sequence[str]) -> Table:
    """Return (zero-shot's class, the run's class, images) of the most frequent changes."""
    rows = tuple(
        (class_names[pair.first], class_names[pair.second], f"{pair.n_images:,}")
        for pair in pairs[:MAX_PAIRS]
    )
    return Table(rows, len(pairs) - len(rows))


def quarantine_table(quarantine: Sequence[tuple[str, str]]) -> Table:
    """Return (source, reason) of the first files that could not be used."""
    rows = tuple(
        (shortened(source, TEXT_LENGTH), shortened(reason, TEXT_LENGTH))
        for source, reason in quarantine[:MAX_ROWS]
    )
    return Table(rows, len(quarantine) - len(rows))


def duplicate_groups(duplicates: Sequence[Sequence[str]]) -> Table:
    """Return the sources of the first groups, the last entry counting those left out of a group."""
    rows = []
    for group in duplicates[:MAX_DUPLICATE_GROUPS]:
        row = [shortened(source, TEXT_LENGTH) for source in group[:MAX_GROUP_SOURCES]]
        if len(group) > MAX_GROUP_SOURCES:
            row.append(f"and {len(group) - MAX_GROUP_SOURCES:,} more")
        rows.append(tuple(row))
    return Table(tuple(rows), len(duplicates) - len(rows))


def setting_tables(run: Mapping[str, Any]) -> list[tuple[str, Table]]:
    """Return how the run was made: a table of names and values for each part that is known."""
    facts = {
        key: value
        for key, value in run.items()
        if key not in ("nameonly", "title") and not isinstance(value, Mapping | list | None)
    }
    timings = mapping_at(run, "timings")
    seconds = {step: float(value) for step, value in timings.items() if is_number(value)}
    rows = [
        (str(step), duration_text(seconds[step]) if step in seconds else setting_text(value))
        for step, value in timings.items()
    ]
    if len(seconds) > 1:
        rows.append(("total", duration_text(sum(seconds.values()))))
    versions = {"nameonly": run["nameonly"]} if "nameonly" in run else {}
    parts = [
        ("Run", list(flat_settings(facts))),
        ("Settings", list(flat_settings(mapping_at(run, "settings")))),
        ("Backbone", list(flat_settings(mapping_at(run, "backbone")))),
        ("Timings", rows),
        ("Versions", list(flat_settings({**versions, **mapping_at(run, "versions")}))),
    ]
    return [(title, _clipped(part)) for title, part in parts if part]


def mapping_at(run: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return a nested part of ``run.json``; an empty one when it is missing."""
    part = run.get(key)
    return part if isinstance(part, Mapping) else {}


def is_number(value: Any) -> bool:
    """Return True for ints and floats, not for bools."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _clipped(rows: Sequence[Row]) -> Table:
    shown = tuple(
        tuple(shortened(cell, 2 * TEXT_LENGTH) for cell in row) for row in rows[:MAX_ROWS]
    )
    return Table(shown, len(rows) - len(shown))
