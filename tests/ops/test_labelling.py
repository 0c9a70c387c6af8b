import torch

from nameonly.ops.labelling import BELOW_CERTAIN, hard_candidates, with_given
from nameonly.types import Features

PROBS = torch.tensor([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [1.0, 0.0, 0.0]])
FEATURES = Features(torch.eye(4), ("w", "x", "y", "z"), "toy")


def test_hard_candidates_have_one_class_or_none():
    want = [[False, True], [False, False], [True, False]]
    assert hard_candidates(torch.tensor([1, -1, 0]), 2).tolist() == want


def test_confidence_is_that_of_the_label_and_not_of_a_class_that_was_not_chosen():
    candidates = torch.tensor(
        [[False, True, False], [True, False, True], [False, False, False], [True, False, False]]
    )
    got = with_given(FEATURES, PROBS, candidates)
    torch.testing.assert_close(got.confidence, torch.tensor([0.2, 0.7, 0.7, BELOW_CERTAIN]))
    assert (got.confidence < 1).all(), "only what is given is certain"


def test_given_labels_replace_candidates_and_are_certain():
    before = torch.ones(4, 3, dtype=torch.bool)
    got = with_given(FEATURES, PROBS, before, torch.tensor([-1, 2, -1, 1]))
    assert got.candidates.tolist() == [
        [True] * 3,
        [False, False, True],
        [True] * 3,
        [False, True, False],
    ]
    assert (got.confidence == 1).tolist() == [False, True, False, True]
    assert before.all()
