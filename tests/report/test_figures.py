from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nameonly.report.figures import (
    N_BINS,
    axis_ticks,
    confidence_bins,
    confidence_histogram,
    count_bar,
    reliability_diagram,
)


@given(st.integers(min_value=0, max_value=10**7))
def test_ticks_are_round_and_reach_the_maximum(maximum):
    ticks = axis_ticks(maximum)
    step = ticks[1]
    assert ticks == list(range(0, ticks[-1] + 1, step))
    assert str(step).rstrip("0") in ("1", "2", "5")
    assert ticks[-1] >= maximum > ticks[-1] - step or maximum == 0
    assert 2 <= len(ticks) <= 5


def test_a_negative_axis_is_refused():
    with pytest.raises(ValueError, match="at least 0, got -1"):
        axis_ticks(-1)


def test_bins_hold_every_probability():
    probs = np.array([0.0, 0.049, 0.05, 0.999, 1.0, 1.0000001], dtype=np.float64)
    counts = confidence_bins(probs)
    assert counts.tolist() == [2, 1] + [0] * (N_BINS - 3) + [3]


def _bars(figure: str, kind: str) -> list[ElementTree.Element]:
    return [bar for bar in ElementTree.fromstring(figure).iter("rect") if bar.get("class") == kind]


def test_bars_stand_on_each_other_in_proportion():
    labelled, abstained = np.zeros(N_BINS, dtype=int), np.zeros(N_BINS, dtype=int)
    labelled[3], labelled[10], abstained[3] = 20, 40, 10
    figure = confidence_histogram(labelled, abstained, "what it shows")
    low, high = _bars(figure, "labelled")
    (hatched,) = _bars(figure, "abstained")
    assert float(high.get("height")) == pytest.approx(2 * float(low.get("height")))
    assert float(hatched.get("height")) == pytest.approx(float(low.get("height")) / 2)
    assert low.get("x") == hatched.get("x")
    assert float(hatched.get("y")) + float(hatched.get("height")) == pytest.approx(
        float(low.get("y"))
    )
    assert low.find("title").text == "0.15 to 0.20: 20 labelled, 10 abstained"


def test_the_histogram_is_named_and_described_and_escaped():
    counts = np.ones(N_BINS, dtype=int)
    root = ElementTree.fromstring(confidence_histogram(counts, counts, "<b>5 & 6</b>"))
    ids = {element.get("id"): element.text for element in root.iter() if element.get("id")}
    assert root.get("role") == "img"
    assert [ids[name] for name in root.get("aria-labelledby").split()] == [
        "Histogram of confidence",
        "<b>5 & 6</b>",
    ]


def test_one_image_among_thousands_still_shows():
    labelled = np.zeros(N_BINS, dtype=int)
    labelled[0], labelled[19] = 1, 100_000
    bars = _bars(confidence_histogram(labelled, np.zeros(N_BINS, dtype=int), ""), "labelled")
    assert float(bars[0].get("height")) >= 1


def test_an_empty_histogram_has_no_bars():
    empty = np.zeros(N_BINS, dtype=int)
    assert _bars(confidence_histogram(empty, empty, ""), "labelled") == []


def test_a_count_bar_has_its_length_and_its_marker():
    bar = ElementTree.fromstring(count_bar(0.25, 1.0, "labelled"))
    assert bar.find("rect").get("width") == "25.00%"
    assert bar.find("line").get("x1") == "99.80%"
    assert bar.get("aria-hidden") == "true"
    assert ElementTree.fromstring(count_bar(0.25, None, "abstained")).find("line") is None
    shifted = ElementTree.fromstring(count_bar(0.25, None, "labelled", start=0.5)).find("rect")
    assert (shifted.get("x"), shifted.get("width")) == ("50.00%", "25.00%")


def test_the_diagonal_meets_points_whose_confidence_is_right():
    bins = [
        {"low": 0.1, "high": 0.2, "n": 9, "n_audited": 0, "interval": None},
        {"low": 0.5, "high": 0.6, "n": 9, "n_audited": 1234, "interval": (0.4, 0.6)},
        {"low": 0.9, "high": 1.0, "n": 9, "n_audited": 3, "interval": (0.5, 1.0)},
    ]
    right = {0.1: None, 0.5: 0.5, 0.9: 0.75}
    rows = [{**b, "confidence": b["low"], "accuracy": right[b["low"]]} for b in bins]
    root = ElementTree.fromstring(reliability_diagram(rows, "<b>what</b>"))
    assert root.find("desc").text == "<b>what</b>" and root.get("role") == "img"
    counts = [t.text for t in root.iter("text") if "count" in t.get("class")]
    assert counts == ["0", "1.2k", "3"]
    (diagonal,) = [e for e in root.iter("line") if e.get("class") == "diagonal"]
    bottom, top = float(diagonal.get("y1")), float(diagonal.get("y2"))
    first, second = (g for g in root.iter("g") if g.get("class") == "point")
    circle = first.find("circle")
    assert circle.get("cx") == "50.00%"
    assert float(circle.get("cy")) == pytest.approx((bottom + top) / 2)
    height = (bottom - float(second.find("circle").get("cy"))) / (bottom - top)
    assert height == pytest.approx(0.75)
    ends = [float(second.find("line").get(y)) for y in ("y1", "y2")]
    assert ends == pytest.approx([(bottom + top) / 2, top])
    assert "3 of 9 checked" in second.find("title").text
