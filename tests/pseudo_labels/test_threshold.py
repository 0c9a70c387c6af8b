import pytest
import torch

from nameonly.pseudo_labels.threshold import Threshold
from nameonly.types import Features, LabelSpace

SPACE = LabelSpace(("a", "b", "c"))
PROBS = torch.tensor(
    [[0.5, 0.25, 0.25], [0.125, 0.75, 0.125], [0.25, 0.375, 0.375], [0.0, 0.0, 1.0]]
)
LOGITS = PROBS.log()
FEATURES = Features(torch.eye(4), ("w", "x", "y", "z"), "toy")


def test_images_at_or_above_the_threshold_keep_their_top_class():
    got = Threshold(0.5).label(FEATURES, LOGITS, SPACE)
    assert got.labels.tolist() == [0, 1, -1, 2]
    assert Threshold(0.500001).label(FEATURES, LOGITS, SPACE).labels.tolist() == [-1, 1, -1, 2]
    assert Threshold().label(FEATURES, LOGITS, SPACE).labels.tolist() == [-1, -1, -1, 2]


def test_an_image_has_one_label_even_where_several_classes_pass():
    got = Threshold(0.1).label(FEATURES, LOGITS, SPACE)
    assert (got.candidates.sum(dim=1) == 1).all()
    assert got.labels[:2].tolist() == [0, 1]


def test_given_labels_need_not_pass():
    got = Threshold().label(FEATURES, LOGITS, SPACE, torch.tensor([2, -1, -1, 0]))
    assert got.labels.tolist() == [2, -1, -1, 0]


def test_the_threshold_is_of_the_probability_among_the_classes_an_image_may_have():
    """Without the seen class a, image z keeps c, and x passes with 0.75 of 0.875."""
    space = LabelSpace(("a", "b", "c"), seen=(True, False, False))
    got = Threshold(0.85).label(FEATURES, LOGITS, space)
    assert got.labels.tolist() == [-1, 1, -1, 2]


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_what_is_no_probability_is_refused(threshold):
    with pytest.raises(ValueError, match="from 0 to 1"):
        Threshold(threshold)


def test_logits_of_other_classes_are_refused():
    with pytest.raises(ValueError, match="expected 4 images x 2 classes"):
        Threshold().label(FEATURES, LOGITS, LabelSpace(("a", "b")))
