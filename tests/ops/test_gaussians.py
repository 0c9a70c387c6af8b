import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch.distributions import MultivariateNormal

from nameonly.ops.gaussians import ClassGaussians


def drawn(n=40, c=3, d=5, seed=0):
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % c
    values = torch.randn(c, d, generator=g)[y] + 0.7 * torch.randn(n, d, generator=g)
    return values, torch.nn.functional.one_hot(y, c).float(), y


def slow(values, weights):
    """The weighted scatter around the class means, row by row."""
    values, weights = values.double(), weights.double()
    means = torch.stack(
        [
            sum(w * x for w, x in zip(weights[:, j], values, strict=True)) / weights[:, j].sum()
            for j in range(weights.shape[1])
        ]
    )
    scatter = sum(
        w * torch.outer(x - m, x - m)
        for x, row in zip(values, weights, strict=True)
        for w, m in zip(row, means, strict=True)
    )
    return means, scatter


def covariance(gaussians):
    return gaussians.factor @ gaussians.factor.T


def test_means_shares_and_shrunk_covariance_against_a_slow_loop():
    values, _, _ = drawn()
    weights = torch.rand(40, 3, generator=torch.Generator().manual_seed(1))
    weights[7] = 0
    got = ClassGaussians.estimate(values, weights, torch.zeros(3, 5))
    means, scatter = slow(values, weights)
    n = weights.double().sum()
    torch.testing.assert_close(got.means, means)
    torch.testing.assert_close(got.shares, weights.double().sum(dim=0) / n)
    want = (scatter + scatter.trace() / (n - 1) * torch.eye(5, dtype=torch.float64)) / (n - 1 + 5)
    torch.testing.assert_close(covariance(got), want)
    torch.testing.assert_close(covariance(got).trace(), scatter.trace() / (n - 1))


def test_precision_is_the_papers_but_for_a_factor():
    values, weights, _ = drawn(n=8, d=12)  # fewer rows than dimensions
    got = ClassGaussians.estimate(values, weights, torch.zeros(3, 12))
    _, scatter = slow(values, weights)
    sigma = scatter / 7
    paper = 12 * torch.linalg.pinv(7 * sigma + sigma.trace() * torch.eye(12, dtype=torch.float64))
    torch.testing.assert_close(torch.linalg.inv(covariance(got)), paper * (7 + 12) / 12)


def test_log_odds_are_those_of_scikit_learn():
    values, weights, y = drawn(n=39)  # it weighs class covariances by the priors, so equal classes
    got = ClassGaussians.estimate(values, weights, torch.zeros(3, 5)).log_likelihood(values)
    other = LinearDiscriminantAnalysis("lsqr", shrinkage=5 / (39 - 1 + 5), priors=[1 / 3] * 3)
    other.fit(values.double().numpy(), y.numpy())
    scores = torch.from_numpy(other.decision_function(values.double().numpy()))
    torch.testing.assert_close((got - got[:, :1]) * 39 / 38, scores - scores[:, :1])


def test_log_likelihood_is_the_normal_density():
    values, weights, _ = drawn()
    got = ClassGaussians.estimate(values, weights, torch.zeros(3, 5))
    want = [
        MultivariateNormal(m, scale_tril=got.factor).log_prob(values.double()) for m in got.means
    ]
    torch.testing.assert_close(got.log_likelihood(values), torch.stack(want, dim=1))


def test_a_weight_of_two_is_two_rows():
    values, weights, _ = drawn()
    weights[:5] *= 2
    a = ClassGaussians.estimate(values, weights, torch.zeros(3, 5))
    twice = torch.cat([torch.arange(40), torch.arange(5)])
    b = ClassGaussians.estimate(values[twice], weights[twice].clamp(max=1), torch.zeros(3, 5))
    torch.testing.assert_close(a.means, b.means)
    torch.testing.assert_close(covariance(a), covariance(b))


def test_blocks_of_rows_add_up():
    values, weights, _ = drawn(n=1800, d=700)  # three blocks
    got = ClassGaussians.estimate(values, weights, torch.zeros(3, 700))
    x, w = values.double(), weights.double()
    means = w.T @ x / w.sum(dim=0)[:, None]
    scatter = (x - w @ means).T @ (x - w @ means)
    torch.testing.assert_close(got.means, means)
    want = scatter + scatter.trace() / 1799 * torch.eye(700, dtype=torch.float64)
    torch.testing.assert_close(covariance(got), want / (1799 + 700))


def test_a_class_without_weight_has_the_fallback_and_no_share():
    values, weights, _ = drawn()
    weights[:, 1] = 0
    got = ClassGaussians.estimate(values, weights, torch.arange(15.0).reshape(3, 5))
    torch.testing.assert_close(got.means[1], torch.arange(5.0, 10.0, dtype=torch.float64))
    assert got.shares[1] == 0 and got.shares.sum() == 1
    assert not torch.equal(got.means[0].float(), torch.arange(5.0))


def test_rows_at_their_class_mean_give_a_ball():
    one = ClassGaussians.estimate(torch.ones(1, 4), torch.ones(1, 2), torch.zeros(2, 4))
    torch.testing.assert_close(covariance(one), torch.eye(4, dtype=torch.float64) / 4)
    values = torch.tensor([[0.1, 0.7], [0.9, 0.3]]).repeat(20, 1)
    weights = torch.eye(2).repeat(20, 1)
    same = ClassGaussians.estimate(values, weights, torch.zeros(2, 2))
    torch.testing.assert_close(covariance(same), torch.eye(2, dtype=torch.float64) / 2)


def test_samples_have_the_means_and_the_covariance():
    values, weights, _ = drawn()
    fitted = ClassGaussians.estimate(values, weights, torch.zeros(3, 5))
    labels = torch.tensor([2, 0]).repeat(40_000)
    rows = fitted.sample(labels, torch.Generator().manual_seed(0))
    assert rows.shape == (80_000, 5)
    for j in (0, 2):
        torch.testing.assert_close(
            rows[labels == j].mean(dim=0), fitted.means[j], atol=0.02, rtol=0
        )
    spread = (rows - fitted.means[labels]).T.cov()
    torch.testing.assert_close(spread, covariance(fitted), atol=0.02, rtol=0)
    again = fitted.sample(labels, torch.Generator().manual_seed(0))
    assert torch.equal(rows, again)
    assert not torch.equal(rows, fitted.sample(labels, torch.Generator().manual_seed(1)))


def test_no_weight_at_all_is_refused():
    with pytest.raises(ValueError, match="none of the 4 rows has a weight"):
        ClassGaussians.estimate(torch.ones(4, 2), torch.zeros(4, 3), torch.zeros(3, 2))
