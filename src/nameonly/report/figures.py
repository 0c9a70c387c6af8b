"""The figures of the page as inline SVG.

Horizontal positions are percentages, so that bars stretch with the page while text keeps its size.
"""

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from markupsafe import Markup

from nameonly.report.wording import short_count

N_BINS = 20
_PLOT_TOP = 12
_PLOT_HEIGHT = 180
_MAX_TICKS = 4
_SQUARE_HEIGHT = 260


def confidence_bins(probs: Float[np.ndarray, " n"]) -> Int[np.ndarray, " b"]:
    """Count the probabilities in ``N_BINS`` equal bins from 0 to 1; 1 itself is in the last."""
    counts, _ = np.histogram(np.clip(probs, 0.0, 1.0), bins=N_BINS, range=(0.0, 1.0))
    return counts


def axis_ticks(maximum: int) -> list[int]:
    """Return round values from 0 that reach the maximum: steps of 1, 2 or 5 times a power of ten.

    Raises:
        ValueError: If the maximum is negative.
    """
    if maximum < 0:
        raise ValueError(f"an axis of counts has a maximum of at least 0, got {maximum}")
    steps = (base * 10**power for power in count() for base in (1, 2, 5))
    step = next(step for step in steps if step * _MAX_TICKS >= maximum)
    return list(range(0, -(-max(maximum, 1) // step) * step + 1, step))


def confidence_histogram(
    labelled: Int[np.ndarray, " b"], abstained: Int[np.ndarray, " b"], description: str
) -> Markup:
    """Draw stacked bars of the probabilities of the answers.

    Args:
        labelled: Images with a label in each bin.
        abstained: Images without one in each bin; drawn hatched, on top.
        description: What the figure shows, for those who do not see it.
    """
    top = max(axis_ticks(int((labelled + abstained).max())))
    parts = [_grid([(value / top, f"{value:,}") for value in axis_ticks(top)], _PLOT_HEIGHT)]
    for index, (with_label, without) in enumerate(zip(labelled, abstained, strict=True)):
        tip = (
            f"{index / N_BINS:.2f} to {(index + 1) / N_BINS:.2f}: {with_label:,} labelled, "
            f"{without:,} abstained"
        )
        parts.append(_bar(index, 0, int(with_label), top, ("labelled", tip)))
        parts.append(_bar(index, int(with_label), int(without), top, ("abstained", tip)))
    parts.append(_probability_axis(_PLOT_HEIGHT))
    height = _PLOT_TOP + _PLOT_HEIGHT + 24
    return Markup(
        '<svg class="histogram" role="img" aria-labelledby="histogram-title histogram-description" '
        'width="100%" height="{}"><title id="histogram-title">Histogram of confidence</title>'
        '<desc id="histogram-description">{}</desc>{}</svg>'
    ).format(height, description, Markup("").join(parts))


def count_bar(share: float, marker: float | None, kind: str, start: float = 0.0) -> Markup:
    """Draw one row's bar; the number stands beside it in the table, so readers skip the bar.

    Args:
        share: Length, 0 to 1.
        marker: Where a tick crosses the bar, 0 to 1; None draws none.
        kind: The bar's class in the style sheet, ``"labelled"`` or ``"abstained"``.
        start: Where the bar begins, 0 to 1.
    """
    tick = Markup("")
    if marker is not None:
        tick = Markup('<line class="marker" x1="{0}%" x2="{0}%" y1="0" y2="14"/>').format(
            f"{99.6 * marker + 0.2:.2f}"
        )
    return Markup(
        '<svg class="bar" aria-hidden="true" focusable="false" width="100%" height="14">'
        '<rect class="{}" x="{}%" width="{}%" y="2" height="10" rx="2"/>{}</svg>'
    ).format(kind, f"{100 * start:.2f}", f"{100 * share:.2f}", tick)


def reliability_diagram(bins: Sequence[Mapping[str, Any]], description: str) -> Markup:
    """Draw accuracy against confidence with intervals and the diagonal; counts stand below.

    Args:
        bins: As in ``audit.json``; one without a checked image shows its count alone.
        description: What the figure shows, for those who do not see it.
    """
    bottom = _PLOT_TOP + _SQUARE_HEIGHT
    parts = [
        _grid([(share, f"{share:g}") for share in (0.0, 0.25, 0.5, 0.75, 1.0)], _SQUARE_HEIGHT),
        Markup('<line class="diagonal" x1="0" y1="{}" x2="100%" y2="{}"/>').format(
            bottom, _PLOT_TOP
        ),
        _probability_axis(_SQUARE_HEIGHT),
    ]
    for row in bins:
        middle = f"{50 * (row['low'] + row['high']):.2f}"
        parts.append(
            Markup('<text class="tick count" x="{}%" y="{}" text-anchor="middle">{}</text>').format(
                middle, bottom + 38, short_count(row["n_audited"])
            )
        )
        if row["interval"]:
            parts.append(_point(row))
    return Markup(
        '<svg class="reliability" role="img" '
        'aria-labelledby="reliability-title reliability-description" width="100%" height="{}">'
        '<title id="reliability-title">Reliability diagram</title>'
        '<desc id="reliability-description">{}</desc>{}</svg>'
    ).format(bottom + 44, description, Markup("").join(parts))


def _point(row: Mapping[str, Any]) -> Markup:
    """Draw a bin's accuracy with its interval; both tell their numbers under the pointer."""
    value, low, high = (
        f"{_PLOT_TOP + _SQUARE_HEIGHT * (1 - share):.2f}"
        for share in (row["accuracy"], *row["interval"])
    )
    tip = (
        f"{row['low']:.1f} to {row['high']:.1f}: {row['n_audited']:,} of {row['n']:,} checked, "
        f"mean confidence {row['confidence']:.2f}, accuracy {row['accuracy']:.2f}"
    )
    return Markup(
        '<g class="point"><title>{4}</title><line x1="{0}%" x2="{0}%" y1="{2}" y2="{3}"/>'
        '<circle cx="{0}%" cy="{1}" r="5"/></g>'
    ).format(f"{100 * row['confidence']:.2f}", value, low, high, tip)


def _bar(index: int, below: int, n_images: int, top: int, look: tuple[str, str]) -> Markup:
    if n_images == 0:
        return Markup("")
    kind, tip = look
    # A bin with one image among thousands still shows.
    height = max(1.5, _PLOT_HEIGHT * n_images / top)
    bottom = _PLOT_TOP + _PLOT_HEIGHT * (1 - below / top)
    return Markup(
        '<rect class="{}" x="{}%" width="{}%" y="{}" height="{}"><title>{}</title></rect>'
    ).format(
        kind,
        f"{100 * index / N_BINS + 0.3:.2f}",
        f"{100 / N_BINS - 0.6:.2f}",
        f"{bottom - height:.2f}",
        f"{height:.2f}",
        tip,
    )


def _grid(ticks: Sequence[tuple[float, str]], height: int) -> Markup:
    """Draw lines at shares of a plot's height, with what they stand for."""
    lines = Markup("")
    for share, text in ticks:
        y = _PLOT_TOP + height * (1 - share)
        lines += Markup(
            '<line class="grid" x1="0" x2="100%" y1="{0}" y2="{0}"/>'
            '<text class="tick" x="-8" y="{0}" dy="0.35em" text-anchor="end">{1}</text>'
        ).format(f"{y:.2f}", text)
    return lines


def _probability_axis(height: int) -> Markup:
    labels = Markup("")
    for share, anchor in (
        (0, "start"),
        (25, "middle"),
        (50, "middle"),
        (75, "middle"),
        (100, "end"),
    ):
        labels += Markup('<text class="tick" x="{}%" y="{}" text-anchor="{}">{}</text>').format(
            share, _PLOT_TOP + height + 18, anchor, f"{share / 100:g}"
        )
    return labels
