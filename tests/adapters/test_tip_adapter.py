import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot

from nameonly.adapters.tip_adapter import TipAdapter
from nameonly.backbones.precomputed import PrecomputedBackbone
from nameonly.classifier import Classifier, load
from nameonly.decisions.argmax import Argmax
from nameonly.ops.prototypes import spread
from nameonly.ops.votes import cache_votes
from nameonly.pseudo_labels.top_k_per_class import TopKPerClass
from nameonly.types import Features, PseudoLabels, TextClassifier


def labels_of(features, text, space, k=8):
    return TopKPerClass(k).label(features, text.predict_logits(features), space)


def hard(features, y, c=4):
    truth = one_hot(y.clamp(min=0), c).bool() & (y >= 0)[:, None]
    return PseudoLabels(
        features.ids, torch.full((len(y), c), 1 / c), truth, torch.full((len(y),), 0.9)
    )


def test_votes_by_hand():
    values = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    keys = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    labels = torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5]])
    near, far = math.exp(-5.5 * 0.4), math.exp(-5.5 * 0.2)
    want = torch.tensor([[math.exp(-5.5) / 2, 1.0, math.exp(-5.5) / 2], [far / 2, near, far / 2]])
    torch.testing.assert_close(cache_votes(values, keys, labels, 5.5), want)
    torch.testing.assert_close(cache_votes(values, keys, labels.to_sparse(), 5.5), want)


def test_logits_by_hand(toy):
    features, text, space, _ = toy
    labels = labels_of(features, text, space)
    adapter = TipAdapter(alpha=3.0, beta=2.0).fit(features, text, labels)
    votes = torch.zeros(60, 4)
    for i in range(60):
        for j in range(4):
            mine = [r for r in range(60) if labels.labels[r] == j]
            near = [math.exp(-2.0 * (1 - features.values[i] @ features.values[r])) for r in mine]
            votes[i, j] = sum(near) / len(mine)
    text_logits = text.predict_logits(features)
    want = (text_logits + 3.0 * spread(text_logits) / spread(votes) * votes) / 4.0
    torch.testing.assert_close(adapter.predict_logits(features), want, atol=1e-4, rtol=1e-4)


def test_with_equal_shots_it_is_the_papers_sum(toy):
    features, text, _, y = toy
    labels = hard(features, torch.where(torch.arange(60) < 20, y, -1))  # five of each class
    adapter = TipAdapter(alpha=2.0).fit(features, text, labels)
    keys, values = features.values[:20], one_hot(y[:20], 4).float()
    affinity = (-(5.5 - 5.5 * features.values @ keys.T)).exp()
    alpha = 2.0 * adapter.residual_scale_ / 5
    paper = text.predict_logits(features) + alpha * affinity @ values
    torch.testing.assert_close(adapter.predict_logits(features) * 3.0, paper, atol=1e-4, rtol=1e-4)


def test_a_class_with_more_images_is_not_louder():
    keys = torch.eye(3)[[0, 0, 0, 0, 1]]
    features = Features(keys, tuple("abcde"), "toy")
    text = TextClassifier(torch.tensor([[0.0, 0.0, 1.0]] * 2), 1.0, ("x", "y"))
    adapter = TipAdapter().fit(features, text, hard(features, torch.tensor([0, 0, 0, 0, 1]), 2))
    between = Features(torch.tensor([[0.5**0.5, 0.5**0.5, 0.0]]), ("q",), "toy")
    logits = adapter.predict_logits(between)
    torch.testing.assert_close(logits[0, 0], logits[0, 1])


def test_the_cache_holds_the_selected_images_and_their_soft_labels(toy):
    features, text, space, _ = toy
    labels = labels_of(features, text, space, k=2)
    candidates = labels.candidates.clone()
    row = int(labels.selected.nonzero()[0])
    candidates[row] = torch.tensor([True, True, False, False])
    labels = replace(labels, candidates=candidates)
    adapter = TipAdapter().fit(features, text, labels)
    assert len(adapter.cache_keys_) == labels.selected.sum()
    at = (adapter.cache_keys_ == features.values[row]).all(dim=1).nonzero().item()
    targets = labels.targets
    torch.testing.assert_close(adapter.cache_values_[at], targets[row] / targets.sum(dim=0))
    assert (adapter.cache_values_[at] > 0).sum() == 2


def test_a_class_without_images_gets_no_votes(toy):
    features, text, _, y = toy
    adapter = TipAdapter().fit(features, text, hard(features, torch.where(y == 2, -1, y)))
    assert (adapter.cache_values_[:, 2] == 0).all()
    torch.testing.assert_close(adapter.cache_values_.sum(dim=0)[[0, 1, 3]], torch.ones(3))
    assert torch.isfinite(adapter.predict_logits(features)).all()


def test_no_logit_scale_changes_the_answer(toy):
    features, text, space, _ = toy
    labels = labels_of(features, text, space)
    answers = [
        TipAdapter().fit(features, replace(text, logit_scale=s), labels).predict_logits(features)
        / s
        for s in (1.0, 15.0, 100.0)
    ]
    torch.testing.assert_close(answers[0], answers[1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(answers[0], answers[2], atol=1e-5, rtol=1e-4)


def test_fine_tuning_moves_the_keys_to_their_labels(toy):
    features, text, _, y = toy
    wrong = torch.where(torch.arange(60) < 24, (y + 1) % 4, -1)
    labels = hard(features, wrong)

    def loss(adapter):
        return cross_entropy(adapter.predict_logits(features)[:24], wrong[:24]).item()

    frozen = TipAdapter().fit(features, text, labels)
    tuned = TipAdapter(epochs=20).fit(features, text, labels)
    assert loss(tuned) < loss(frozen)
    assert torch.equal(tuned.cache_values_, frozen.cache_values_)
    assert not torch.allclose(tuned.cache_keys_, frozen.cache_keys_)
    # the frozen keys are the images themselves
    assert set(map(tuple, frozen.cache_keys_.tolist())) == set(
        map(tuple, features.values[:24].tolist())
    )


def test_fine_tuning_against_the_papers_loop(toy):
    """AdamW with the paper's epsilon and decay, all images in a step."""
    features, text, _, y = toy
    labels = hard(features, torch.where(torch.arange(60) < 24, y, -1))
    candidates = labels.candidates.clone()
    candidates[:3, 3] = True
    labels = replace(labels, candidates=candidates)
    order = features.content_order()
    rows = order[labels.selected[order]]
    keys, targets = features.values[rows], labels.targets[rows]
    cached, text_logits = targets / targets.sum(dim=0), 20.0 * keys @ text.weights.T
    tuned = TipAdapter(epochs=3, learning_rate=0.01).fit(features, text, labels)

    learnt = keys.clone().requires_grad_()
    optimiser = torch.optim.AdamW([learnt], lr=0.01, eps=1e-4, weight_decay=0.01)
    for epoch in range(3):
        optimiser.param_groups[0]["lr"] = 0.01 * (1 + math.cos(math.pi * epoch / 3)) / 2
        optimiser.zero_grad()
        votes = (-5.5 * (1 - keys @ learnt.T)).exp() @ cached
        logits = (text_logits + 4.0 * tuned.residual_scale_ * votes) / 5.0
        cross_entropy(logits, targets).backward()
        optimiser.step()
    torch.testing.assert_close(tuned.cache_keys_, learnt.detach(), atol=2e-6, rtol=0)


def test_the_seed_orders_the_batches(toy):
    features, text, space, _ = toy
    labels = labels_of(features, text, space)
    a, b, again = (
        TipAdapter(epochs=1, batch_size=8, seed=s).fit(features, text, labels).cache_keys_
        for s in (0, 1, 0)
    )
    assert torch.equal(a, again) and not torch.equal(a, b)


def test_fine_tuning_learns_soft_labels_softly(toy):
    features, text, _, _ = toy
    labels = hard(features, torch.where(torch.arange(60) < 24, 0, -1))
    candidates = labels.candidates.clone()
    candidates[:24, 3] = True
    tuned = TipAdapter(epochs=200, learning_rate=0.05, alpha=50.0)
    tuned.fit(features, text, replace(labels, candidates=candidates))
    probs = tuned.predict_logits(features).softmax(dim=1)[:24].mean(dim=0)
    torch.testing.assert_close(probs[[0, 3]], torch.tensor([0.5, 0.5]), atol=0.1, rtol=0)


def test_names_and_order_of_the_images_change_nothing(toy):
    features, text, space, _ = toy
    perm = torch.randperm(60, generator=torch.Generator().manual_seed(3))
    renamed = Features(features.values[perm], tuple(f"z{i}" for i in range(60)), "toy")
    a, b = (
        TipAdapter(epochs=3, batch_size=8).fit(f, text, labels_of(f, text, space))
        for f in (features, renamed)
    )
    torch.testing.assert_close(a.cache_keys_, b.cache_keys_, atol=1e-7, rtol=0)
    assert torch.equal(a.cache_values_, b.cache_values_)


def test_many_images_are_scored_as_few(toy):
    features, text, space, _ = toy
    adapter = TipAdapter().fit(features, text, labels_of(features, text, space))
    rows = torch.arange(1300) % 60
    many = replace(features.subset(rows), ids=tuple(map(str, range(1300))))
    got = adapter.predict_logits(many)
    torch.testing.assert_close(got, adapter.predict_logits(features)[rows], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("epochs", [0, 2])
def test_saved_and_loaded_it_says_the_same(toy, feature_file, tmp_path, epochs):
    _, text, space, _ = toy
    backbone = PrecomputedBackbone(str(feature_file[0]))
    features = backbone.features
    adapter = TipAdapter(epochs=epochs).fit(features, text, labels_of(features, text, space))
    Classifier(backbone, adapter, Argmax(), space).save(tmp_path / "c")
    scorer = load(tmp_path / "c").scorer
    assert torch.equal(scorer.cache_keys_, adapter.cache_keys_) and scorer == adapter
    assert torch.equal(scorer.predict_logits(features), adapter.predict_logits(features))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("alpha", -1.0),
        ("alpha", float("nan")),
        ("beta", 0.0),
        ("beta", float("inf")),
        ("epochs", -1),
        ("batch_size", 0),
        ("learning_rate", -0.1),
    ],
)
def test_settings_that_make_no_sense_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        TipAdapter(**{field: value})
