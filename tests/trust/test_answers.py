import pytest
import torch

from nameonly.ops.intervals import wilson_bounds
from nameonly.trust.answers import (
    ENOUGH,
    ENOUGH_OF_CLASS,
    Answers,
    audit_classes,
    confidence_errors,
    diagram,
    temperature_and_sets,
)


def answered(n=600, n_checked=300, too_sure=3.0, seed=0):
    """Return answers to labels of three classes; probabilities are too sure, class 0 much too."""
    g = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, 3, generator=g)
    truth = torch.multinomial(logits.softmax(dim=1), 1, generator=g)[:, 0]
    probs = (too_sure * logits).softmax(dim=1)
    labels = probs.argmax(dim=1)
    confidence = logits.softmax(dim=1).amax(dim=1)
    swapped = (labels == 0) & (torch.rand(n, generator=g) < 0.6)
    truth = torch.where(swapped & (truth == 0), 1, truth)
    checked = torch.arange(n) < n_checked
    weights = torch.where(checked, n / max(1, n_checked), 0.0).double()
    return Answers(labels, confidence, probs, torch.where(checked, truth, -1), weights)


def test_classes_by_hand():
    told = Answers(
        labels=torch.tensor([0, 0, 0, 2, 1]),
        confidence=torch.full((5,), 0.5),
        probs=None,
        truth=torch.tensor([0, 3, -1, 2, -1]),
        weights=torch.tensor([3.0, 1.0, 0.0, 1.0, 0.0]),
    )
    first, last = audit_classes(told)
    assert (first.label, first.n_labels, first.n, first.n_right) == (0, 3, 2, 1)
    assert first.accuracy == 0.75
    assert (first.low, first.high) == pytest.approx(wilson_bounds(0.75, 1.6 * 3, 0.95))
    assert (last.label, last.n, last.low, last.high) == (2, 1, 1.0, 1.0), "all of it was checked"
    assert first.calibration_error is None


def test_a_class_with_enough_answers_has_an_error_of_its_own():
    told = answered()
    found = {c.label: c for c in audit_classes(told)}
    assert min(c.n for c in found.values()) > ENOUGH_OF_CLASS
    for label, row in found.items():
        rows = (told.truth >= 0) & (told.labels == label)
        right = (told.truth == told.labels)[rows].double().mean().item()
        gap = abs(told.confidence[rows].double().mean().item() - right)
        assert row.calibration_error == pytest.approx(gap, abs=1e-6)
    assert found[0].calibration_error > 0.3 > 0.1 > found[1].calibration_error
    few = answered(n_checked=ENOUGH_OF_CLASS)
    assert {c.calibration_error for c in audit_classes(few)} == {None}


def test_errors_tell_which_confidence_means_what_it_says():
    told = answered(n=1600, n_checked=800)
    found = confidence_errors(told)
    assert list(found) == ["confidence", "probability", "temperature", "classwise"]
    errors = {name: row["error"] for name, row in found.items()}
    assert errors["probability"] > errors["confidence"] > errors["classwise"]
    assert errors["probability"] > errors["temperature"]
    assert errors["classwise"] < 0.7 * errors["confidence"]


def test_what_is_fitted_to_answers_is_not_judged_on_them():
    """Labels that are right by a throw of dice: no fit to some answers helps with the others."""
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(300) // ENOUGH_OF_CLASS
    right = torch.rand(300, generator=g) < 0.5
    truth = torch.where(right, labels, len(labels))
    told = Answers(labels, torch.full((300,), 0.5), None, truth, torch.ones(300))
    found = confidence_errors(told)
    assert list(found) == ["confidence", "classwise"]
    assert found["classwise"]["error"] > 2 * found["confidence"]["error"]


def test_a_class_with_few_answers_keeps_its_confidence():
    labels = (torch.arange(80) >= 70).long()
    right = (torch.arange(80) % 2 == 0) & (labels == 0)
    confidence = torch.where(labels == 0, 0.5, 0.9)
    told = Answers(labels, confidence, None, torch.where(right, labels, 2), torch.ones(80))
    # ten labels of the second class are all wrong, which nothing is fitted to
    assert confidence_errors(told)["classwise"]["error"] > 0.9 * 10 / 80 - 1e-6


def test_too_few_answers_say_so():
    assert confidence_errors(answered(n_checked=ENOUGH - 1)) is None
    found = confidence_errors(answered(n_checked=ENOUGH))
    assert found["confidence"]["by_chance"] > 0.05
    few = temperature_and_sets(answered(n_checked=4))
    assert "temperature" in few and "prediction_sets" not in few


def test_answers_that_are_none_of_the_classes_fit_no_temperature():
    told = answered()
    nothing = Answers(
        told.labels,
        told.confidence,
        told.probs,
        torch.where(told.truth >= 0, 3, -1),
        told.weights,
    )
    assert temperature_and_sets(nothing) == {}
    found = confidence_errors(nothing)
    assert "temperature" not in found and found["confidence"]["error"] > 0.5


def test_the_temperature_is_found_and_sets_hold_the_truth():
    told = answered(n=3000, n_checked=1500, seed=3)
    found = temperature_and_sets(told)
    assert found["temperature"] > 2
    assert found["prediction_sets"]["coverage"] == 0.9
    assert 1 < found["prediction_sets"]["mean_size"] < 3


def test_the_diagram_is_plain_data():
    told = answered(n_checked=5)
    rows = diagram(told)
    assert sum(row["n_audited"] for row in rows) == 5 and sum(row["n"] for row in rows) == 600
    without = [row for row in rows if not row["n_audited"]]
    assert without and all(r["accuracy"] is None and r["interval"] is None for r in without)
