import pytest
import torch
from torch.nn.functional import normalize

from nameonly.adapters.synthetic_prototypes import SyntheticPrototypes, nearest_the_mean
from nameonly.types import Features, PseudoLabels, TextClassifier

TEXT = TextClassifier(torch.eye(3), 10.0, ("ant", "bee", "cat"))
VALUES = normalize(
    torch.tensor([[1.0, 0.1, 0.0], [1.0, 0.2, 0.0], [0.1, 0.0, 1.0], [0.0, 1.0, 0.0]]), dim=1
)


def support(values=VALUES, labels=(0, 0, 0, 1)):
    candidates = torch.eye(3, dtype=torch.bool)[list(labels)]
    ids = tuple(f"{i:02d}" for i in range(len(values)))
    probs = candidates.float()
    return Features(values, ids, "toy"), PseudoLabels(ids, probs, candidates, torch.ones(len(ids)))


def fitted(**fields):
    features, labels = support()
    return SyntheticPrototypes(**fields).fit(features, TEXT, labels)


def test_the_outlier_is_not_among_the_nearest():
    assert sorted(nearest_the_mean(VALUES[:3], 2).tolist()) == [0, 1]
    assert len(nearest_the_mean(VALUES[:3], 9)) == 3


def test_the_score_is_the_mean_cosine_with_the_images_that_stand_for_a_class():
    query = Features(normalize(torch.tensor([[1.0, 1.0, 1.0]]), dim=1), ("q",), "toy")
    got = fitted(images_per_class=2).predict_logits(query)
    cosines = query.values @ VALUES.T
    want = 10 * torch.stack([cosines[0, :2].mean(), cosines[0, 3], query.values[0, 2]])
    torch.testing.assert_close(got[0], want)


def test_unit_prototypes_take_no_account_of_how_much_a_class_differs():
    query = support()[0]
    plain = fitted().predict_logits(query)
    unit = fitted(unit_prototypes=True).predict_logits(query)
    torch.testing.assert_close(plain[:, 1:], unit[:, 1:])
    assert (unit[:2, 0] > plain[:2, 0] + 0.1).all()


def test_sharpness_takes_the_place_of_the_scale():
    query = support()[0]
    torch.testing.assert_close(
        fitted(sharpness=5.0).predict_logits(query), fitted().predict_logits(query) / 2
    )


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="images_per_class must be at least 1"):
        SyntheticPrototypes(images_per_class=0)
    with pytest.raises(ValueError, match="sharpness must be above 0"):
        SyntheticPrototypes(sharpness=0.0)
