"""What a person's answers say, put into the finished page of a run."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from nameonly.report.figures import count_bar, reliability_diagram
from nameonly.report.templates import environment
from nameonly.report.trust import MAX_CLASSES, percent
from nameonly.report.wording import counted, shortened
from nameonly.trust.answers import ENOUGH

NAME_LENGTH = 80
# kinds of confidence in audit.json, in the order and words of the page
CONFIDENCES = {
    "probability": "probability, as the model gives it",
    "confidence": "confidence, as the run wrote it",
    "temperature": "probability at the temperature that the answers say",
    "classwise": "confidence, set right for each class by the answers",
}


def audit_parts(found: Mapping[str, Any]) -> dict[str, Markup]:
    """Return what an audit puts into the places of a run's page, by the place's name.

    Args:
        found: Content of ``audit.json``.
    """
    parts: Any = environment().get_template("audit.html.jinja").module
    return {
        "audit link": parts.link(),
        "audit note": parts.note(found["answered"]),
        "audit": parts.section(audit_section(found)),
    }


def audit_section(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the template shows, from the content of ``audit.json``."""
    classes, sets = found["classes"], found.get("prediction_sets")
    return {
        "found": found,
        "accuracy": percent(found["accuracy"]),
        "interval": [percent(found["low"]), percent(found["high"])],
        "level": percent(found["level"]),
        "rows": accuracy_rows(found),
        "verdict": verdict(found),
        "figure": _figure(found["reliability"], found["answered"]),
        "bins": bin_rows(found["reliability"]),
        "errors": error_rows(found["calibration_errors"] or {}),
        "enough": ENOUGH,
        "temperature": _number(found.get("temperature")),
        "temperature_before": _number(found["temperature_before"]),
        "sets": sets and {**sets, "coverage": percent(sets["coverage"])},
        "classes": class_rows(classes),
        "n_below": sum(row["below_estimate"] for row in classes),
        "n_other_classes": max(0, len(classes) - MAX_CLASSES),
    }


def accuracy_rows(found: Mapping[str, Any]) -> list[tuple[str, str, str, Markup]]:
    """Return what was measured and what was estimated: name, accuracy, interval, a bar of it."""
    rows = [("checked by hand", found["accuracy"], (found["low"], found["high"]))]
    before = found["estimated_accuracy_before"]
    if before is not None:
        ends = found["estimated_accuracy_interval_before"] or (before, before)
        rows.append(("estimated without labels", before, ends))
    return [(name, percent(value), span(*ends), _bar(value, ends)) for name, value, ends in rows]


def verdict(found: Mapping[str, Any]) -> str:
    """Return in words where the estimate made without labels lies beside the interval."""
    before = found["estimated_accuracy_before"]
    if before is None:
        return ""
    if before > found["high"]:
        return "The estimate made without labels lies above it."
    if before < found["low"]:
        return "The estimate made without labels lies below it."
    return "The estimate made without labels lies within it."


def bin_rows(bins: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Return confidence, images, checked ones, mean confidence, accuracy and its interval."""
    return [
        (
            f"{b['low']:.1f} to {b['high']:.1f}",
            f"{b['n']:,}",
            f"{b['n_audited']:,}",
            percent(b["confidence"]),
            percent(b["accuracy"]),
            span(*b["interval"]) if b["interval"] else "-",
        )
        for b in bins
    ]


def error_rows(errors: Mapping[str, Mapping[str, float]]) -> list[tuple[str, str, str]]:
    """Return what the confidence is, its calibration error, and how much of it is chance."""
    return [
        (words, percent(errors[kind]["error"]), percent(errors[kind]["by_chance"]))
        for kind, words in CONFIDENCES.items()
        if kind in errors
    ]


def class_rows(classes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the classes below their estimate first, then by how many images were checked."""
    order = sorted(classes, key=lambda row: (not row["below_estimate"], -row["n"]))
    return [
        {
            "name": shortened(row["class"], NAME_LENGTH),
            "below": row["below_estimate"],
            "bar": _bar(row["accuracy"], (row["low"], row["high"])),
            "cells": (
                f"{row['n']:,}",
                f"{row['n_right']:,}",
                percent(row["accuracy"]),
                span(row["low"], row["high"]),
                percent(row["estimated_accuracy"]),
            ),
        }
        for row in order[:MAX_CLASSES]
    ]


def span(low: float, high: float) -> str:
    """Return an interval in whole per cent."""
    return f"{100 * low:.0f} to {percent(high)}"


def _bar(value: float, ends: Sequence[float]) -> Markup:
    return count_bar(ends[1] - ends[0], value, "labelled", start=ends[0])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"


def _figure(bins: Sequence[Mapping[str, Any]], n: int) -> Markup:
    return reliability_diagram(
        bins,
        f"Share of right labels among {counted(n, 'checked image')}, by confidence. On the "
        "dashed line confidence is accuracy; below it the run was too sure.",
    )
