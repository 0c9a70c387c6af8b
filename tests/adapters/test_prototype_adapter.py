import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from nameonly.adapters.prototype_adapter import PrototypeAdapter, affinity, soft_targets
from nameonly.ops.prototypes import spread
from nameonly.pseudo_labels.top_k_per_class import TopKPerClass
from nameonly.types import Features, PseudoLabels, TextClassifier


def labels_of(features, text, space, **settings):
    return TopKPerClass(**settings).label(features, text.predict_logits(features), space)


def test_affinity_by_hand():
    values, prototypes = torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    got = affinity(values, prototypes, 5.5)
    torch.testing.assert_close(got, torch.tensor([[1.0, math.exp(-5.5)]]))


def test_frozen_prototypes_are_the_means_of_the_selected(toy):
    features, text, space, _ = toy
    labels = labels_of(features, text, space, images_per_class=5)
    adapter = PrototypeAdapter(epochs=0).fit(features, text, labels)
    want = torch.stack([features.values[labels.labels == j].mean(dim=0) for j in range(4)])
    torch.testing.assert_close(adapter.prototypes_, normalize(want, dim=1))


def test_residual_speaks_as_loud_as_the_text(toy):
    features, text, space, _ = toy
    labels = labels_of(features, text, space)
    for scale in (1.0, 15.0, 100.0):
        scaled = replace(text, logit_scale=scale)
        adapter = PrototypeAdapter(epochs=0, residual_weight=2.0).fit(features, scaled, labels)
        residual = adapter.predict_logits(features) - scaled.predict_logits(features)
        ratio = spread(residual) / spread(scaled.predict_logits(features))
        assert ratio.item() == pytest.approx(2.0, rel=1e-3)


def test_no_logit_scale_changes_the_frozen_answer(toy):
    features, text, space, _ = toy
    labels = labels_of(features, text, space)
    answers = [
        PrototypeAdapter(epochs=0)
        .fit(features, replace(text, logit_scale=s), labels)
        .predict_logits(features)
        .argmax(dim=1)
        for s in (1.0, 15.0, 100.0)
    ]
    assert torch.equal(answers[0], answers[1]) and torch.equal(answers[1], answers[2])


def test_learning_moves_the_prototypes_and_lowers_the_loss(toy):
    features, text, space, _ = toy
    labels = labels_of(features, text, space)
    targets = soft_targets(labels)
    rows = labels.selected

    def loss(adapter):
        logits = adapter.predict_logits(features)[rows]
        return torch.nn.functional.cross_entropy(logits, targets[rows]).item()

    frozen = PrototypeAdapter(epochs=0).fit(features, text, labels)
    learnt = PrototypeAdapter(epochs=20).fit(features, text, labels)
    assert not torch.allclose(frozen.prototypes_, learnt.prototypes_)
    assert loss(learnt) < loss(frozen)


def test_a_class_without_images_starts_at_its_text(toy):
    features, text, space, _ = toy
    labels = labels_of(features, text, space)
    candidates = labels.candidates.clone()
    candidates[:, 2] = False
    labels = PseudoLabels(labels.ids, labels.probs, candidates, labels.confidence)
    adapter = PrototypeAdapter(epochs=0).fit(features, text, labels)
    torch.testing.assert_close(adapter.prototypes_[2], text.weights[2])


def test_candidate_sets_share_an_image_by_probability():
    probs = torch.tensor([[0.6, 0.2, 0.2], [0.1, 0.8, 0.1]])
    candidates = torch.tensor([[True, True, False], [False, False, False]])
    labels = PseudoLabels(("a", "b"), probs, candidates, torch.ones(2))
    torch.testing.assert_close(soft_targets(labels), torch.tensor([[0.75, 0.25, 0.0], [0, 0, 0]]))


def test_one_class_gives_the_text_logits(toy):
    features, text, _, _ = toy
    one = TextClassifier(text.weights[:1], 20.0, ("ant",))
    labels = PseudoLabels(
        features.ids, torch.ones(60, 1), torch.ones(60, 1, dtype=torch.bool), torch.ones(60)
    )
    got = PrototypeAdapter().fit(features, one, labels).predict_logits(features)
    torch.testing.assert_close(got, one.predict_logits(features))


def test_labels_of_other_images_are_refused(toy):
    features, text, space, _ = toy
    labels = labels_of(features, text, space)
    other = Features(features.values, tuple(reversed(features.ids)), "toy")
    with pytest.raises(ValueError, match="different images"):
        PrototypeAdapter().fit(other, text, labels)
