import math

import pytest
import torch

from nameonly.adapters.tip_x import TipX, mean_log_signatures, signature_votes
from nameonly.types import PseudoLabels


def support(toy):
    features, text, _, y = toy
    candidates = torch.eye(4, dtype=torch.bool)[y]
    return (
        features,
        text,
        PseudoLabels(features.ids, candidates.float(), candidates, torch.ones(60)),
    )


def test_the_mean_divergence_in_closed_form_is_that_of_all_pairs(toy):
    features, text, labels = support(toy)
    shares = labels.targets / labels.targets.sum(dim=0)
    t = 0.5
    s = (features.values @ text.weights.T / t).softmax(dim=1)
    kl = (s[:, None] * (s[:, None].log() - s[None].log())).sum(dim=2)
    want = -kl @ shares
    means = mean_log_signatures(features.values, shares, text.weights, t)
    got = signature_votes(features.values, means, text.weights, t)
    centre = [votes - votes.mean(dim=1, keepdim=True) for votes in (got, want)]
    torch.testing.assert_close(*centre, atol=1e-5, rtol=1e-4)


def test_a_class_without_an_image_is_its_text(toy):
    features, text, labels = support(toy)
    shares = labels.targets / labels.targets.sum(dim=0)
    shares[:, 2] = 0
    means = mean_log_signatures(features.values, shares, text.weights, 0.5)
    own = (text.weights[2] @ text.weights.T / 0.5).log_softmax(dim=0)
    torch.testing.assert_close(means[2], own)
    best = signature_votes(features.values, means, text.weights, 0.5).argmax(dim=1)
    assert (best == 2).float().mean() < 0.6, "it is not the best of all by having no image"


def spread(values):
    return (values - values.mean(dim=1, keepdim=True)).square().mean().sqrt()


def test_both_branches_have_the_spread_of_the_text(toy):
    features, text, labels = support(toy)
    made = TipX().fit(features, text, labels)
    logits = text.predict_logits(features)
    near = made._by_cosine(features.values, made.cache_values_)
    alike = made._by_signature(features.values)
    torch.testing.assert_close(spread(made.cosine_scale_ * near), spread(logits))
    torch.testing.assert_close(spread(made.signature_scale_ * alike), spread(logits))


def test_weights_by_hand(toy):
    features, text, labels = support(toy)
    made = TipX(alpha=3.0, gamma=0.5).fit(features, text, labels)
    a = made.cosine_scale_ * made._by_cosine(features.values, made.cache_values_)
    b = made.signature_scale_ * made._by_signature(features.values)
    want = (text.predict_logits(features) + 3 * (a + 0.5 * b) / 1.5) / 4
    torch.testing.assert_close(made.predict_logits(features), want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("without", [{"gamma": 0.0}, {"temperature": 2.0}, {"beta": 1.0}])
def test_without_any_of_its_parts_the_result_is_another(toy, without):
    features, text, labels = support(toy)
    one, other = (
        TipX(**fields).fit(features, text, labels).predict_logits(features)
        for fields in ({}, without)
    )
    assert not torch.allclose(one, other, atol=1e-3)


def test_without_weight_the_text_alone_speaks(toy):
    features, text, labels = support(toy)
    got = TipX(alpha=0.0).fit(features, text, labels).predict_logits(features)
    torch.testing.assert_close(got, text.predict_logits(features))


@pytest.mark.parametrize("name", ["alpha", "gamma", "beta", "temperature"])
def test_wrong_settings_are_refused(name):
    for value in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"{name} must be"):
            TipX(**{name: value})
