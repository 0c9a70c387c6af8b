from dataclasses import replace

import pytest
import torch

from nameonly.sources.locations import FileLocation
from nameonly.synthesis.support_set import SupportSet, join_features, join_images
from nameonly.types import Features, ImageSet, PseudoLabels

REAL = PseudoLabels(
    ("a", "b", "c"),
    torch.full((3, 2), 0.5),
    torch.tensor([[True, False], [False, False], [True, True]]),
    torch.tensor([0.9, 0.1, 0.4]),
)
MADE = torch.tensor([1, 0, 1, 1])
IDS = ("p", "q", "r", "s")
SAID = torch.tensor([[0.2, 0.8], [0.6, 0.4], [0.9, 0.1], [0.5, 0.5]])


def test_the_mean_loss_of_each_kind_counts_by_its_weight():
    joined = SupportSet(loss_weight=0.5).join_labels(REAL, IDS, MADE, SAID)
    assert joined.ids == ("a", "b", "c", *IDS)
    assert joined.labels.tolist() == [0, -1, 0, 1, 0, 1, 1]
    assert joined.confidence.tolist()[3:] == [1.0] * 4
    # losses of two real and four synthetic images
    losses = torch.tensor([3.0, 0.0, 5.0, 1.0, 2.0, 3.0, 6.0])
    selected = joined.selected
    total = (joined.weights * losses)[selected].sum()
    torch.testing.assert_close(total / 2, torch.tensor((3.0 + 5.0) / 2 + 0.5 * (12.0 / 4)))


def test_alone_real_images_are_not_learnt_from():
    joined = SupportSet(alone=True).join_labels(REAL, IDS, MADE, SAID)
    assert joined.selected.tolist() == [False] * 3 + [True] * 4
    assert joined.weights[3:].tolist() == [1.0] * 4


def test_without_weight_they_count_nothing():
    joined = SupportSet(loss_weight=0.0).join_labels(REAL, IDS, MADE, SAID)
    assert joined.weights.tolist() == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]


def test_rows_follow_each_other():
    real = Features(torch.eye(2), ("a", "b"), "toy")
    made = Features(torch.eye(2).flip(0), ("p", "q"), "toy")
    joined = join_features(real, made)
    assert joined.ids == ("a", "b", "p", "q")
    assert torch.equal(joined.values[2:], made.values)
    with pytest.raises(ValueError, match="'toy' and 'other' cannot be joined"):
        join_features(real, replace(made, backbone="other"))
    with pytest.raises(ValueError, match=r"no augmented views; set prompt_learning\.views=0"):
        join_features(replace(real, views=torch.eye(2)[None]), made)


def test_sources_of_both_kinds_may_be_the_same():
    one = ImageSet(("x.png",), ("a",), (FileLocation("x.png"),))
    joined = join_images(one, replace(one, ids=("b",)))
    assert joined.sources == ("x.png", "synthetic: x.png") and joined.ids == ("a", "b")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"images_per_class": 0}, "images_per_class must be at least 1"),
        ({"auxiliary_weight": -1.0}, "auxiliary_weight must not be negative"),
        ({"loss_weight": -1.0}, "loss_weight must not be negative"),
    ],
)
def test_wrong_settings_are_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        SupportSet(**fields)
