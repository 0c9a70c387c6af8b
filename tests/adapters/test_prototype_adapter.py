import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from nameonly.adapters.prototype_adapter import PrototypeAdapter, affinity
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
    adapter = PrototypeAdapter(steps=0).fit(features, text, labels)
    want = torch.stack([features.values[labels.labels == j].mean(dim=0) for j in range(4)])
    torch.testing.assert_close(adapter.prototypes_, normalize(want, dim=1))


def test_the_join_by_hand(toy):
    features, text, space, _ = toy
    labels = labels_of(features, text, space)
    adapter = PrototypeAdapter(steps=0, residual_weight=2.0).fit(features, text, labels)
    closeness = affinity(features.values, adapter.prototypes_, 1.0)
    text_logits = text.predict_logits(features)
    scale = spread(text_logits) / spread(closeness)
    want = (text_logits + 2.0 * scale * closeness) / 3.0
    torch.testing.assert_close(adapter.predict_logits(features), want)


def test_both_branches_have_one_spread(toy):
    features, text, space, _ = toy
    labels = labels_of(features, text, space)
    for scale in (1.0, 15.0, 100.0):
        scaled = replace(text, logit_scale=scale)
        text_spread = spread(scaled.predict_logits(features))
        alone = PrototypeAdapter(steps=0, residual_weight=1e6).fit(features, scaled, labels)
        assert spread(alone.predict_logits(features)).item() == pytest.approx(
            text_spread.item(), rel=1e-3
        )


def test_no_logit_scale_changes_the_frozen_answer(toy):
    features, text, space, _ = toy
    labels = labels_of(features, text, space)
    answers = [
        PrototypeAdapter(steps=0)
        .fit(features, replace(text, logit_scale=s), labels)
        .predict_logits(features)
        .argmax(dim=1)
        for s in (1.0, 15.0, 100.0)
    ]
    assert torch.equal(answers[0], answers[1]) and torch.equal(answers[1], answers[2])


def test_learning_moves_the_prototypes_towards_their_own_images(toy):
    features, text, space, _ = toy
    labels = labels_of(features, text, space, images_per_class=2)

    def loss(adapter):
        closeness = affinity(features.values, adapter.prototypes_, 1.0)
        said = adapter.predict_logits(features).argmax(dim=1)
        return torch.nn.functional.cross_entropy(closeness / (0.5 * spread(closeness)), said).item()

    frozen = PrototypeAdapter(steps=0).fit(features, text, labels)
    learnt = PrototypeAdapter(steps=50).fit(features, text, labels)
    assert not torch.allclose(frozen.prototypes_, learnt.prototypes_)
    assert loss(learnt) < loss(frozen)


def test_images_that_were_not_selected_teach_too(toy):
    features, text, space, _ = toy
    labels = labels_of(features, text, space, images_per_class=2)
    few = labels.selected.nonzero().flatten()
    picked = features.subset(few)
    kept = PseudoLabels(
        picked.ids, labels.probs[few], labels.candidates[few], labels.confidence[few]
    )
    same_start = PrototypeAdapter(steps=0).fit(picked, text, kept).prototypes_
    a = PrototypeAdapter(steps=0).fit(features, text, labels).prototypes_
    torch.testing.assert_close(a, same_start)
    b = PrototypeAdapter().fit(features, text, labels).prototypes_
    c = PrototypeAdapter().fit(picked, text, kept).prototypes_
    assert not torch.allclose(b, c)


def test_given_labels_are_kept_while_learning(toy):
    features, text, space, y = toy
    wrong = (y + 1) % 4
    logits = text.predict_logits(features)
    labels = TopKPerClass(images_per_class=4).label(features, logits, space, wrong)
    said = PrototypeAdapter(residual_weight=1e3).fit(features, text, labels)
    assert torch.equal(said.predict_logits(features).argmax(dim=1), wrong)


def test_many_small_batches_take_about_the_same_steps(toy):
    features, text, space, _ = toy
    labels = labels_of(features, text, space)
    whole = PrototypeAdapter(steps=60).fit(features, text, labels).prototypes_
    small = PrototypeAdapter(steps=60, batch_size=7).fit(features, text, labels).prototypes_
    assert (whole * small).sum(dim=1).min() > 0.99


def test_a_class_without_images_starts_at_its_text(toy):
    features, text, space, _ = toy
    labels = labels_of(features, text, space)
    candidates = labels.candidates.clone()
    candidates[:, 2] = False
    labels = PseudoLabels(labels.ids, labels.probs, candidates, labels.confidence)
    adapter = PrototypeAdapter(steps=0).fit(features, text, labels)
    torch.testing.assert_close(adapter.prototypes_[2], text.weights[2])


def test_candidate_sets_share_an_image_by_probability():
    probs = torch.tensor([[0.6, 0.2, 0.2], [0.1, 0.8, 0.1]])
    candidates = torch.tensor([[True, True, False], [False, False, False]])
    labels = PseudoLabels(("a", "b"), probs, candidates, torch.ones(2))
    torch.testing.assert_close(labels.targets, torch.tensor([[0.75, 0.25, 0.0], [0, 0, 0]]))


def test_one_class_has_no_competition(toy):
    features, text, _, _ = toy
    one = TextClassifier(text.weights[:1], 20.0, ("ant",))
    labels = PseudoLabels(
        features.ids, torch.ones(60, 1), torch.ones(60, 1, dtype=torch.bool), torch.ones(60)
    )
    got = PrototypeAdapter().fit(features, one, labels).predict_logits(features)
    assert torch.isfinite(got).all() and torch.equal(got.argmax(dim=1), torch.zeros(60).long())


def test_prototypes_that_are_all_one_say_nothing(toy):
    features, text, _, _ = toy
    labels = PseudoLabels(
        features.ids,
        torch.full((60, 4), 0.25),
        torch.ones(60, 4, dtype=torch.bool),
        torch.full((60,), 0.25),
    )
    got = PrototypeAdapter(steps=0).fit(features, text, labels).predict_logits(features)
    assert torch.equal(got.argmax(dim=1), text.predict_logits(features).argmax(dim=1))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("residual_weight", -1.0),
        ("residual_weight", float("nan")),
        ("batch_size", 0),
        ("steps", -1),
        ("temperature", 0.0),
        ("sharpness", float("inf")),
    ],
)
def test_settings_that_make_no_sense_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        PrototypeAdapter(**{field: value})


def test_names_and_order_of_the_images_change_nothing(toy):
    features, text, space, _ = toy
    perm = torch.randperm(60, generator=torch.Generator().manual_seed(3))
    renamed = Features(features.values[perm], tuple(f"z{i}" for i in range(60)), "toy")
    a = PrototypeAdapter(batch_size=8).fit(features, text, labels_of(features, text, space))
    b = PrototypeAdapter(batch_size=8).fit(renamed, text, labels_of(renamed, text, space))
    assert torch.equal(a.prototypes_, b.prototypes_)
