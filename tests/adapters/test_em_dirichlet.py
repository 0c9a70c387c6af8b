from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import digamma, gammaln, logsumexp, polygamma
from torch.distributions import Dirichlet
from torch.nn.functional import normalize, one_hot

from nameonly.adapters.em_dirichlet import (
    EmDirichlet,
    dirichlet_log_density,
    fit_dirichlet,
    majorise_minimise,
)
from nameonly.backbones.precomputed import PrecomputedBackbone
from nameonly.classifier import Classifier, load
from nameonly.decisions.argmax import Argmax
from nameonly.ops.prototypes import spread
from nameonly.pseudo_labels.top_k_per_class import TopKPerClass
from nameonly.types import Features, LabelSpace, PseudoLabels, TextClassifier

ALPHA = torch.tensor([[0.3, 2.0, 5.0, 0.7], [20.0, 1.0, 3.0, 100.0]], dtype=torch.float64)


def labels_of(features, text, space, k=2):
    return TopKPerClass(k).label(features, text.predict_logits(features), space)


def mean_log(seed=0, n=400):
    torch.manual_seed(seed)
    return torch.stack([Dirichlet(row).sample((n,)).log().mean(dim=0) for row in ALPHA])


def likelihood(alpha, means):
    volume = torch.lgamma(alpha.sum(dim=1)) - torch.lgamma(alpha).sum(dim=1)
    return volume + ((alpha - 1) * means).sum(dim=1)


def test_density_is_that_of_torch():
    rows = Dirichlet(ALPHA[0]).sample((7,))
    want = torch.stack([Dirichlet(a).log_prob(rows) for a in ALPHA], dim=1)
    torch.testing.assert_close(dirichlet_log_density(rows.log(), ALPHA), want)


def test_no_step_lowers_the_likelihood_and_the_last_is_likeliest():
    means, alpha = mean_log(), torch.ones_like(ALPHA)
    before = likelihood(alpha, means)
    for _ in range(200):
        alpha = majorise_minimise(alpha, means)
        now = likelihood(alpha, means)
        assert (now >= before - 1e-12).all()
        before = now
    alpha = fit_dirichlet(alpha, means, 100_000)
    slope = torch.digamma(alpha) - torch.digamma(alpha.sum(dim=1, keepdim=True))
    torch.testing.assert_close(slope, means, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(alpha, ALPHA, atol=0, rtol=0.25)


def test_a_step_is_the_root_of_its_equation():
    alpha, means = ALPHA.clone(), mean_log()
    new = majorise_minimise(alpha, means).numpy()
    a, total = alpha.numpy(), alpha.sum(dim=1, keepdim=True).numpy()
    curvature = 2 * (gammaln(1) - gammaln(a + 1) + digamma(a + 1) * a) / a**2
    slope = digamma(a + 1) + curvature * (new - a) - 1 / new - digamma(total) - means.numpy()
    np.testing.assert_allclose(slope, 0, atol=1e-9)
    assert (new > 0).all()


def test_a_step_from_almost_zero_has_the_curvature_of_its_limit():
    """There the exact quotient is rounding over rounding; its limit is the trigamma of one."""
    alpha = torch.tensor([[1e-9, 0.3]], dtype=torch.float64)
    means = torch.tensor([[-4.0, -0.1]], dtype=torch.float64)
    slope = digamma(1.0) - digamma(0.3) + 4.0
    curvature = polygamma(1, 1.0)
    want = (np.sqrt(slope**2 + 4 * curvature) - slope) / (2 * curvature)
    assert majorise_minimise(alpha, means)[0, 0].item() == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("low", [-1e-3, -50.0, -1e4])
def test_extreme_probabilities_keep_the_parameters_positive_and_finite(low):
    means = torch.tensor([[low, low, -1e-9]], dtype=torch.float64)
    alpha = fit_dirichlet(torch.ones(1, 3, dtype=torch.float64), means, 500)
    assert torch.isfinite(alpha).all() and (alpha > 0).all()
    tiny = majorise_minimise(torch.full((1, 3), 1e-12, dtype=torch.float64), means)
    assert torch.isfinite(tiny).all() and (tiny > 0).all()


def likeliest(means):
    """The textbook estimate of one law, by a general optimiser."""

    def cost(log_alpha):
        a = np.exp(log_alpha)
        slope = digamma(a.sum()) - digamma(a) + means
        return -(gammaln(a.sum()) - gammaln(a).sum() + (a - 1) @ means), -slope * a

    found = minimize(cost, np.zeros(len(means)), jac=True, method="BFGS", options={"gtol": 1e-9})
    return np.exp(found.x)


def reference(logits, targets, selected, rounds, share_weight, hard):
    """Expectation-maximisation on dense arrays, with the textbook estimate."""
    log_z = logits - logsumexp(logits, axis=1, keepdims=True)
    shares = np.where(selected[:, None], targets, np.exp(log_z))
    for _ in range(rounds):
        alpha = np.stack([likeliest(u @ log_z / u.sum()) for u in shares.T])
        prior = np.log(shares.mean(axis=0))
        volume = gammaln(alpha.sum(axis=1)) - gammaln(alpha).sum(axis=1)
        scores = log_z @ (alpha - 1).T + volume + share_weight * prior
        made = np.eye(len(alpha))[scores.argmax(axis=1)]
        if not hard:
            made = np.exp(scores - logsumexp(scores, axis=1, keepdims=True))
        shares = np.where(selected[:, None], targets, made)
    return scores, alpha, np.exp(prior)


@pytest.mark.parametrize(("hard", "effective"), [(False, None), (False, 3), (True, None)])
def test_the_whole_fit_against_a_textbook_reference(toy, hard, effective):
    features, text, space, _ = toy
    labels = labels_of(features, text, space)
    adapter = EmDirichlet(
        sharpness=0.2, iterations=3, mm_steps=20_000, hard=hard, effective_classes=effective
    ).fit(features, text, labels)
    scores, alpha, shares = reference(
        0.2 * text.predict_logits(features).double().numpy(),
        labels.targets.double().numpy(),
        labels.selected.numpy(),
        rounds=3,
        share_weight=4 / 3 if effective else 1.0,
        hard=hard,
    )
    np.testing.assert_allclose(adapter.alpha_.numpy(), alpha, rtol=0.02)
    np.testing.assert_allclose(adapter.log_shares_.exp().numpy(), shares, atol=1e-3)
    scores = torch.from_numpy(scores)
    scores = scores - scores.mean(dim=1, keepdim=True)
    want = scores * spread(text.predict_logits(features)) / spread(scores)
    torch.testing.assert_close(
        adapter.predict_logits(features).double(), want, atol=0.05, rtol=0.01
    )


def few_classes_of_many():
    """90 images of 3 classes among 30 names, with text weights far off."""
    g = torch.Generator().manual_seed(5)
    means = normalize(torch.randn(30, 32, generator=g), dim=1)
    y = torch.arange(90) % 3
    values = normalize(means[y] + 0.2 * torch.randn(90, 32, generator=g), dim=1)
    weights = normalize(means + 0.3 * torch.randn(30, 32, generator=g), dim=1)
    names = tuple(f"class {j:02d}" for j in range(30))
    features = Features(values, tuple(f"{i:02d}" for i in range(90)), "toy")
    return features, TextClassifier(weights, 20.0, names), LabelSpace(names), y


def test_expecting_few_classes_empties_those_that_are_not_there():
    features, text, space, y = few_classes_of_many()
    zero_shot = text.predict_logits(features).argmax(dim=1)
    labels = labels_of(features, text, space, k=1)
    plain = EmDirichlet().fit(features, text, labels)
    few = EmDirichlet(effective_classes=3).fit(features, text, labels)
    said, got = (a.predict_logits(features).argmax(dim=1) for a in (plain, few))
    # the paper's claim in its own regime, and that the penalty is what makes it
    assert (got == y).float().mean() > (zero_shot == y).float().mean() + 0.15
    assert (got == y).float().mean() > (said == y).float().mean() + 0.15
    assert len(got.unique()) < len(said.unique())


def test_more_classes_expected_than_named_is_all_of_them(toy):
    features, text, space, _ = toy
    labels = labels_of(features, text, space)
    a = EmDirichlet().fit(features, text, labels).predict_logits(features)
    b = EmDirichlet(effective_classes=9).fit(features, text, labels).predict_logits(features)
    assert torch.equal(a, b)


def test_selected_images_keep_their_labels_in_every_round(toy):
    features, text, _, y = toy
    wrong = (y + 1) % 4
    truth = one_hot(wrong, 4).bool()
    probs = text.predict_logits(features).softmax(dim=1)
    labels = PseudoLabels(features.ids, probs, truth, torch.full((60,), 0.9))
    got = EmDirichlet().fit(features, text, labels).predict_logits(features).argmax(dim=1)
    assert (got == wrong).float().mean() > 0.9


def test_hard_shares_are_counts(toy):
    features, text, space, _ = toy
    labels = labels_of(features, text, space)
    hard, soft = (
        EmDirichlet(sharpness=0.1, hard=h).fit(features, text, labels).log_shares_.exp() * 60
        for h in (True, False)
    )
    torch.testing.assert_close(hard, hard.round())
    assert not torch.allclose(soft, soft.round(), atol=1e-6)
    assert hard.sum().item() == pytest.approx(60) and soft.sum().item() == pytest.approx(60)


def test_a_class_that_dies_out_stays_finite(toy):
    features, text, space, _ = toy
    only = features.subset(torch.arange(0, 60, 4))  # images of one class
    labels = labels_of(only, text, space, k=1)
    adapter = EmDirichlet(hard=True, effective_classes=1).fit(only, text, labels)
    assert adapter.log_shares_.min() == pytest.approx(np.log(1e-15))
    assert torch.isfinite(adapter.predict_logits(features)).all()
    assert (adapter.predict_logits(only).argmax(dim=1) == 0).all()


def test_logits_have_the_spread_of_the_texts_and_no_common_part(toy):
    features, text, space, _ = toy
    adapter = EmDirichlet().fit(features, text, labels_of(features, text, space))
    logits = adapter.predict_logits(features)
    want = spread(text.predict_logits(features)).item()
    assert spread(logits).item() == pytest.approx(want, rel=1e-4)
    torch.testing.assert_close(logits.mean(dim=1), torch.zeros(60), atol=1e-5, rtol=0)


def test_unseen_images_are_scored_by_the_same_function(toy):
    features, text, space, _ = toy
    adapter = EmDirichlet().fit(features, text, labels_of(features, text, space))
    rows = torch.arange(1300) % 60
    many = replace(features.subset(rows), ids=tuple(map(str, range(1300))))
    got = adapter.predict_logits(many)
    torch.testing.assert_close(got, adapter.predict_logits(features)[rows], atol=1e-5, rtol=1e-5)


def test_blocks_of_images_add_up(toy):
    features, text, space, _ = toy
    rows = torch.arange(1200) % 60
    many = Features(features.values[rows], tuple(f"{i:04d}" for i in range(1200)), "toy")
    labels = labels_of(features, text, space)
    spread_out = PseudoLabels(
        many.ids, labels.probs[rows], labels.candidates[rows], labels.confidence[rows]
    )
    a = EmDirichlet().fit(features, text, labels)
    b = EmDirichlet().fit(many, text, spread_out)
    torch.testing.assert_close(a.alpha_, b.alpha_, rtol=1e-6, atol=0)
    torch.testing.assert_close(a.log_shares_, b.log_shares_)


def test_one_class_has_no_competition(toy):
    features, text, _, _ = toy
    one = TextClassifier(text.weights[:1], 20.0, ("ant",))
    labels = labels_of(features, one, LabelSpace(("ant",)))
    got = EmDirichlet().fit(features, one, labels).predict_logits(features)
    assert torch.equal(got, torch.zeros(60, 1))


def test_saved_and_loaded_it_says_the_same(toy, feature_file, tmp_path):
    _, text, space, _ = toy
    backbone = PrecomputedBackbone(str(feature_file[0]))
    features = backbone.features
    adapter = EmDirichlet(hard=True).fit(features, text, labels_of(features, text, space))
    Classifier(backbone, adapter, Argmax(), space).save(tmp_path / "c")
    scorer = load(tmp_path / "c").scorer
    assert scorer == adapter
    assert torch.equal(scorer.predict_logits(features), adapter.predict_logits(features))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sharpness", 0.0),
        ("sharpness", float("nan")),
        ("effective_classes", 0),
        ("iterations", 0),
        ("mm_steps", 0),
    ],
)
def test_settings_that_make_no_sense_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        EmDirichlet(**{field: value})
