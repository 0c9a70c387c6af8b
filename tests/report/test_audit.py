"""What an audit puts into a page, by hand."""

import re

import pytest

from nameonly.report.audit import (
    accuracy_rows,
    audit_parts,
    audit_section,
    bin_rows,
    class_rows,
    error_rows,
    verdict,
)

NASTY = "<script>alert(1)</script><!-- end audit -->"


def row(name, n=10, below=False, **more):
    figures = {"n_labels": 40, "n": n, "n_right": n - 1, "accuracy": 0.91, "low": 0.6}
    found = {"class": name, **figures, "high": 0.98, "calibration_error": None}
    return {**found, "estimated_accuracy": 0.99, "below_estimate": below, **more}


def found(**more):
    bins = {"n": 30, "confidence": 0.93, "accuracy": 0.9, "n_audited": 20}
    return {
        "accuracy": 0.812,
        "low": 0.7449,
        "high": 0.8651,
        "level": 0.95,
        "n": 60,
        "n_right": 47,
        "answered": 60,
        "asked": 61,
        "estimated_accuracy_before": 0.7,
        "estimated_accuracy_interval_before": [0.6, 0.85],
        "reliability": [
            {"low": 0.2, "high": 0.3, **bins, "accuracy": None, "n_audited": 0, "interval": None},
            {"low": 0.9, "high": 1.0, **bins, "interval": (0.7, 0.98)},
        ],
        "classes": [row("dog"), row(NASTY, n=4, below=True)],
        "calibration_errors": {
            "confidence": {"error": 0.071, "by_chance": 0.05},
            "probability": {"error": 0.2, "by_chance": 0.01},
        },
        "temperature_before": 2.5,
        "temperature": 3.26,
        "prediction_sets": {"coverage": 0.9, "least_probability": 0.1, "mean_size": 1.385},
        **more,
    }


def text(**more):
    section = str(audit_parts(found(**more))["audit"])
    return " ".join(re.sub(r"<[^>]*>", " ", section).split())


def test_the_numbers_stand_in_words():
    words = text()
    assert "81 % of the labels are right, as 60 answers say; the 95 % interval" in words
    assert "reaches from 74 % to 87 %. The estimate made without labels lies below it." in words
    assert "47 of 60 checked labels are right." in words
    assert "1 image of the sample has no answer yet." in words
    assert "temperature of 3.3 ; without labels the run had found 2.5" in words
    assert "hold the true one 90 % of the time have 1.39 classes on average" in words
    assert "1 class lies clearly below its estimate" in words
    assert "no answer yet" not in text(asked=60)


def test_everything_from_outside_is_escaped():
    parts = {name: str(part) for name, part in audit_parts(found()).items()}
    assert "&lt;script&gt;" in parts["audit"]
    assert not any("<script" in part or "<!--" in part for part in parts.values())


def test_the_classes_below_their_estimate_come_first_and_many_are_cut():
    rows = class_rows([row("ant"), row("bee", n=90), row("cat", below=True)])
    assert [r["name"] for r in rows] == ["cat", "bee", "ant"]
    assert rows[1]["cells"] == ("90", "89", "91 %", "60 to 98 %", "99 %")
    assert class_rows([row("x" * 200, estimated_accuracy=None)])[0]["cells"][-1] == "-"
    assert len(class_rows([row("x" * 200)])[0]["name"]) == 80
    many = audit_section(found(classes=[row(f"class {i}") for i in range(50)]))
    assert len(many["classes"]) == 40 and many["n_other_classes"] == 10


def test_flags_stand_on_the_classes_that_have_them():
    section = str(audit_parts(found())["audit"])
    flagged = re.findall(r'<tr class="below">.*?</tr>', section, re.S)
    assert len(flagged) == 1 and "&lt;script&gt;" in flagged[0] and "below the est" in flagged[0]
    assert section.count("below the estimate") == 1
    assert "No class lies clearly below its estimate" in text(classes=[row("dog")])
    two = text(classes=[row("a", below=True), row("b", below=True)])
    assert "2 classes lie clearly below their estimate" in two


@pytest.mark.parametrize(
    ("before", "where"), [(0.9, "above"), (0.7, "below"), (0.8, "within"), (None, "")]
)
def test_the_estimate_is_set_beside_the_interval(before, where):
    told = verdict(found(estimated_accuracy_before=before))
    assert (f" {where} it" in told) if where else told == ""


def test_both_intervals_stand_side_by_side():
    (_, value, interval, bar), (name, *estimate) = accuracy_rows(found())
    assert (value, interval) == ("81 %", "74 to 87 %")
    assert 'x="74.49%" width="12.02%"' in bar and 'x1="81.08%"' in bar
    assert name == "estimated without labels" and estimate[:2] == ["70 %", "60 to 85 %"]
    alone = accuracy_rows(found(estimated_accuracy_before=None))
    assert len(alone) == 1


def test_bins_and_errors_are_told_in_the_order_of_the_page():
    assert bin_rows(found()["reliability"]) == [
        ("0.2 to 0.3", "30", "0", "93 %", "-", "-"),
        ("0.9 to 1.0", "30", "20", "93 %", "90 %", "70 to 98 %"),
    ]
    rows = error_rows(found()["calibration_errors"])
    assert [r[1:] for r in rows] == [("20 %", "1 %"), ("7 %", "5 %")]
    assert rows[0][0].startswith("probability")


def test_too_few_answers_are_told_plainly():
    words = text(calibration_errors=None, answered=30, asked=30)
    assert "30 answers are too few to say: below 50 the error is mostly chance" in words
    assert "Error By chance" not in words and "temperature of" not in words
    assert "there are too few answers" in text(prediction_sets=None)
    assert "1 answer is too few" in text(calibration_errors=None, answered=1, asked=1)


def test_without_the_probability_of_every_class_nothing_is_said_of_sets():
    more = {"temperature": None, "prediction_sets": None, "temperature_before": None}
    words = text(**more)
    assert "Sets of classes" not in words and "temperature of" not in words
    assert "too few" not in words
