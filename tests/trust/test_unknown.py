import pytest
import torch
from torch.nn.functional import normalize

from nameonly.trust import unknown
from nameonly.types import Features, TextClassifier

NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def task():
    generator = torch.Generator().manual_seed(0)
    centres = normalize(torch.randn(5, 24, generator=generator), dim=1)
    kind = torch.cat([torch.arange(270) % 3, torch.full((30,), 3)])
    values = normalize(centres[kind] + 0.08 * torch.randn(300, 24, generator=generator), dim=1)
    features = Features(values, tuple(f"i{i}" for i in range(300)), "made")
    text = TextClassifier(centres[:3], 20.0, NAMES)
    others = TextClassifier(centres[3:], 20.0, ("d", "e"))
    return features, text, others, centres, kind == 3


def apart(scores, strangers):
    return scores[strangers].min() > scores[~strangers].median()


def test_every_score_is_higher_for_strangers(task):
    features, text, others, centres, strangers = task
    far = torch.cat([centres[:3], torch.full((1, 24), torch.inf)])
    for scores in (
        unknown.energy_score(features, text),
        unknown.concept_matching_score(features, text),
        unknown.prototype_score(features, far),
        unknown.distractor_score(features, text, others),
        unknown.combined_score(features, text, far),
    ):
        assert scores.shape == (300,) and torch.isfinite(scores).all()
        assert apart(scores, strangers)


def test_neighbours_find_those_that_have_none_like_them(task):
    features, *_ = task
    lonely = Features(
        torch.cat([features.values, -features.values[:1]]), (*features.ids, "x"), "made"
    )
    assert unknown.neighbour_score(lonely).argmax() == 300
    assert unknown.neighbour_score(lonely.subset(torch.tensor([0]))).tolist() == [0]


def test_those_that_stand_out_are_suspected(task):
    features, text, _, _, strangers = task
    found = unknown.suspected(unknown.energy_score(features, text))
    assert found[strangers].float().mean() > 0.9
    assert found[~strangers].float().mean() < 0.05
    assert not unknown.suspected(torch.ones(9)).any()
    assert unknown.suspected(torch.zeros(0)).shape == (0,)


def test_texts_of_two_backbones_are_refused(task):
    features, text, others, *_ = task
    other = TextClassifier(others.weights, 5.0, others.class_names)
    with pytest.raises(ValueError, match="one backbone"):
        unknown.distractor_score(features, text, other)


def test_blocks_of_rows_change_nothing(task, monkeypatch):
    features, text, others, centres, _ = task
    scored = {
        "energy": lambda: unknown.energy_score(features, text),
        "matching": lambda: unknown.concept_matching_score(features, text),
        "prototype": lambda: unknown.prototype_score(features, centres),
        "distractor": lambda: unknown.distractor_score(features, text, others),
    }
    logits = text.predict_logits(features)
    both = torch.cat([logits, others.predict_logits(features)], dim=1)
    want = {
        "energy": -logits.logsumexp(dim=1) / 20.0,
        "matching": 1 - (logits / 20.0 / 0.1).softmax(dim=1).amax(dim=1),
        "prototype": torch.cdist(features.values, centres).amin(dim=1),
        "distractor": both.softmax(dim=1)[:, 3:].sum(dim=1),
    }

    def blocks(n, c):
        return [slice(start, start + 7) for start in range(0, n, 7)]

    for where in ("nameonly.trust.unknown", "nameonly.ops.scoring"):
        monkeypatch.setattr(f"{where}.row_blocks", blocks)
    for name, score in scored.items():
        torch.testing.assert_close(score(), want[name], atol=1e-5, rtol=1e-5)
