import math

import pytest
import torch

from nameonly.trust.accuracy import average_confidence
from nameonly.trust.calibration import (
    calibration_error,
    classwise_confidence,
    combined_confidence,
    conformal_threshold,
    fit_temperature,
    held_out,
    matched_mean,
    prediction_sets,
    reliability,
    temperature_for,
)


def sampled(n=4000, temperature=3.0, seed=0):
    """Return logits that are too sure by a temperature, and labels drawn from what is true."""
    generator = torch.Generator().manual_seed(seed)
    true_logits = 2 * torch.randn(n, 4, generator=generator)
    labels = torch.multinomial(true_logits.softmax(dim=1), 1, generator=generator)[:, 0]
    return temperature * true_logits, labels


def test_the_temperature_for_an_accuracy_gives_it_as_mean_confidence():
    logits, labels = sampled()
    accuracy = (logits.argmax(dim=1) == labels).float().mean().item()
    temperature = temperature_for(logits, accuracy)
    assert average_confidence(logits, temperature) == pytest.approx(accuracy, abs=1e-6)
    assert temperature == pytest.approx(3, rel=0.1)
    assert temperature_for(logits, 0.0) > 1000 and temperature_for(logits, 1.0) < 0.01
    for bad in (-0.1, 1.1):
        with pytest.raises(ValueError, match="accuracy in"):
            temperature_for(logits, bad)


def test_the_temperature_of_labels_is_the_true_one_and_weights_count():
    logits, labels = sampled()
    assert fit_temperature(logits, labels) == pytest.approx(3, rel=0.1)
    weights = torch.ones(len(labels))
    weights[labels != logits.argmax(dim=1)] = 0
    assert fit_temperature(logits, labels, weights) < 0.1  # only right ones count: no doubt
    with pytest.raises(ValueError, match="at least one"):
        fit_temperature(logits[:0], labels[:0])


def test_a_power_gives_the_mean_and_keeps_the_order():
    values = torch.tensor([0.2, 0.9, 0.5, 1.0])
    found = matched_mean(values, 0.8)
    assert found.mean().item() == pytest.approx(0.8, abs=1e-6)
    assert torch.equal(found.argsort(), values.argsort()) and found[3] == 1
    assert matched_mean(values, 0.0).mean().item() == pytest.approx(0.25)  # the one stays one


def test_classes_get_powers_of_their_own():
    confidence, labels = torch.tensor([0.5, 0.7, 0.9, 0.4]), torch.tensor([0, 0, 1, -1])
    found = classwise_confidence(confidence, labels, torch.tensor([0.8, math.nan]))
    assert found[:2].mean().item() == pytest.approx(0.8, abs=1e-6)
    assert torch.equal(found[2:], confidence[2:])


def test_two_confidences_become_one_at_a_level():
    probability, stability = torch.tensor([0.9, 0.9, 0.6]), torch.tensor([1.0, 0.0, 1.0])
    found = combined_confidence(probability, stability, 0.7, 20)
    assert found.mean().item() == pytest.approx(0.7, abs=1e-5)
    assert found[0] > found[2] > found[1] > 0


def test_bins_hold_their_upper_edge_and_know_what_was_audited():
    confidence = torch.tensor([0.0, 0.1, 0.11, 0.95, 1.0, 0.99])
    right = torch.tensor([True, False, True, True, True, False])
    weights = torch.tensor([1.0, 1.0, 0.0, 3.0, 0.0, 1.0])
    low, second, last = reliability(confidence, right, weights)
    assert (low.n, low.n_audited, low.accuracy, low.interval) == (2, 2, 0.5, (0.5, 0.5))
    assert second.n_audited == 0 and math.isnan(second.accuracy) and second.interval is None
    assert (last.low, last.high, last.n, last.n_audited) == (0.9, 1.0, 3, 2)
    assert last.accuracy == 0.75, "an image counts for as many as it stands for"
    assert last.interval[0] < 0.75 < last.interval[1]


def test_the_error_of_a_confidence_by_hand():
    confidence = torch.tensor([0.9, 0.92, 0.4])
    right = torch.tensor([True, False, False])
    weights = torch.tensor([1.0, 3.0, 4.0])
    # 0.9 lies in the bin below 0.92
    error, chance = calibration_error(confidence, right, weights)
    assert error == pytest.approx((1 * 0.1 + 3 * 0.92 + 4 * 0.4) / 8)
    gaps = (1 * 0.09**0.5, 3 * (0.92 * 0.08) ** 0.5, 4 * 0.24**0.5)
    assert chance == pytest.approx((2 / math.pi) ** 0.5 * sum(gaps) / 8)
    error, _ = calibration_error(confidence, right, weights, n_bins=1)
    assert error == pytest.approx(abs(1 - (0.9 + 3 * 0.92 + 4 * 0.4)) / 8)
    with pytest.raises(ValueError, match="at least one"):
        calibration_error(confidence[:0], right[:0], weights[:0])


def test_a_perfect_confidence_shows_the_error_of_chance():
    g = torch.Generator().manual_seed(0)
    errors, chances = [], []
    for _ in range(300):
        confidence = torch.rand(80, generator=g)
        right = torch.rand(80, generator=g) < confidence
        error, chance = calibration_error(confidence, right, 0.5 + torch.rand(80, generator=g))
        errors.append(error)
        chances.append(chance)
    assert sum(errors) == pytest.approx(sum(chances), rel=0.05)


def test_a_fit_is_judged_on_what_it_has_not_seen():
    values = torch.arange(12.0)
    told = []

    def refit(seen):
        told.append(seen)
        return torch.where(seen, torch.full((12,), -1.0), values)

    assert torch.equal(held_out(12, refit), values.double())
    assert len(told) == 5 and {int(s.sum()) for s in told} == {9, 10}
    assert torch.equal(held_out(3, lambda seen: seen.float()), torch.zeros(3).double())


def test_sets_cover_as_promised_over_draws():
    covered, sizes = [], []
    for seed in range(100):
        logits, labels = sampled(260, seed=seed)
        probs = (logits / 3).softmax(dim=1)
        sets = prediction_sets(probs[60:], conformal_threshold(probs[:60], labels[:60], 0.8))
        covered.append(sets.gather(1, labels[60:, None]).float().mean().item())
        sizes.append(sets.float().sum(dim=1).mean().item())
    assert 0.79 < sum(covered) / 100 < 0.83
    assert 1 <= sum(sizes) / 100 < 2


def test_sets_of_a_weighted_audit_cover_the_whole():
    """Half of the audit comes from a tenth of the images, the unsure ones."""
    covered = []
    for seed in range(60):
        logits, labels = sampled(2000, seed=seed)
        probs = (logits / 3).softmax(dim=1)
        unsure = probs.amax(dim=1).argsort()
        rows = torch.cat([unsure[:200][torch.randperm(200)[:60]], unsure[200:][::30][:60]])
        weights = torch.cat([torch.full((60,), 200 / 60), torch.full((60,), 1800 / 60)])
        least = conformal_threshold(probs[rows], labels[rows], 0.8, weights)
        covered.append((probs.gather(1, labels[:, None])[:, 0] >= least).float().mean().item())
    assert 0.78 < sum(covered) / len(covered) < 0.86


def test_too_few_images_for_a_coverage_are_refused():
    probs = torch.full((8, 2), 0.5)
    with pytest.raises(ValueError, match="at least 9 audited images, got 8"):
        conformal_threshold(probs, torch.zeros(8, dtype=torch.long), 0.9)
    with pytest.raises(ValueError, match="between 0 and 1"):
        conformal_threshold(probs, torch.zeros(8, dtype=torch.long), 1.0)
