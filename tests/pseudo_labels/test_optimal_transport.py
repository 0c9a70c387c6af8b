import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from nameonly.ops.selection import row_blocks
from nameonly.pseudo_labels.optimal_transport import (
    OptimalTransport,
    balance,
    class_shares,
    estimate_prior,
    largest,
    spread_of,
)
from nameonly.types import Features, LabelSpace

SPACE = LabelSpace(("a", "b", "c"))
THIRDS = torch.ones(3).double() / 3


def scores(n=12, c=3, seed=0, skew=2.0):
    g = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, c, generator=g).double() + skew * torch.arange(c)
    return logits, Features(torch.randn(n, 4, generator=g), tuple(map(str, range(n))), "toy")


def naive_plan(logits, prior, epsilon, iterations=2_000):
    """Cuturi 2013 as it is written: a kernel scaled from the left and the right in turn."""
    kernel = np.exp((logits - logits.max()) / epsilon)
    u, v = np.ones(len(kernel)), np.ones(len(prior))
    for _ in range(iterations):
        u = 1 / len(kernel) / (kernel @ v)
        v = prior / (kernel.T @ u)
    return u[:, None] * kernel * v


def best_plan(logits, prior):
    """The plan of a general solver of linear programmes, without entropy."""
    n, c = logits.shape
    rows = np.kron(np.eye(n), np.ones(c))
    columns = np.kron(np.ones(n), np.eye(c))
    found = linprog(
        -logits.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.r_[np.full(n, 1 / n), prior]
    )
    return found.x.reshape(n, c)


@pytest.mark.parametrize("prior", [[1 / 3, 1 / 3, 1 / 3], [0.6, 0.3, 0.1]])
def test_the_plan_is_that_of_naive_sinkhorn(prior):
    logits, _ = scores()
    prior = torch.tensor(prior, dtype=torch.float64)
    offsets, gap = balance(lambda: [logits[:5], logits[5:]], prior, 0.7, 1000, 1e-13)
    plan = (logits / 0.7 + offsets).softmax(dim=1)
    assert gap <= 1e-13
    np.testing.assert_allclose(
        plan / 12, naive_plan(logits.numpy(), prior.numpy(), 0.7), atol=1e-12
    )


@pytest.mark.parametrize("seed", range(3))
def test_without_entropy_it_is_the_best_plan_of_a_linear_programme(seed):
    logits, features = scores(seed=seed)
    want = best_plan(logits.numpy(), np.full(3, 1 / 3))
    assert ((want > 0.01).sum(axis=1) == 1).all()  # four whole images a class
    method = OptimalTransport(temperature=0.02)
    got = method.label(features, logits, SPACE)
    assert got.labels.tolist() == want.argmax(axis=1).tolist()
    assert torch.bincount(got.labels).tolist() == [4, 4, 4]
    assert (logits.argmax(dim=1) != got.labels).any()
    np.testing.assert_allclose(got.probs / 12, want, atol=0.03)


def test_the_plan_has_its_shares_and_no_better_plan_is_near():
    """No exchange of weight between two images and two classes makes value and entropy larger."""
    logits, features = scores(n=30)
    plan = OptimalTransport(temperature=0.5, tolerance=1e-10).label(features, logits, SPACE).probs
    torch.testing.assert_close(plan.mean(dim=0), THIRDS, atol=1e-9, rtol=0)
    epsilon = 0.5 * spread_of(lambda: [logits])
    gain = logits - epsilon * plan.log()
    exchange = gain[:, None, :, None] + gain[None, :, None, :]
    exchange = exchange - gain[:, None, None, :] - gain[None, :, :, None]
    torch.testing.assert_close(exchange, torch.zeros_like(exchange), atol=1e-8, rtol=0)


def test_temperature_is_in_units_of_the_spread():
    """Neither the logit scale nor what all classes of an image share changes the plan."""
    logits, features = scores()
    a = OptimalTransport().label(features, logits, SPACE)
    b = OptimalTransport().label(features, 7 * logits + torch.randn(12, 1), SPACE)
    torch.testing.assert_close(a.probs, b.probs, atol=1e-8, rtol=0)
    assert spread_of(lambda: [logits[:4], logits[4:]]) == pytest.approx(
        (logits - logits.mean(dim=1, keepdim=True)).pow(2).mean().sqrt().item()
    )


def test_a_higher_temperature_leaves_labels_softer():
    logits, features = scores()
    soft, hard = (
        OptimalTransport(temperature=t).label(features, logits, SPACE) for t in (2.0, 0.05)
    )
    assert soft.confidence.mean() < 0.6 < 0.9 < hard.confidence.mean()


def test_the_estimated_prior_is_that_of_em_and_of_the_likelihood():
    logits, _ = scores(n=200)
    got = estimate_prior(lambda: [logits[:70], logits[70:]], THIRDS, 1000, 1e-12).numpy()
    probs, want = logits.softmax(dim=1).numpy(), np.full(3, 1 / 3)
    for _ in range(1000):
        joint = probs * want
        want = (joint / joint.sum(axis=1, keepdims=True)).mean(axis=0)
    np.testing.assert_allclose(got, want, atol=1e-10)
    likelihood = np.log(probs @ got).sum()
    for step in ([1e-3, -1e-3, 0], [0, 1e-3, -1e-3], [-1e-3, 0, 1e-3], [1e-3, 0, -1e-3]):
        assert np.log(probs @ (got + step)).sum() < likelihood


def test_with_the_estimated_prior_at_one_nat_the_plan_is_the_posterior():
    """Saerens' fixed point: the mean posterior under the prior is the prior itself."""
    logits, features = scores(n=200)
    one_nat = 1 / spread_of(lambda: [logits])
    method = OptimalTransport("estimated", one_nat, iterations=5000, tolerance=1e-12)
    got = method.label(features, logits, SPACE)
    posterior = logits.softmax(dim=1) * got.probs.mean(dim=0)
    posterior /= posterior.sum(dim=1, keepdim=True)
    torch.testing.assert_close(got.probs, posterior, atol=1e-9, rtol=0)
    assert got.probs.mean(dim=0)[0] < 0.2  # not balanced: the scores say that c is frequent


def test_an_estimated_prior_recovers_the_class_frequencies_of_calibrated_scores():
    """Draws from two unit Gaussians; their log-likelihood ratio is the score."""
    g = torch.Generator().manual_seed(0)
    y = torch.arange(4000) % 10 == 0
    x = torch.randn(4000, generator=g).double() + 2 * y
    logits = torch.stack([torch.zeros(4000).double(), 2 * x - 2], dim=1)
    prior = estimate_prior(lambda: [logits], torch.ones(2).double() / 2, 1000, 1e-9)
    assert prior[1].item() == pytest.approx(0.1, abs=0.02)


def test_a_share_that_rounds_to_nothing_still_grows():
    """Class c is two thousand nats away from every image."""
    logits = torch.tensor([[0.0, 1.0, -2000.0], [0.0, 0.5, -1999.0], [0.0, 0.0, -1998.0]]).double()
    assert class_shares(lambda: [logits], torch.zeros(3).double(), 1.0)[2] == 0
    offsets, gap = balance(lambda: [logits], THIRDS, 1.0, 100, 1e-9)
    assert gap <= 1e-9 and torch.isfinite(offsets).all()


def test_where_the_plan_cannot_decide_the_logits_do():
    plan = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.4, 0.3, 0.2, 0.1]]).double()
    plan[0, 0] += 1e-12
    logits = torch.tensor([[1.0, 2.0, 4.0, 3.0], [1.0, 2.0, 4.0, 3.0]]).double()
    assert largest(plan, logits).tolist() == [2, 0]
    same = torch.tensor([[0.0, 2.0, 1.0]]).expand(6, 3).contiguous()
    features = Features(torch.ones(6, 2), tuple("abcdef"), "toy")
    got = OptimalTransport().label(features, same, SPACE)
    assert got.labels.tolist() == [1] * 6
    torch.testing.assert_close(got.probs, torch.full((6, 3), 1 / 3))


def test_given_images_and_seen_classes_have_no_part_in_the_plan():
    logits, features = scores(n=14, c=5)
    space = LabelSpace(tuple("abcde"), seen=(True, False, False, True, False))
    given = torch.full((14,), -1)
    given[:5] = torch.tensor([0, 3, 3, 3, 0])
    got = OptimalTransport().label(features, logits, space, given)
    rest, columns = torch.arange(5, 14), torch.tensor([1, 2, 4])
    alone = OptimalTransport().label(features.subset(rest), logits[5:][:, columns], SPACE)
    torch.testing.assert_close(got.probs[5:][:, columns], alone.probs, atol=1e-9, rtol=0)
    assert (got.probs[5:][:, [0, 3]] == 0).all()
    torch.testing.assert_close(got.probs[:5], logits[:5].softmax(dim=1))
    assert torch.equal(got.labels[:5], given[:5])
    assert torch.equal(got.labels[5:], columns[alone.labels])


def test_a_threshold_leaves_out_images_that_the_plan_divides():
    logits, features = scores()
    every = OptimalTransport().label(features, logits, SPACE)
    sure = OptimalTransport(threshold=0.9).label(features, logits, SPACE)
    assert every.selected.all() and 0 < sure.selected.sum() < 12
    assert torch.equal(sure.selected, every.probs.max(dim=1).values >= 0.9)
    assert torch.equal(sure.labels[sure.selected], every.labels[sure.selected])
    one = OptimalTransport(threshold=1.0).label(features, logits[:, :1], LabelSpace(("a",)))
    assert one.selected.all(), "a probability of exactly the threshold passes"


def test_images_in_several_blocks_and_any_order_have_the_same_plan():
    n, c = 800, 700
    assert len(row_blocks(n, c)) > 1
    g = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(n, c, generator=g).double()
    features = Features(torch.randn(n, 4, generator=g), tuple(map(str, range(n))), "toy")
    space = LabelSpace(tuple(f"class {j}" for j in range(c)))
    got = OptimalTransport(temperature=0.5).label(features, logits, space)
    shares = got.probs.double().mean(dim=0)
    assert (shares - 1 / c).abs().sum() / 2 <= 1e-3 + 1e-6
    order = torch.randperm(n, generator=g)
    again = OptimalTransport(temperature=0.5).label(features.subset(order), logits[order], space)
    assert torch.equal(again.probs, got.probs[order])


def test_it_says_when_the_shares_are_not_reached():
    logits, features = scores()
    with pytest.warns(RuntimeWarning, match="miss the prior by .* after 1 iterations"):
        OptimalTransport(iterations=1).label(features, logits, SPACE)


def test_all_given_leaves_nothing_to_share_out():
    logits, features = scores(n=3)
    given = torch.tensor([2, 0, 1])
    assert torch.equal(OptimalTransport().label(features, logits, SPACE, given).labels, given)


def test_settings_that_cannot_be_meant_are_refused():
    for field in ("temperature", "tolerance"):
        with pytest.raises(ValueError, match=f"{field} must be above 0, got 0"):
            OptimalTransport(**{field: 0.0})
    with pytest.raises(ValueError, match="iterations must be above 0, got 0"):
        OptimalTransport(iterations=0)
    with pytest.raises(ValueError, match=r"from 0 to 1, got 1\.5"):
        OptimalTransport(threshold=1.5)
    logits, features = scores()
    with pytest.raises(ValueError, match="expected 12 images x 2 classes"):
        OptimalTransport().label(features, logits, LabelSpace(("a", "b")))
