from dataclasses import replace

import pytest
import torch
from torch.distributions import MultivariateNormal
from torch.nn.functional import normalize, one_hot

from nameonly.adapters.gaussian import GaussianDiscriminant, with_text_means
from nameonly.backbones.precomputed import PrecomputedBackbone
from nameonly.classifier import Classifier, load
from nameonly.decisions.argmax import Argmax
from nameonly.ops.gaussians import ClassGaussians
from nameonly.ops.prototypes import class_prototypes, spread
from nameonly.pseudo_labels.top_k_per_class import TopKPerClass
from nameonly.types import Features, PseudoLabels, TextClassifier


def labels_of(features, text, space, k=8):
    return TopKPerClass(k).label(features, text.predict_logits(features), space)


def hard(features, y, c):
    truth = one_hot(y.clamp(min=0), c).bool() & (y >= 0)[:, None]
    confidence = torch.full((len(y),), 0.9)
    return PseudoLabels(features.ids, torch.full((len(y), c), 1 / c), truth, confidence)


def test_logits_by_hand(toy):
    features, text, space, _ = toy
    labels = labels_of(features, text, space)
    adapter = GaussianDiscriminant(residual_weight=3.0).fit(features, text, labels)
    x, w = features.values.double(), labels.targets.double()
    n = w.sum()
    means = w.T @ x / w.sum(dim=0)[:, None]
    rows = w.sum(dim=1) > 0
    scatter = (x - w @ means)[rows].T @ (x - w @ means)[rows]
    cov = (scatter + scatter.trace() / (n - 1) * torch.eye(16, dtype=torch.float64)) / (n + 15)
    scores = torch.stack([MultivariateNormal(m, cov).log_prob(x) for m in means], dim=1)
    text_logits = text.predict_logits(features)
    scores = (scores - scores.mean(dim=1, keepdim=True)) * spread(text_logits) / spread(scores)
    want = (text_logits + 3.0 * scores.float()) / 4.0
    torch.testing.assert_close(adapter.predict_logits(features), want, atol=1e-4, rtol=1e-4)


def test_it_is_the_papers_linear_discriminant(toy):
    features, text, space, _ = toy
    labels = labels_of(features, text, space)
    adapter = GaussianDiscriminant().fit(features, text, labels)
    x = features.values[labels.selected].double()
    y = labels.labels[labels.selected]
    means = torch.stack([x[y == j].mean(dim=0) for j in range(4)])
    cov = (x - means[y]).T @ (x - means[y]) / (len(x) - 1)
    eye = torch.eye(16, dtype=torch.float64)
    precision = 16 * torch.linalg.pinv((len(x) - 1) * cov + cov.trace() * eye)
    bias = -torch.einsum("cd,de,ce->c", means, precision, means) / 2
    paper = features.values.double() @ precision @ means.T + bias
    got = adapter.gaussians.log_likelihood(features.values)
    ratio = (len(x) - 1 + 16) / 16
    torch.testing.assert_close(got - got[:, :1], ratio * (paper - paper[:, :1]))


def test_the_covariance_sees_what_the_nearest_prototype_does_not():
    g = torch.Generator().manual_seed(0)
    y = torch.arange(400) % 2
    # classes differ a little along the second axis, images a lot along the first
    noise = torch.randn(400, 3, generator=g) * torch.tensor([1.0, 0.05, 0.05])
    centres = torch.tensor([[0.02, 0.1, 1.0], [-0.02, -0.1, 1.0]])
    values = normalize(centres[y] + noise, dim=1)
    features = Features(values, tuple(f"{i:03d}" for i in range(400)), "toy")
    text = TextClassifier(normalize(centres, dim=1), 20.0, ("x", "y"))
    labels = hard(features, y, 2)
    prototypes = class_prototypes(values, labels.targets, text.weights)
    nearest = ((values @ prototypes.T).argmax(dim=1) == y).float().mean()
    adapter = GaussianDiscriminant(residual_weight=100.0).fit(features, text, labels)
    adapted = (adapter.predict_logits(features).argmax(dim=1) == y).float().mean()
    assert nearest < 0.9 and adapted > nearest + 0.08


def test_a_class_without_images_stands_at_its_text_among_the_images(toy):
    features, text, _, y = toy
    gap = replace(features, values=normalize(features.values + 2.0, dim=1))
    adapter = GaussianDiscriminant().fit(gap, text, hard(gap, torch.where(y == 2, -1, y), 4))
    fit = [0, 1, 3]
    shift = (adapter.means_[fit] - text.weights[fit]).mean(dim=0)
    torch.testing.assert_close(adapter.means_[2], text.weights[2] + shift)
    torch.testing.assert_close(adapter.means_[0], gap.values[y == 0].double().mean(dim=0))
    assert adapter.shares_[2] == 0


def test_the_shift_weighs_classes_by_their_images():
    means = torch.tensor([[4.0, 0.0], [0.0, 8.0], [9.0, 9.0]], dtype=torch.float64)
    shares = torch.tensor([0.75, 0.25, 0.0], dtype=torch.float64)
    fitted = ClassGaussians(means, torch.eye(2, dtype=torch.float64), shares)
    got = with_text_means(fitted, torch.zeros(3, 2))
    want = torch.tensor([[4.0, 0.0], [0.0, 8.0], [3.0, 2.0]], dtype=torch.float64)
    torch.testing.assert_close(got, want)


def test_soft_labels_weigh(toy):
    features, text, _, y = toy
    labels = hard(features, y, 4)
    candidates, probs = labels.candidates.clone(), labels.probs.clone()
    candidates[0] = torch.tensor([True, True, False, False])
    probs[0] = torch.tensor([0.6, 0.2, 0.1, 0.1])
    labels = replace(labels, candidates=candidates, probs=probs)
    adapter = GaussianDiscriminant().fit(features, text, labels)
    x = features.values.double()
    zeros = x[y == 0]
    want = (zeros[1:].sum(dim=0) + 0.75 * x[0]) / (14 + 0.75)
    torch.testing.assert_close(adapter.means_[0], want, atol=1e-7, rtol=1e-6)


def test_no_logit_scale_changes_the_answer(toy):
    features, text, space, _ = toy
    labels = labels_of(features, text, space)
    answers = [
        GaussianDiscriminant().fit(features, replace(text, logit_scale=s), labels)
        for s in (1.0, 15.0, 100.0)
    ]
    logits = [a.predict_logits(features) / a.text_.logit_scale for a in answers]
    torch.testing.assert_close(logits[0], logits[1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(logits[0], logits[2], atol=1e-5, rtol=1e-4)


def test_images_of_one_point_leave_the_prototypes(toy):
    features, text, _, y = toy
    y = torch.where(torch.arange(60) < 4, y, -1)  # one image a class: no scatter
    adapter = GaussianDiscriminant(residual_weight=1e6).fit(features, text, hard(features, y, 4))
    nearest = (features.values @ features.values[:4].T).argmax(dim=1)
    assert torch.equal(adapter.predict_logits(features).argmax(dim=1), nearest)


def test_many_images_are_scored_as_few(toy):
    features, text, space, _ = toy
    adapter = GaussianDiscriminant().fit(features, text, labels_of(features, text, space))
    rows = torch.arange(1300) % 60
    many = replace(features.subset(rows), ids=tuple(map(str, range(1300))))
    got = adapter.predict_logits(many)
    torch.testing.assert_close(got, adapter.predict_logits(features)[rows], atol=1e-5, rtol=1e-5)


def test_saved_and_loaded_it_says_the_same(toy, feature_file, tmp_path):
    _, text, space, _ = toy
    backbone = PrecomputedBackbone(str(feature_file[0]))
    features = backbone.features
    adapter = GaussianDiscriminant().fit(features, text, labels_of(features, text, space))
    Classifier(backbone, adapter, Argmax(), space).save(tmp_path / "c")
    scorer = load(tmp_path / "c").scorer
    assert torch.equal(scorer.predict_logits(features), adapter.predict_logits(features))
    draw = [
        a.gaussians.sample(torch.tensor([3, 1]), torch.Generator().manual_seed(0))
        for a in (adapter, scorer)
    ]
    assert torch.equal(*draw)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_weights_that_make_no_sense_are_refused(value):
    with pytest.raises(ValueError, match="residual_weight"):
        GaussianDiscriminant(residual_weight=value)
