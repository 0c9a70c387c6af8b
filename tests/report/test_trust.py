"""What the page says of how good the labels are, by hand and on a page."""

import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from nameonly.report.html import ReportInput, write_report
from nameonly.report.places import empty_place
from nameonly.report.trust import TrustInput, class_rows, confidence_rows

NASTY = "<script>alert(1)</script>"
NAMES = ("cat", "dog", NASTY)


def made(n=60, **more):
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 3
    probs = np.full((n, 3), 0.1)
    probs[np.arange(n), labels] = 0.5
    probs[np.arange(n), (labels + 1) % 3] = 0.4
    trust = TrustInput(
        confidence=np.linspace(0.05, 1, n),
        unknown_scores=np.arange(n) / n,
        suspected=np.arange(n) >= n - 5,
        map_rows=np.arange(n),
        map_places=rng.random((n, 2)),
        audit_rows=(3, 1, 2),
        two_groups={1: 0.5},
    )
    run = {
        "estimated_accuracy": 0.781,
        "estimated_accuracy_interval": [0.72, 0.84],
        "trust": {
            "level": 0.9,
            "warnings": [f"{NASTY!r} got hardly any image"],
            "class_prior": {"cat": 0.5, "dog": 0.3, NASTY: 0.2},
            "accuracy_of_labels": {"cat": 0.9, "dog": None, NASTY: 0.4},
        },
        "candidates": [
            {"recipe": "upl", "refused": "no backbone"},
            {"recipe": "zero_shot", "silhouette": 0.1234, "agreement": 0.9, "chosen": True},
        ],
    }
    page = ReportInput(
        run=run,
        class_names=NAMES,
        sources=tuple(f"{NASTY}-{i}.png" for i in range(n)),
        probs=probs,
        labels=labels,
        zero_shot=labels,
        quarantine=(),
        duplicates=(),
        open_image=lambda i: Image.fromarray(np.full((8, 8, 3), 4 * i, np.uint8)),
        trust=trust,
    )
    return replace(page, **more)


@pytest.fixture
def page(tmp_path):
    def write(report):
        write_report(tmp_path / "r.html", report)
        return (tmp_path / "r.html").read_text()

    return write


def test_the_estimate_its_interval_and_its_warnings_stand_on_the_page(page):
    text = page(made())
    assert '<strong data-count="estimated accuracy">78 %</strong>' in text
    assert "from 72 % to 84 %" in text and "got hardly any image" in text
    assert NASTY not in text
    assert not re.search(r'(?:src|href)="(?!#|data:)', text), "no outside address"


def test_every_dot_of_the_map_tells_its_class(page):
    text = page(made())
    dots = re.findall(r'<circle class="(c\d|other)( suspect)?" cx="([\d.]+)%" cy="(\d+)"', text)
    assert len(dots) == 60 and sum(bool(d[1]) for d in dots) == 5
    assert all(0 <= float(d[2]) <= 100 and 0 <= int(d[3]) <= 420 for d in dots)
    assert text.count("<title>cat, ") == 20


def test_what_to_check_and_what_fits_no_name_are_shown_in_order(page):
    text = page(made())
    audit = text[text.index('id="audit"') : text.index('id="map"')]
    assert re.findall(r"-(\d+)\.png</bdi></span>", audit) == ["3", "1", "2"]
    unknown = text[text.index('id="unknown"') : text.index('id="audit"')]
    assert re.findall(r"-(\d+)\.png</bdi></span>", unknown) == ["59", "58", "57", "56", "55"]


def test_advice_names_what_to_do(page):
    text = page(made())
    advice = text[text.index('id="advice"') : text.index('id="unknown"')]
    # every close call of cat and dog went to cat
    assert "Rename dog, or describe it: where the two are close, cat takes the image." in advice
    assert "fall into two groups (silhouette 0.50)" in advice
    both = made()
    probs = both.probs.copy()
    probs[1::6, 0], probs[1::6, 2] = 0.4, 0.1
    text = page(replace(both, probs=probs))
    assert "Merge them if the difference does not matter" in text


def test_recipes_tried_are_told(page):
    text = page(made())
    assert "0.123" in text and "left out: no backbone" in text and ">taken<" in text


def test_without_estimates_or_images_the_page_still_stands(page):
    assert 'id="trust"' not in page(made(trust=None))
    text = page(made(open_image=None))
    assert 'id="map"' in text and 'id="audit"' not in text
    text = page(made(run={}))
    assert "No image has a label whose accuracy could be estimated." in text


def test_a_page_with_estimates_keeps_places_for_an_audit_and_shows_none(page):
    text = page(made())
    for name in ("audit", "audit link", "audit note"):
        assert text.count(empty_place(name)) == 1
    assert 'id="audited"' not in text and "checked by hand</a>" not in text
    assert "<!-- begin" not in page(made(trust=None))
    hostile = f"{empty_place('audit')}"
    assert page(made(class_names=("cat", "dog", hostile))).count(empty_place("audit")) == 1


def test_expected_right_is_the_sum_of_confidence():
    rows = confidence_rows(np.array([0.95, 0.91, 0.2]))
    assert [row[:3] for row in rows] == [("0.9 to 1.0", "2", "2"), ("0.1 to 0.2", "1", "0")]


def test_class_rows_by_hand():
    facts = {"class_prior": {"a": 0.25, "b": 0.75}, "accuracy_of_labels": {"a": None, "b": 0.5}}
    rows = class_rows(("a", "b"), np.array([0, 1, 1, -1]), facts)
    assert rows == [("b", "67 %", "75 %", "50 %"), ("a", "33 %", "25 %", "-")]
