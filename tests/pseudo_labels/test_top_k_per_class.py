import pytest
import torch

from nameonly.pseudo_labels.top_k_per_class import TopKPerClass
from nameonly.types import Features, LabelSpace

SPACE = LabelSpace(("a", "b", "c"))
LOGITS = torch.tensor([[3.0, 0.0, 0.0], [2.0, 1.0, 0.0], [1.0, 0.5, 0.0], [0.0, 0.2, 0.0]])
FEATURES = Features(torch.eye(4), ("w", "x", "y", "z"), "toy")


def test_by_row_takes_only_images_predicted_as_the_class():
    got = TopKPerClass(images_per_class=2).label(FEATURES, LOGITS, SPACE)
    assert got.labels.tolist() == [0, 0, -1, 1]
    assert got.candidates.sum(dim=0).tolist() == [2, 1, 0]


def test_by_column_leaves_no_class_empty():
    got = TopKPerClass(images_per_class=2, by="column").label(FEATURES, LOGITS, SPACE)
    assert got.candidates.sum(dim=0).tolist() == [2, 2, 2]
    assert got.candidates[3].tolist() == [False, True, True]


def test_given_labels_do_not_use_up_places():
    given = torch.tensor([1, -1, -1, -1])
    got = TopKPerClass(images_per_class=1).label(FEATURES, LOGITS, SPACE, given)
    assert got.labels.tolist() == [1, 0, -1, 1]


def test_only_given_labels_are_certain():
    sure = torch.tensor([[400.0, 0.0, 0.0]] * 4)
    given = torch.tensor([0, -1, -1, -1])
    got = TopKPerClass().label(FEATURES, sure, SPACE, given)
    assert (got.confidence == 1).tolist() == [True, False, False, False]


def test_fewer_than_one_image_is_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        TopKPerClass(images_per_class=0)


def test_logits_of_other_classes_are_refused():
    with pytest.raises(ValueError, match="expected 4 images x 2 classes"):
        TopKPerClass().label(FEATURES, LOGITS, LabelSpace(("a", "b")))


def test_rounded_probabilities_do_not_make_ties():
    """At a logit scale of 100 both are 1.0 in float32; the surer image is still the surer one."""
    logits = torch.tensor([[100.0, 0.0, 0.0], [100.0, 40.0, 0.0]])
    assert torch.equal(logits.softmax(dim=1)[:, 0], torch.ones(2))
    for ids in (("a", "b"), ("b", "a")):
        got = TopKPerClass(images_per_class=1).label(
            Features(torch.eye(2), ids, "toy"), logits, SPACE
        )
        assert got.labels.tolist() == [0, -1]
