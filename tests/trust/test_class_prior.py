import pytest
import torch

from nameonly.trust import class_prior
from nameonly.trust.class_prior import em_prior, prior_warnings, transport_prior


def task(shares, n=6000, seed=0):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.multinomial(torch.tensor(shares), n, replacement=True, generator=generator)
    # logits whose softmax under a flat prior is the true posterior: unit Gaussians around 2 e_k
    c = len(shares)
    x = 2 * torch.eye(c)[truth] + torch.randn(n, c, generator=generator)
    return (2 * x).softmax(dim=1), truth


def test_expectation_maximisation_finds_shares_that_labels_miss():
    shares = [0.7, 0.2, 0.1]
    probs, _ = task(shares)
    counted = torch.bincount(probs.argmax(dim=1), minlength=3) / len(probs)
    found = em_prior(probs)
    assert found.tolist() == pytest.approx(shares, abs=0.02)
    assert (found - torch.tensor(shares)).abs().sum() < (counted - torch.tensor(shares)).abs().sum()


def test_transport_lies_between_the_mean_and_equal_shares():
    probs, _ = task([0.7, 0.2, 0.1])
    assert transport_prior(probs, pull=0.0).tolist() == pytest.approx(
        probs.mean(0).tolist(), abs=1e-5
    )
    assert transport_prior(probs, pull=1e6).tolist() == pytest.approx([1 / 3] * 3, abs=1e-3)
    between = transport_prior(probs)
    assert between.sum().item() == pytest.approx(1, abs=1e-5)
    assert 1 / 3 < between[0] < probs.mean(0)[0]


def test_warnings_name_the_classes():
    names = ("cat", "dog", "fox")
    labels = torch.tensor([0] * 95 + [1] * 5)
    found = {w.kind: w for w in prior_warnings(labels, torch.tensor([0.3, 0.4, 0.3]), names, True)}
    assert found["empty"].classes == (2,) and "'fox'" in found["empty"].text
    assert found["swallows"].classes == (0,) and "95%" in found["swallows"].text
    flat = prior_warnings(labels, torch.tensor([0.9, 0.05, 0.05]), names, balanced=True)
    assert "not flat" in {w.kind for w in flat}
    assert not prior_warnings(torch.arange(99) % 3, torch.full((3,), 1 / 3), names, True)
    assert prior_warnings(torch.tensor([-1, -1]), torch.full((3,), 1 / 3), names) == []


@pytest.mark.parametrize("estimated", [em_prior, transport_prior])
def test_blocks_of_rows_change_nothing(estimated, monkeypatch):
    probs, _ = task([0.6, 0.3, 0.1], n=300)
    whole, seen = estimated(probs), []

    def blocks(n, c):
        seen.append((n, c))
        return [slice(start, start + 7) for start in range(0, n, 7)]

    monkeypatch.setattr(class_prior, "row_blocks", blocks)
    torch.testing.assert_close(estimated(probs), whole)
    assert set(seen) == {(300, 3)}
