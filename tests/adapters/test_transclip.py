from dataclasses import fields, replace

import pytest
import torch
from torch.nn.functional import normalize, one_hot

from nameonly.adapters import transclip
from nameonly.adapters.transclip import TransClip, fit_gaussians, joint_scorer
from nameonly.backbones.precomputed import PrecomputedBackbone
from nameonly.classifier import Classifier, load
from nameonly.decisions.argmax import Argmax
from nameonly.pseudo_labels.top_k_per_class import TopKPerClass
from nameonly.types import Features, LabelSpace, PseudoLabels, TextClassifier

PERM = torch.randperm(60, generator=torch.Generator().manual_seed(1))


def labels_of(features, text, space, k=8, given=None):
    logits = text.predict_logits(features)
    return TopKPerClass(k, by="column").label(features, logits, space, given)


def textbook(features, text, labels, method):
    """All assignments at once, with the whole affinity matrix and every squared distance."""
    x, n, d = features.values.double(), *features.values.shape
    scores = text.logit_scale * x @ text.weights.double().T
    z = scores.softmax(dim=1)
    cosines = x @ x.T
    cosines.fill_diagonal_(-2)
    w = torch.zeros(n, n, dtype=torch.float64)
    for i in range(n):
        for j in cosines[i].argsort(descending=True)[: method.k].tolist():
            w[i, j] = max(cosines[i, j].item(), 0.0)
    fixed = (labels.confidence >= 1) & labels.selected
    truth = one_hot(labels.labels.clamp(min=0), len(text.weights)).double()
    z[fixed] = truth[fixed]
    mu = normalize(labels.targets.double().T @ x, dim=1)
    var = torch.full((d,), 1 / d, dtype=torch.float64)
    for step in range(method.steps + 1):
        likelihood = -0.5 * ((x[:, None] - mu) ** 2 / var).sum(dim=2)
        for _ in range(method.inner_steps):
            near = (w @ z + w.T @ z) / (2 * method.k)
            z = scores.softmax(dim=1) ** method.text_weight * torch.exp(
                (likelihood - likelihood.max(dim=1, keepdim=True).values) / method.temperature
                + near
            )
            z = z / z.sum(dim=1, keepdim=True)
            z[fixed] = truth[fixed]
        if step < method.steps:
            mu = normalize(z.T @ x, dim=1)
            var = (z[:, :, None] * (x[:, None] - mu) ** 2).sum(dim=(0, 1)) / n
    return z, mu, var


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 3.0, "text_weight": 0.5, "k": 5, "steps": 3},
        {"inner_steps": 1, "steps": 0, "text_weight": 0.1},
    ],
)
def test_it_is_the_textbook_algorithm(toy, settings):
    features, text, space, _ = toy
    labels, method = labels_of(features, text, space), TransClip(**settings)
    z, mu, var = textbook(features, text, labels, method)
    method.fit(features, text, labels)
    torch.testing.assert_close(method.logits_.exp().double(), z, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(method.means_.double(), mu, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(method.variances_.double(), var, atol=1e-6, rtol=1e-3)


def test_given_labels_are_kept_and_teach_as_in_the_textbook(toy):
    features, text, space, _ = toy
    given = torch.full((60,), -1)
    given[:12] = (torch.arange(12) + 1) % 4  # against what the text says
    labels, method = labels_of(features, text, space, given=given), TransClip(temperature=5.0)
    z, mu, _ = textbook(features, text, labels, method)
    method.fit(features, text, labels)
    assert torch.equal(method.logits_.argmax(dim=1)[:12], given[:12])
    torch.testing.assert_close(method.logits_.exp().double(), z, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(method.means_.double(), mu, atol=1e-5, rtol=1e-4)


def test_new_images_are_scored_by_text_and_gaussians(toy):
    features, text, space, _ = toy
    seen, unseen = features.subset(torch.arange(40)), features.subset(torch.arange(40, 60))
    method = TransClip(temperature=7.0, text_weight=0.5)
    method.fit(seen, text, labels_of(seen, text, space))
    distances = (unseen.values[:, None] - method.means_) ** 2 / method.variances_
    want = 0.5 * text.predict_logits(unseen) - distances.sum(dim=2) / 2 / 7.0
    got = method.predict_logits(unseen)
    torch.testing.assert_close(got.softmax(dim=1), want.softmax(dim=1), atol=1e-5, rtol=1e-4)


def test_without_steps_the_means_are_the_pseudo_labels_prototypes(toy):
    features, text, space, _ = toy
    labels = labels_of(features, text, space, k=3)
    labels = replace(labels, candidates=labels.candidates & (torch.arange(4) != 2))
    method = TransClip(steps=0).fit(features, text, labels)
    want = normalize(labels.targets.T @ features.values, dim=1)
    want[2] = text.weights[2]  # no image is of it
    torch.testing.assert_close(method.means_, want)
    torch.testing.assert_close(method.variances_, torch.full((16,), 1 / 16))


def test_fit_gaussians_by_hand():
    values = normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), dim=1)
    z = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    before = normalize(torch.tensor([[0.0, 1.0], [1.0, 0.0], [3.0, 4.0]]), dim=1)
    means, variances = fit_gaussians(values, z, [torch.tensor([2]), torch.tensor([0, 1])], before)
    first = normalize(values[0] + values[2], dim=0)
    torch.testing.assert_close(means, torch.stack([first, values[1], before[2]]))
    want = ((values[0] - first) ** 2 + (values[2] - first) ** 2) / 3
    torch.testing.assert_close(variances, want)
    alone = fit_gaussians(values[:1], z[:1], [torch.tensor([0])], before)[1]
    torch.testing.assert_close(alone, torch.full((2,), 5e-4))


def test_joint_scorer_leaves_out_only_what_all_classes_share():
    g = torch.Generator().manual_seed(0)
    x = normalize(torch.randn(9, 6, generator=g), dim=1)
    text = TextClassifier(normalize(torch.randn(3, 6, generator=g), dim=1), 30.0, tuple("abc"))
    means, variances = torch.randn(3, 6, generator=g), torch.rand(6, generator=g) + 0.1
    joint, bias = joint_scorer(text, means, variances, 0.7, 4.0)
    likelihood = -0.5 * ((x[:, None] - means) ** 2 / variances).sum(dim=2)
    want = 0.7 * 30.0 * x @ text.weights.T + likelihood / 4.0
    got = x @ joint.weights.T + bias
    difference = got - want
    torch.testing.assert_close(difference, difference[:, :1].expand(-1, 3), atol=1e-4, rtol=1e-4)


def test_neighbours_decide_where_text_and_gaussians_do_not():
    angles = torch.tensor([0.0, 0.02, 0.04, 0.06, 1.5, 1.52, 1.54, 1.56])
    values = torch.stack([angles.cos(), angles.sin()], dim=1)
    weights = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    features = Features(values, tuple("01234567"), "toy")
    text = TextClassifier(weights, 1e-3, ("a", "b"))
    given = torch.tensor([0, -1, -1, -1, 1, -1, -1, -1])
    labels = labels_of(features, text, LabelSpace(("a", "b")), k=1, given=given)
    far = TransClip(temperature=1e9, k=1).fit(features, text, labels).logits_
    assert far.argmax(dim=1).tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert (far.softmax(dim=1).max(dim=1).values > 0.51).all()


def test_small_blocks_agree_and_follow_content_not_rows(toy, monkeypatch):
    features, text, space, _ = toy
    labels = labels_of(features, text, space)
    method = TransClip(text_weight=0.05, temperature=300.0)  # neighbours have the say
    at_once = method.fit(features, text, labels).logits_.exp()
    monkeypatch.setattr(transclip, "BLOCK_BYTES", 4 * (4 + 16) * 7)
    blocked = method.fit(features, text, labels).logits_.exp()
    torch.testing.assert_close(blocked, at_once, atol=1e-3, rtol=0)
    shuffled = features.subset(PERM)
    brief = replace(method, steps=0, inner_steps=1)  # before any order has converged
    a = replace(brief).fit(features, text, labels).logits_.exp()
    b = replace(brief).fit(shuffled, text, labels_of(shuffled, text, space)).logits_.exp()
    torch.testing.assert_close(b, a[PERM], atol=1e-6, rtol=1e-6)


def test_scores_of_the_fitted_images_are_finite_and_not_saved(toy, feature_file, tmp_path):
    _, text, space, _ = toy
    backbone = PrecomputedBackbone(str(feature_file[0]))
    features = backbone.features
    sure = replace(text, logit_scale=1000.0)
    method = TransClip().fit(features, sure, labels_of(features, sure, space))
    assert torch.isfinite(method.logits_).all() and method.logits_.max() <= 0
    torch.testing.assert_close(method.logits_.exp().sum(dim=1), torch.ones(60))
    slots = {f.name: f.metadata.get("saved", True) for f in fields(method) if not f.init}
    assert slots == {"text_": True, "means_": True, "variances_": True, "logits_": False}
    Classifier(backbone, method, Argmax(), space).save(tmp_path)
    got = load(tmp_path).scorer
    assert isinstance(got, TransClip) and got == method
    assert torch.equal(got.predict_logits(features), method.predict_logits(features))


def test_hard_pseudo_labels_below_certainty_are_not_kept(toy):
    features, text, space, y = toy
    labels = labels_of(features, text, space, k=60)
    wrong = one_hot((y + 1) % 4, 4).bool()
    probs = wrong.float()
    unsure = PseudoLabels(labels.ids, probs, wrong, torch.full((60,), 0.999))
    certain = replace(unsure, confidence=torch.ones(60))
    kept = TransClip().fit(features, text, certain).logits_.argmax(dim=1)
    free = TransClip(temperature=1e6).fit(features, text, unsure).logits_.argmax(dim=1)
    assert torch.equal(kept, (y + 1) % 4) and not torch.equal(free, kept)


def test_settings_that_make_no_sense_are_refused():
    wrong = {"k": 0, "steps": -1, "inner_steps": 0, "text_weight": -0.1, "temperature": 0.0}
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=f"{name} must be"):
            TransClip(**{name: value})
