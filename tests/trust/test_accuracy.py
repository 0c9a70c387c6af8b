"""Estimates of accuracy: on clusters whose truth is known, and against hand-made figures."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from nameonly.trust import accuracy
from nameonly.trust.accuracy import (
    average_confidence,
    average_thresholded_confidence,
    dawid_skene,
    estimate_accuracy,
    find_clusters,
    label_stability,
    mean_agreement,
    n_draws,
    nearest_centre,
)
from nameonly.types import Features


def clusters(spread, n=600, c=4, d=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.arange(n) % c
    centres = normalize(torch.randn(c, d, generator=generator), dim=1)
    values = centres[truth] + spread * torch.randn(n, d, generator=generator)
    ids = tuple(f"image-{i}" for i in range(n))
    features = Features(normalize(values, dim=1), ids, "made")
    logits = features.values @ centres.T
    return features, truth, logits.argmax(dim=1)


def test_the_estimate_falls_with_the_accuracy():
    found = []
    for spread in (0.05, 0.3, 0.6):
        features, truth, labels = clusters(spread)
        estimate = estimate_accuracy(features, find_clusters(features, labels, 4), labels)
        found.append((estimate.value, (labels == truth).float().mean().item()))
    estimates, accuracies = zip(*found, strict=True)
    assert list(estimates) == sorted(estimates, reverse=True)
    assert accuracies[0] == 1 and estimates[0] > 0.99
    assert estimates[2] < 0.75


def test_labels_drawn_by_chance_are_found_out():
    features, _, labels = clusters(0.1)
    wrong = torch.randint(4, (600,), generator=torch.Generator().manual_seed(1))
    assert estimate_accuracy(features, find_clusters(features, labels, 4), wrong).value < 0.35


def test_it_knows_nothing_of_names_given_the_wrong_way_round():
    features, truth, labels = clusters(0.05)
    swapped = (labels + 1) % 4
    assert (swapped == truth).sum() == 0
    assert (
        estimate_accuracy(features, find_clusters(features, swapped, 4), swapped).value > 0.99
    )  # as the docs say


def test_the_order_of_images_changes_nothing_but_rows():
    features, _, labels = clusters(0.5)
    order = torch.randperm(600, generator=torch.Generator().manual_seed(3))
    straight = label_stability(features, find_clusters(features, labels, 4), labels)
    shuffled = label_stability(
        features.subset(order),
        find_clusters(features.subset(order), labels[order], 4),
        labels[order],
    )
    assert torch.allclose(straight[order], shuffled, atol=0.051)
    assert straight.mean().item() == pytest.approx(shuffled.mean().item(), abs=2e-3)


def test_per_class_left_out_and_interval():
    features, _, labels = clusters(0.5)
    only = torch.where(labels == 2, -1, labels)
    estimate = estimate_accuracy(features, find_clusters(features, labels, 4), only)
    assert estimate.n == int((labels != 2).sum())
    assert math.isnan(estimate.per_class[2]) and 0 < estimate.per_class[0] < 1
    assert estimate.low < estimate.value < estimate.high
    wider = estimate_accuracy(features, find_clusters(features, labels, 4), only, level=0.99)
    assert wider.low < estimate.low and wider.high > estimate.high
    few = features.subset(torch.arange(5))
    small = estimate_accuracy(few, find_clusters(few, labels[:5], 4), labels[:5])
    assert small.value - small.low > 2 * (estimate.value - estimate.low)


def test_bad_input_is_refused():
    features, _, labels = clusters(0.1)
    with pytest.raises(ValueError, match="at least one labelled image"):
        estimate_accuracy(features, find_clusters(features, labels, 4), torch.full_like(labels, -1))
    with pytest.raises(ValueError, match=r"between 0 and 1, got 90\.0"):
        estimate_accuracy(features, find_clusters(features, labels, 4), labels, level=90.0)


def test_centres_of_classes_without_images_are_nobodys():
    features, _, labels = clusters(0.1)
    found = find_clusters(features, labels, 6)
    assert found.centres[4:].isinf().all() and found.nearest.max() < 4
    assert torch.equal(nearest_centre(features.values, found.centres), found.nearest)


@pytest.mark.parametrize("steps", [1, 2, 20])
def test_clusters_are_those_of_plain_k_means(monkeypatch, steps):
    features, truth, _ = clusters(0.3)
    start = torch.where(torch.arange(600) % 3 > 0, truth, (truth + 1) % 4)
    nearest = start
    for _ in range(steps + 1):
        centres = torch.stack([features.values[nearest == k].mean(dim=0) for k in range(4)])
        nearest = torch.cdist(features.values, centres).argmin(dim=1)
    monkeypatch.setattr(accuracy, "CENTRE_STEPS", steps)
    found = find_clusters(features, start, 4)
    torch.testing.assert_close(found.centres, centres)
    assert torch.equal(found.nearest, nearest)


def test_many_images_and_classes_are_moved_less_often():
    assert n_draws(1000, 10, 512) == 20
    assert n_draws(1_000_000, 1000, 768) == 5
    assert n_draws(10**7, 20_000, 768) == 3


def test_average_confidence_by_hand():
    logits = torch.tensor([[0.0, math.log(3)], [math.log(9), 0.0]])
    assert average_confidence(logits) == pytest.approx((0.75 + 0.9) / 2)
    assert average_confidence(logits, 1e6) == pytest.approx(0.5, abs=1e-3)


def test_thresholded_confidence_by_hand():
    source = torch.tensor([0.1, 0.2, 0.3, 0.4])
    right = torch.tensor([False, True, True, True])
    ours = torch.tensor([0.05, 0.15, 0.25, 0.5])
    # one source image in four is wrong: the threshold is the second lowest, 0.2
    assert average_thresholded_confidence(ours, source, right) == 0.5
    assert average_thresholded_confidence(ours, source, ~right & right) == 0.0
    with pytest.raises(ValueError, match="labelled images of a source"):
        average_thresholded_confidence(ours, source[:0], right[:0])


def test_agreement_by_hand():
    votes = [torch.tensor([0, 1, 2, 3]), torch.tensor([0, 1, 2, 0]), torch.tensor([1, 1, 2, 0])]
    assert mean_agreement(votes) == pytest.approx([(0.75 + 0.5) / 2, 0.75, (0.5 + 0.75) / 2])
    with pytest.raises(ValueError, match="two voters, got 1"):
        mean_agreement(votes[:1])


def test_observers_who_err_independently_are_found_out():
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(5, (4000,), generator=generator)

    def observer(accuracy):
        wrong = (truth + torch.randint(1, 5, truth.shape, generator=generator)) % 5
        return torch.where(torch.rand(len(truth), generator=generator) < accuracy, truth, wrong)

    votes = [observer(a) for a in (0.9, 0.7, 0.6)]
    votes[2][:100] = -1
    found = dawid_skene(votes, 5)
    assert found.accuracy.tolist() == pytest.approx([0.9, 0.7, 0.6], abs=0.03)
    assert (found.probs.argmax(dim=1) == truth).float().mean() > 0.89
    assert found.prior.sum().item() == pytest.approx(1, abs=1e-5)
    with pytest.raises(ValueError, match="at least one voter"):
        dawid_skene([], 5)


def test_blocks_of_rows_change_nothing(monkeypatch):
    features, _, labels = clusters(0.3)
    logits = features.values @ features.values[:4].T
    found = find_clusters(features, labels, 4)
    whole = (found.centres, found.nearest, label_stability(features, found, labels, draws=3))
    confidence = average_confidence(logits)
    assert confidence == pytest.approx(logits.softmax(dim=1).amax(dim=1).mean().item())
    seen = []
    one = accuracy.nearest_centre

    def counted(values, centres):
        seen.append(len(values))
        return one(values, centres)

    monkeypatch.setattr(accuracy, "BLOCK_VALUES", 16 * 7)  # seven rows of sixteen dimensions
    monkeypatch.setattr(accuracy, "nearest_centre", counted)
    monkeypatch.setattr(
        accuracy, "row_blocks", lambda n, c: [slice(i, i + 7) for i in range(0, n, 7)]
    )
    found = find_clusters(features, labels, 4)
    parts = (found.centres, found.nearest, label_stability(features, found, labels, draws=3))
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b)
    assert max(seen) == 7
    assert average_confidence(logits) == pytest.approx(confidence)
