"""What the page says of how good the labels are: nothing here is measured against a truth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from markupsafe import Markup

from nameonly.report import cards
from nameonly.report.answers import ClassPair, class_counts
from nameonly.report.cards import Card, Pictures
from nameonly.report.examples import largest_classes
from nameonly.report.figures import count_bar
from nameonly.report.wording import candidate_words, shortened

BINS = 10
MAX_CLASSES = 40
CARDS = 12
ADVISED, CARDS_PER_PAIR = 6, 4
# of the close calls of two classes: so many one way, and it is one class that takes the other's
ONE_WAY = 0.8
# of the images of the smaller class: so many close calls, and the two may be one
MERGED = 0.5
COLOURS = 8
MAP_HEIGHT = 420


@dataclass(frozen=True)
class TrustInput:
    """What a run estimates of its n labels.

    Attributes:
        confidence: Calibrated, of each label (n).
        unknown_scores: Higher for images that no name fits (n).
        suspected: Which of them stand out (n).
        map_rows: Images on the map (m).
        map_places: Where they lie, in [0, 1] (m, 2).
        audit_rows: The images to check first.
        two_groups: Classes that fall into two groups.
    """

    confidence: Float[np.ndarray, " n"]
    unknown_scores: Float[np.ndarray, " n"]
    suspected: Bool[np.ndarray, " n"]
    map_rows: Int[np.ndarray, " m"]
    map_places: Float[np.ndarray, "m 2"]
    audit_rows: tuple[int, ...]
    two_groups: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Advice:
    """What to do about two classes that are hard to tell apart, or one that may be two."""

    classes: tuple[str, ...]
    text: str
    cards: tuple[Card, ...]


def percent(value: float | None) -> str:
    """Return a share in whole per cent, a dash where it is not known."""
    return "-" if value is None else f"{100 * value:.0f} %"


def trust_sections(
    trust: TrustInput,
    run: Mapping[str, Any],
    names: Sequence[str],
    labels: Int[np.ndarray, " n"],
    pairs: Sequence[ClassPair],
    pictures: Pictures | None,
) -> dict[str, Any]:
    """Return what the template shows.

    Args:
        trust: The estimates of every image.
        run: Content of ``run.json``.
        names: Of the classes, as they are shown.
        labels: Of the images, -1 = none.
        pairs: Classes with close calls, most frequent first.
        pictures: Makes cards; None where there are no images.
    """
    facts = run.get("trust") or {}
    return {
        "accuracy": percent(run.get("estimated_accuracy")),
        "interval": [percent(end) for end in run.get("estimated_accuracy_interval") or ()],
        "level": percent(facts.get("level")),
        "warnings": [shortened(text, 300) for text in facts.get("warnings", ())],
        "bins": confidence_rows(trust.confidence[labels >= 0]),
        "classes": class_rows(names, labels, facts),
        "n_suspected": int(trust.suspected.sum()),
        "suspected": _cards(pictures, _highest(trust.unknown_scores, trust.suspected)),
        "audit": _cards(pictures, trust.audit_rows[:CARDS]),
        "advice": advice(names, labels, pairs, trust, pictures),
        "map": feature_map(trust, names, labels, pictures),
        "key": _key(names, labels),
        "candidates": [_candidate(row) for row in run.get("candidates", ())],
    }


def confidence_rows(
    confidence: Float[np.ndarray, " n"],
) -> list[tuple[str, str, str, Markup]]:
    """Return confidence, images, how many of them are expected to be right, and a bar."""
    place = np.clip(np.ceil(confidence * BINS) - 1, 0, BINS - 1).astype(np.int64)
    counts = np.bincount(place, minlength=BINS)
    sums = np.bincount(place, weights=confidence, minlength=BINS)
    longest = max(1, int(counts.max()))
    return [
        (
            f"{b / BINS:.1f} to {(b + 1) / BINS:.1f}",
            f"{counts[b]:,}",
            f"{sums[b]:,.0f}",
            count_bar(counts[b] / longest, sums[b] / longest, "labelled"),
        )
        for b in reversed(range(BINS))
        if counts[b]
    ]


def class_rows(
    names: Sequence[str], labels: Int[np.ndarray, " n"], facts: Mapping[str, Any]
) -> list[tuple[str, str, str, str]]:
    """Return class, share of the labels, estimated share, estimated accuracy; largest first."""
    counts = class_counts(labels, len(names))
    total = max(1, int(counts.sum()))
    shares = list((facts.get("class_prior") or {}).values())
    right = list((facts.get("accuracy_of_labels") or {}).values())
    return [
        (
            names[k],
            percent(counts[k] / total),
            percent(shares[k] if k < len(shares) else None),
            percent(right[k] if k < len(right) else None),
        )
        for k in largest_classes(counts, MAX_CLASSES)
    ]


def advice(
    names: Sequence[str],
    labels: Int[np.ndarray, " n"],
    pairs: Sequence[ClassPair],
    trust: TrustInput,
    pictures: Pictures | None,
) -> list[Advice]:
    """Return what to do about the pairs hardest to tell apart, and about classes that are two."""
    found = []
    counts = class_counts(labels, len(names))
    for pair in pairs[:ADVISED]:
        near, first = _close_rows(pair, pictures)
        a, b = names[pair.first], names[pair.second]
        if len(near) and max(first, 1 - first) >= ONE_WAY:
            major, minor = (a, b) if first >= 0.5 else (b, a)
            text = (
                f"Rename {minor}, or describe it: where the two are close, {major} takes the image."
            )
        elif pair.n_images >= MERGED * max(1, min(counts[pair.first], counts[pair.second])):
            text = "Merge them if the difference does not matter; else add it to both names."
        else:
            text = "Add to both names what sets them apart."
        shown = near[np.linspace(0, len(near) - 1, min(len(near), CARDS_PER_PAIR)).astype(int)]
        found.append(Advice((a, b), text, tuple(_cards(pictures, shown.tolist()))))
    for k, value in trust.two_groups.items():
        text = (
            f"Its images fall into two groups (silhouette {value:.2f}): split it, or look whether "
            "one of them belongs to another class."
        )
        found.append(Advice((names[k],), text, ()))
    return found


def _close_rows(pair: ClassPair, pictures: Pictures | None) -> tuple[Int[np.ndarray, " k"], float]:
    """Return the close calls of a pair, closest first, and the share that its first class got."""
    if pictures is None:
        return np.zeros(0, np.int64), 0.5
    answers = pictures.answers
    one = (answers.classes == pair.first) & (answers.runners_up == pair.second)
    other = (answers.classes == pair.second) & (answers.runners_up == pair.first)
    close = (one | other) & (answers.runner_up_probs >= 0.5 * answers.probs)
    rows = np.flatnonzero(close)
    margin = answers.probs[rows] - answers.runner_up_probs[rows]
    return rows[np.argsort(margin, kind="stable")], float(one[rows].mean()) if len(rows) else 0.5


def _highest(scores: Float[np.ndarray, " n"], chosen: Bool[np.ndarray, " n"]) -> list[int]:
    rows = np.flatnonzero(chosen)
    return [int(row) for row in rows[np.argsort(-scores[rows], kind="stable")][:CARDS]]


def _cards(pictures: Pictures | None, rows: Sequence[int]) -> list[Card]:
    return [] if pictures is None else [cards.make_card(pictures, int(row)) for row in rows]


def _largest(names: Sequence[str], labels: Int[np.ndarray, " n"]) -> dict[int, int]:
    """Return the colour of the largest classes."""
    shown = largest_classes(class_counts(labels, len(names)), COLOURS)
    return {k: i for i, k in enumerate(shown)}


def _key(names: Sequence[str], labels: Int[np.ndarray, " n"]) -> list[tuple[str, str]]:
    key = [(f"c{i}", names[k]) for k, i in _largest(names, labels).items()]
    others = len(names) > len(key)
    return key + ([("other", "other classes")] if others else [])


def feature_map(
    trust: TrustInput,
    names: Sequence[str],
    labels: Int[np.ndarray, " n"],
    pictures: Pictures | None,
) -> Markup:
    """Draw the map: a dot for every image, which tells its class and name under the pointer."""
    colours = _largest(names, labels)
    dots = []
    for row, (x, y) in zip(trust.map_rows.tolist(), trust.map_places.tolist(), strict=True):
        k = int(labels[row])
        kind = f"c{colours[k]}" if k in colours else "other"
        tip = names[k] if k >= 0 else "no answer"
        if pictures is not None:
            tip = f"{tip}, {trust.confidence[row]:.2f}: {shortened(pictures.sources[row], 80)}"
        ring = " suspect" if trust.suspected[row] else ""
        dots.append(
            Markup(
                '<circle class="{}{}" cx="{}%" cy="{}" r="3.5"><title>{}</title></circle>'
            ).format(kind, ring, f"{2 + 96 * x:.1f}", f"{10 + (MAP_HEIGHT - 20) * y:.0f}", tip)
        )
    return Markup(
        '<svg class="map" role="img" aria-label="Map of the images" width="100%" height="{}">'
        "{}</svg>"
    ).format(MAP_HEIGHT, Markup("").join(dots))


def _candidate(row: Mapping[str, Any]) -> tuple[str, str, str, str]:
    name = candidate_words(row)
    if "refused" in row:
        return name, "-", "-", shortened(f"left out: {row['refused']}", 160)
    taken = "taken" if row["chosen"] else ""
    return name, f"{row['silhouette']:.3f}", percent(row["agreement"]), taken
