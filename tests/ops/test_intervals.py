import pytest
import torch

from nameonly.ops.intervals import effective_number, weighed_share, wilson_bounds
from nameonly.trust.audit import audit_sample, audit_weights


def test_the_effective_number_by_hand():
    assert effective_number(torch.tensor([2.0, 2.0, 2.0])) == pytest.approx(3)
    assert effective_number(torch.tensor([3.0, 1.0])) == pytest.approx(16 / 10)
    assert effective_number(torch.zeros(0)) == effective_number(torch.zeros(4)) == 0


def test_a_share_counts_images_for_as_many_as_they_stand_for():
    right, weights = torch.tensor([True, False, True]), torch.tensor([6.0, 3.0, 1.0])
    share, low, high = weighed_share(right, weights, 12, 0.9)
    assert share == pytest.approx(0.7)
    expected = wilson_bounds(0.7, (100 / 46) / (1 - 3 / 12), 0.9)
    assert (low, high) == pytest.approx(expected)


def test_where_all_was_looked_at_nothing_is_left_to_chance():
    right = torch.tensor([True, False])
    assert weighed_share(right, torch.ones(2), 2, 0.95) == (0.5, 0.5, 0.5)


def test_the_interval_of_a_part_of_an_audit_holds_its_truth():
    """A class takes unequal shares of the strata, from which unequal shares are drawn."""
    g = torch.Generator().manual_seed(1)
    confidence = torch.rand(2000, generator=g) ** 0.3
    right = torch.rand(2000, generator=g) < confidence
    inside = torch.rand(2000, generator=g) < 0.5 * confidence
    truth, held, shares = right[inside].double().mean().item(), 0, []
    for seed in range(150):
        sample = audit_sample(confidence, 120, seed=seed)
        checked = torch.zeros(2000, dtype=torch.bool)
        checked[sample.rows] = True
        weights, seen = audit_weights(sample, checked), checked & inside
        share, low, high = weighed_share(right[seen], weights[seen], int(inside.sum()), 0.9)
        held += low <= truth <= high
        shares.append(share)
    assert held / 150 > 0.87
    assert sum(shares) / 150 == pytest.approx(truth, abs=0.02), "no draw favours unsure images"
