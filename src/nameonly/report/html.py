"""The report of a run as one HTML file that needs no network and no script."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nameonly.report import cards, sections
from nameonly.report.answers import (
    Answers,
    ClassPair,
    changed_rows,
    class_counts,
    confusable_pairs,
    count_pairs,
    rank_answers,
)
from nameonly.report.examples import largest_classes
from nameonly.report.synthetic import MadeImages, shown_images
from nameonly.report.templates import environment
from nameonly.report.trust import TrustInput, trust_sections
from nameonly.report.wording import share_text, shortened

_NAME_LENGTH = 80
# A gallery further down the page starts closed, so that the page can be overlooked.
_OPEN_GALLERIES = 12


@dataclass(frozen=True)
class ReportInput:
    """What the report is made from: n labelled images, c classes.

    Attributes:
        run: Content of ``run.json``; whatever is missing there is left out of the page.
        class_names: The classes in column order (c).
        sources: Where each row came from (n).
        probs: Class probabilities, float of shape (n, c); rows sum to one.
        labels: Class index, int of shape (n), -1 where the run abstained.
        zero_shot: Zero-shot's class index, int of shape (n), -1 where it has none.
        quarantine: Files that could not be used, as (source, reason).
        duplicates: Groups of sources with equal bytes.
        open_image: Opens the image of a row; None when the run had features only.
        made: Synthetic images that the run learnt from, where there were some.
        trust: What the run estimates of its labels; None where it estimates nothing.

    Raises:
        ValueError: If the shapes do not match, a label is no class, or the probabilities are not
            finite, not within [0, 1] or do not sum to one.
    """

    run: Mapping[str, Any]
    class_names: tuple[str, ...]
    sources: tuple[str, ...]
    probs: np.ndarray
    labels: np.ndarray
    zero_shot: np.ndarray
    quarantine: tuple[tuple[str, str], ...]
    duplicates: tuple[tuple[str, ...], ...]
    open_image: Callable[[int], Image.Image] | None
    made: MadeImages | None = None
    trust: TrustInput | None = None

    def __post_init__(self) -> None:
        n_images, n_classes = len(self.sources), len(self.class_names)
        if n_classes == 0:
            raise ValueError("a report needs at least one class name, got none")
        if self.probs.shape != (n_images, n_classes):
            raise ValueError(
                f"{n_images} sources and {n_classes} class names need probs of shape "
                f"({n_images}, {n_classes}), got {self.probs.shape}"
            )
        _check_labels("labels", self.labels, n_images, n_classes)
        _check_labels("zero_shot", self.zero_shot, n_images, n_classes)
        _check_probs(self.probs)


def write_report(path: Path, report: ReportInput) -> None:
    """Write the page; folders on the way are made, an older page is replaced.

    Args:
        path: Where the page goes, a file ending in ``.html``.
        report: What it is made from.
    """
    template = environment().get_template("report.html.jinja")
    page = template.render(_page(report))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def _check_labels(field: str, labels: np.ndarray, n_images: int, n_classes: int) -> None:
    if labels.shape != (n_images,) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{field} needs {n_images} integers, got {labels.dtype} of shape {labels.shape}"
        )
    if n_images and not -1 <= labels.min() <= labels.max() < n_classes:
        raise ValueError(
            f"{field} lie between -1 (abstained) and {n_classes - 1}, "
            f"got {labels.min()} to {labels.max()}"
        )


def _check_probs(probs: np.ndarray) -> None:
    sums = probs.sum(axis=1, dtype=np.float64)
    wrong = np.flatnonzero(~(np.abs(sums - 1.0) < 0.01))
    if len(wrong):
        raise ValueError(
            f"rows of probs sum to one, row {wrong[0]} sums to {sums[wrong[0]]:g}; "
            "give probabilities, not logits"
        )
    if len(probs) and probs.min() < 0:
        raise ValueError(f"probabilities are not negative, got {probs.min():g}")


def _page(report: ReportInput) -> dict[str, Any]:
    names = tuple(shortened(name, _NAME_LENGTH) for name in report.class_names)
    answers = rank_answers(report.probs, report.labels)
    abstained = report.labels < 0
    confusable = confusable_pairs(answers, len(names))
    return {
        **_opening(report),
        "tiles": sections.count_tiles(
            report.run, report.labels, report.quarantine, report.duplicates
        ),
        "classes": sections.class_histogram(names, report.labels, report.zero_shot),
        "confidence": sections.confidence(answers, abstained) if len(abstained) else None,
        "confusable": sections.confusable_table(confusable, answers, names),
        "n_close_calls": sections.n_close_calls(answers),
        **_pictures(report, names, answers),
        "quarantine": sections.quarantine_table(report.quarantine),
        "duplicates": sections.duplicate_groups(report.duplicates),
        "trust": _trust(report, names, answers, confusable),
        "made": None if report.made is None else shown_images(report.made),
        "settings": sections.setting_tables(report.run),
    }


def _trust(
    report: ReportInput, names: tuple[str, ...], answers: Answers, pairs: list[ClassPair]
) -> dict[str, Any] | None:
    if report.trust is None:
        return None
    pictures = _make_pictures(report, names, answers)
    return trust_sections(report.trust, report.run, names, report.labels, pairs, pictures)


def _make_pictures(
    report: ReportInput, names: tuple[str, ...], answers: Answers
) -> cards.Pictures | None:
    if report.open_image is None:
        return None
    return cards.Pictures(
        names, report.sources, report.labels, report.zero_shot, answers, report.open_image
    )


def _opening(report: ReportInput) -> dict[str, Any]:
    run, n_images = report.run, len(report.sources)
    given = sections.mapping_at(run, "counts").get("given", 0)
    backbone = sections.mapping_at(run, "backbone")
    return {
        "run": run,
        "backbone": backbone,
        "n_given": given if isinstance(given, int) else 0,
        "n_images": n_images,
        "n_labelled": int((report.labels >= 0).sum()),
        "n_classes": len(report.class_names),
        "features_only": report.open_image is None,
        "zero_shot_known": bool((report.zero_shot >= 0).any()),
    }


def _pictures(report: ReportInput, names: tuple[str, ...], answers: Answers) -> dict[str, Any]:
    rows = changed_rows(report.zero_shot, answers.classes)
    pairs = count_pairs(report.zero_shot[rows], answers.classes[rows], len(names))
    galleries: list[cards.Gallery] = []
    changed_cards: tuple[cards.Card, ...] = ()
    shown: list[int] = []
    pictures = _make_pictures(report, names, answers)
    if pictures is not None:
        counts = class_counts(report.labels, len(names))
        shown = [i for i in largest_classes(counts, sections.MAX_CLASSES) if counts[i]]
        if (report.labels < 0).any():
            shown.append(-1)
        galleries = [cards.make_gallery(pictures, index) for index in shown]
        changed_cards = cards.make_changed_cards(pictures, rows, pairs)
    return {
        "galleries": galleries,
        "n_open_galleries": _OPEN_GALLERIES,
        "n_changed": len(rows),
        "changed_share": share_text(len(rows), len(report.sources)),
        "changed": sections.changed_table(pairs, names),
        "changed_cards": changed_cards,
    }
