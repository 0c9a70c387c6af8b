import pytest
import torch

from nameonly.ops.intervals import effective_number
from nameonly.trust.audit import (
    AuditSample,
    audit_accuracy,
    audit_sample,
    audit_weights,
    hoeffding_interval,
    images_needed,
    interval_of_variance,
)


def population(n=2000, seed=0):
    generator = torch.Generator().manual_seed(seed)
    confidence = torch.rand(n, generator=generator) ** 0.3
    return confidence, torch.rand(n, generator=generator) < confidence


def test_intervals_hold_the_truth_as_often_as_they_say():
    confidence, right = population()
    truth, held, widths, means = right.float().mean().item(), 0, [], []
    for seed in range(300):
        sample = audit_sample(confidence, 80, seed=seed)
        checked = torch.zeros(len(right), dtype=torch.bool)
        checked[sample.rows] = True
        found = audit_accuracy(sample, checked, right, level=0.9)
        held += found.low <= truth <= found.high
        widths.append(found.high - found.low)
        means.append(found.accuracy)
    assert held / 300 > 0.87
    assert sum(means) / 300 == pytest.approx(truth, abs=0.01)
    assert sum(widths) / 300 < 0.16  # a simple random sample of 80: 0.155


@pytest.mark.parametrize("share", [0.5, 0.97])
def test_the_interval_without_a_distribution_holds_whatever_the_strata_are(share):
    """One large stratum that is hardly looked at, and a small one: few answers stand for most."""
    truth = torch.rand(1000, generator=torch.Generator().manual_seed(5)) < share
    strata = (torch.arange(1000) >= 900).long()
    sample = AuditSample(torch.arange(1000), strata, torch.bincount(strata))
    held = 0
    for seed in range(200):
        g = torch.Generator().manual_seed(seed)
        checked = torch.zeros(1000, dtype=torch.bool)
        checked[torch.randperm(900, generator=g)[:15]] = True
        checked[900 + torch.randperm(100, generator=g)[:60]] = True
        weights = audit_weights(sample, checked)
        found = audit_accuracy(sample, checked, truth, level=0.9)
        low, high = hoeffding_interval(found.accuracy, effective_number(weights), 0.9)
        held += low <= truth.float().mean() <= high
    assert held / 200 > 0.9


def test_any_first_part_is_a_sample_and_more_begins_with_less():
    confidence, right = population()
    many, few = audit_sample(confidence, 200), audit_sample(confidence, 30)
    assert torch.equal(many.rows[:30], few.rows) and len(set(many.rows.tolist())) == 200
    assert set(many.strata[few.rows].tolist()) == set(range(5))
    checked = torch.zeros(len(right), dtype=torch.bool)
    checked[few.rows] = True
    assert audit_weights(few, checked).sum().item() == pytest.approx(len(right))
    assert audit_accuracy(many, checked, right).n == 30


def test_all_checked_is_no_guess():
    confidence, right = population(50)
    sample = audit_sample(confidence, 500)
    assert len(sample.rows) == 50
    found = audit_accuracy(sample, torch.ones(50, dtype=torch.bool), right)
    truth = right.float().mean().item()
    assert found.accuracy == pytest.approx(truth)
    assert (found.low, found.high) == pytest.approx((truth, truth))


def test_strata_that_nobody_looked_at_may_hold_anything():
    confidence, right = population()
    sample = audit_sample(confidence, 10)
    checked = torch.zeros(len(right), dtype=torch.bool)
    checked[sample.rows[sample.strata[sample.rows] == 0]] = True
    found = audit_accuracy(sample, checked, right)
    assert found.high - found.low > 0.8


def test_images_that_must_not_be_drawn_are_not():
    confidence, _ = population(100)
    confidence[:90] = torch.nan
    sample = audit_sample(confidence, 100)
    assert sorted(sample.rows.tolist()) == list(range(90, 100))
    one = audit_sample(confidence[90:91], 5)
    assert one.rows.tolist() == [0]


def test_bad_input_is_refused():
    confidence, right = population(100)
    with pytest.raises(ValueError, match="at least one image"):
        audit_sample(confidence, 0)
    with pytest.raises(ValueError, match="no labelled image"):
        audit_sample(torch.full((3,), torch.nan), 2)
    with pytest.raises(ValueError, match="has been checked"):
        audit_accuracy(audit_sample(confidence, 5), torch.zeros(100, dtype=torch.bool), right)


def test_sizes_and_hoeffding_by_hand():
    assert images_needed(0.05) == 385 and images_needed(0.1) == 97
    assert images_needed(0.05, accuracy=0.9) == 139
    with pytest.raises(ValueError, match="margin and level"):
        images_needed(5.0)
    low, high = hoeffding_interval(0.8, 100.0)
    assert (low, high) == pytest.approx((0.6642, 0.9358), abs=1e-4)
    assert hoeffding_interval(1.0, 1.0) == (0.0, 1.0)
    for bad in ((1.5, 2.0), (0.5, 0.0), (0.5, 2.0, 1.0)):
        with pytest.raises(ValueError, match="expected a share"):
            hoeffding_interval(*bad)
    assert interval_of_variance(0.8, 0.8 * 0.2 / 100, 0.95) == pytest.approx(
        (0.711, 0.8666), abs=1e-3
    )
