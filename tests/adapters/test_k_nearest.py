import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from nameonly.adapters.k_nearest import KNearest, vote_shares
from nameonly.backbones.precomputed import PrecomputedBackbone
from nameonly.classifier import Classifier, load
from nameonly.decisions.argmax import Argmax
from nameonly.ops.neighbours import nearest_neighbours
from nameonly.pseudo_labels.top_k_per_class import TopKPerClass
from nameonly.types import Features, PseudoLabels, TextClassifier


def square():
    """Four images on two axes, two texts that say nothing."""
    values = normalize(torch.tensor([[1.0, 0.0], [1.0, 0.2], [0.0, 1.0], [0.2, 1.0]]), dim=1)
    text = TextClassifier(normalize(torch.ones(2, 2), dim=1), 10.0, ("a", "b"))
    return Features(values, tuple("0123"), "toy"), text


def labels_for(features, candidates, confidence=None, probs=None):
    candidates = torch.tensor(candidates, dtype=torch.bool)
    probs = torch.full(candidates.shape, 0.5) if probs is None else torch.tensor(probs)
    confidence = torch.ones(len(features)) if confidence is None else torch.tensor(confidence)
    return PseudoLabels(features.ids, probs, candidates, confidence)


def test_vote_shares_by_hand():
    keys = torch.tensor([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]])
    values = torch.tensor([[1.0, 0.0], [0.0, 0.5], [0.0, 1.0]])
    queries = torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    # a cosine of 1 for a, 0.6 with half a vote for b; the third is opposite and has no vote
    want = torch.tensor([[1.0 / 1.3, 0.3 / 1.3], [0.0, 0.0]])
    torch.testing.assert_close(vote_shares(*nearest_neighbours(queries, keys, 3), values), want)
    nearest = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(vote_shares(*nearest_neighbours(queries, keys, 1), values), nearest)


def test_votes_and_text_are_mixed_by_hand():
    features, text = square()
    text = replace(text, weights=torch.eye(2))
    labels = labels_for(features, [[0, 1], [0, 1], [1, 0], [1, 0]])
    adapter = KNearest(k=2, text_weight=0.25).fit(features, text, labels)
    text_probs = text.predict_logits(features).softmax(dim=1)
    votes = torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    want = (0.75 * votes + 0.25 * text_probs).log()
    torch.testing.assert_close(adapter.predict_logits(features), want)
    torch.testing.assert_close(want.exp().sum(dim=1), torch.ones(4))


def test_where_votes_are_even_the_text_decides():
    features, text = square()
    text = replace(text, weights=normalize(torch.tensor([[0.5, 1.0], [1.0, 1.0]]), dim=1))
    labels = labels_for(features, [[1, 0], [0, 1], [0, 1], [1, 0]])
    adapter = KNearest(k=4).fit(features, text, labels)
    middle = Features(normalize(torch.ones(1, 2), dim=1), ("m",), "toy")
    found = nearest_neighbours(middle.values, adapter.keys_, 4)
    votes = vote_shares(*found, adapter.values_)
    torch.testing.assert_close(votes, torch.tensor([[0.5, 0.5]]))
    assert adapter.predict_logits(middle).argmax(dim=1).item() == 1


def test_only_selected_images_vote_and_by_their_confidence():
    features, text = square()
    labels = labels_for(features, [[0, 0], [1, 0], [0, 1], [0, 0]], [1.0, 0.2, 0.9, 1.0])
    adapter = KNearest(k=4).fit(features, text, labels)
    assert len(adapter.keys_) == 2
    middle = Features(normalize(torch.tensor([[1.0, 0.9]]), dim=1), ("m",), "toy")
    similarities = middle.values @ features.values.T
    votes = torch.stack([0.2 * similarities[0, 1], 0.9 * similarities[0, 2]])
    want = (0.95 * votes / votes.sum() + 0.05 * 0.5).log()
    torch.testing.assert_close(adapter.predict_logits(middle)[0], want)


def test_soft_labels_share_a_vote():
    features, text = square()
    probs = [[0.6, 0.2], [0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]
    labels = labels_for(features, [[1, 1], [0, 0], [0, 0], [0, 0]], probs=probs)
    adapter = KNearest(k=1, text_weight=1e-6).fit(features, text, labels)
    torch.testing.assert_close(
        adapter.predict_logits(features)[0].exp(), torch.tensor([0.75, 0.25]), atol=1e-5, rtol=0
    )


def test_classes_without_images_stay_possible(toy):
    features, text, space, _ = toy
    logits = text.predict_logits(features)
    labels = TopKPerClass(5).label(features, logits, space)
    candidates = labels.candidates.clone()
    candidates[:, 3] = False
    adapter = KNearest(text_weight=0.1).fit(features, text, replace(labels, candidates=candidates))
    got = adapter.predict_logits(features)
    want = logits.log_softmax(dim=1)[:, 3] + math.log(0.1)
    torch.testing.assert_close(got[:, 3], want)


def test_it_is_saved_and_loaded(toy, feature_file, tmp_path):
    _, text, space, _ = toy
    backbone = PrecomputedBackbone(str(feature_file[0]))
    features = backbone.features
    labels = TopKPerClass(5).label(features, text.predict_logits(features), space)
    adapter = KNearest(k=3, text_weight=0.2).fit(features, text, labels)
    Classifier(backbone, adapter, Argmax(), space).save(tmp_path)
    got = load(tmp_path).scorer
    assert isinstance(got, KNearest) and got == adapter
    assert torch.equal(got.keys_, adapter.keys_) and torch.equal(got.values_, adapter.values_)
    assert torch.equal(got.predict_logits(features), adapter.predict_logits(features))


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        KNearest(k=0)
    for weight in (0.0, 1.0):
        with pytest.raises(ValueError, match="text_weight must be between 0 and 1"):
            KNearest(text_weight=weight)
