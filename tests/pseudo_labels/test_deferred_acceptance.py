import pytest
import torch

from nameonly.pseudo_labels.deferred_acceptance import DeferredAcceptance
from nameonly.types import Features, LabelSpace

SPACE = LabelSpace(("a", "b", "c"))
# everyone is predicted as a; the first is surest
PROBS = torch.tensor([[0.8, 0.15, 0.05], [0.7, 0.25, 0.05], [0.6, 0.1, 0.3], [0.5, 0.3, 0.2]])
FEATURES = Features(torch.eye(4), ("w", "x", "y", "z"), "toy")


def label(images_per_class, logits=None, space=SPACE, given=None):
    logits = PROBS.log() if logits is None else logits
    return DeferredAcceptance(images_per_class).label(FEATURES, logits, space, given)


def test_an_image_without_its_first_class_goes_on_to_the_next():
    """a keeps w; of x, y and z, x and z go to b, which keeps z (0.3), and y to c (0.3).

    x then asks c, where y is better, and has no class left.
    """
    got = label(1)
    assert got.labels.tolist() == [0, -1, 2, 1]
    assert (got.candidates.sum(dim=1) <= 1).all()


def test_confidence_is_the_probability_of_the_label_that_it_got():
    torch.testing.assert_close(label(1).confidence, torch.tensor([0.8, 0.7, 0.3, 0.3]))


def test_every_class_has_its_own_number_of_places():
    assert label((0, 2, 0)).labels.tolist() == [-1, 1, -1, 1]
    assert label((3, 0, 5)).labels.tolist() == [0, 0, 0, 2]


def test_with_more_places_than_images_all_keep_their_prediction():
    assert label(16).labels.tolist() == [0, 0, 0, 0]


def test_given_labels_take_no_place():
    got = label(1, given=torch.tensor([0, -1, -1, -1]))
    assert got.labels.tolist() == [0, 0, 2, 1]
    assert got.places.tolist() == [-1, 0, 2, 1]


def test_seen_classes_stay_empty():
    space = LabelSpace(("a", "b", "c"), seen=(True, False, False))
    got = label(1, space=space, given=torch.tensor([0, -1, -1, -1]))
    # without a: x is 0.83 b, y 0.75 c, z 0.6 b and 0.4 c
    assert got.labels.tolist() == [0, 1, 2, -1]
    assert (got.probs[1:, 0] == 0).all()


def test_all_given_and_all_the_same():
    assert label(1, given=torch.tensor([2, 2, 2, 2])).labels.tolist() == [2, 2, 2, 2]
    same = torch.zeros(4, 3)
    assert sorted(label(1, logits=same).labels.tolist()) == [-1, 0, 1, 2]


def test_classes_rank_images_where_probabilities_round_to_one():
    """All three are 1.0 in float32, and b has to choose between them for its one place."""
    logits = torch.tensor([[0.0, 80.0], [0.0, 90.0], [0.0, 85.0], [1.0, 0.0]])
    assert torch.equal(logits[:3].softmax(dim=1)[:, 1], torch.ones(3))
    space = LabelSpace(("a", "b"))
    assert label((0, 1), logits=logits, space=space).labels.tolist() == [-1, 1, -1, -1]


def test_ties_between_images_follow_their_features_and_not_rows():
    same, order = torch.zeros(4, 3), torch.tensor([2, 0, 3, 1])
    a = label(1, logits=same)
    b = DeferredAcceptance(1).label(FEATURES.subset(order), same, SPACE)
    assert torch.equal(a.candidates[order], b.candidates)


def test_ties_between_classes_follow_names_and_not_columns():
    same = torch.zeros(4, 3)
    a = label(1, logits=same).candidates
    b = label(1, logits=same, space=LabelSpace(("c", "a", "b"))).candidates
    assert torch.equal(a[:, [2, 0, 1]], b)


def test_what_cannot_be_a_number_of_places_is_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        DeferredAcceptance(0)
    with pytest.raises(ValueError, match="at least 0 each, got -1"):
        DeferredAcceptance((3, -1, 2))
    with pytest.raises(ValueError, match="2 numbers for 3 classes"):
        label((1, 1))


def test_logits_of_other_classes_are_refused():
    with pytest.raises(ValueError, match="expected 4 images x 2 classes"):
        label(1, space=LabelSpace(("a", "b")))
