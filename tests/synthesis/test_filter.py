import pytest
import torch
from torch.nn.functional import normalize

from nameonly.synthesis.filter import Filter, first_of_alike
from nameonly.types import Features, TextClassifier

TEXT = TextClassifier(torch.eye(3), 10.0, ("ant", "bee", "cat"))


def features(rows):
    values = normalize(torch.tensor(rows), dim=1)
    return Features(values, tuple(f"{i:02d}" for i in range(len(rows))), "toy")


ROWS = features(
    [
        [1.0, 0.0, 0.0],
        [0.8, 0.6, 0.0],
        [0.6, 0.8, 0.0],
        [0.0, 1.0, 0.0],
        [0.0, 1.0, 0.01],
        [0.0, 0.6, 0.8],
    ]
)
LABELS = torch.tensor([0, 0, 0, 1, 1, 2])


def test_agreement_is_the_probability_of_the_own_class():
    found = Filter(largest_cosine=1.0).keep(ROWS, LABELS, TEXT)
    want = (10 * ROWS.values).softmax(dim=1)[torch.arange(6), LABELS]
    torch.testing.assert_close(found.agreement, want)
    assert found.kept.all() and set(found.reasons) == {""}


def test_the_threshold_by_hand():
    found = Filter(threshold=0.5, largest_cosine=1.0).keep(ROWS, LABELS, TEXT)
    assert found.kept.tolist() == [True, True, False, True, True, True]
    assert found.reasons[2] == f"agreement {found.agreement[2]:.3f} below 0.5"


def test_what_is_taken_for_another_class_goes():
    found = Filter(agreed=True, largest_cosine=1.0).keep(ROWS, LABELS, TEXT)
    assert found.kept.tolist() == [True, True, False, True, True, True]
    assert found.reasons[2] == "taken for 'bee'"
    wrong = Filter(agreed=True, largest_cosine=1.0).keep(ROWS, LABELS.roll(1), TEXT)
    assert set(LABELS.roll(1)[wrong.kept].tolist()) == {0, 1, 2}, "no class is left empty"


def test_the_best_share_of_every_class_stays():
    found = Filter(share=0.5, largest_cosine=1.0).keep(ROWS, LABELS, TEXT)
    assert found.kept.tolist() == [True, True, False, True, False, True]
    assert found.reasons[2] == "not among the best 2 of 3"


def test_of_near_duplicates_the_one_agreed_with_most_stays():
    found = Filter(largest_cosine=0.99).keep(ROWS, LABELS, TEXT)
    assert found.kept.tolist() == [True, True, True, True, False, True]
    assert found.reasons[4] == "near-duplicate: cosine above 0.99"
    across = torch.tensor([0, 0, 0, 1, 2, 2])
    assert Filter(largest_cosine=0.99).keep(ROWS, across, TEXT).kept.all(), "within a class only"


def test_no_class_is_left_empty():
    wrong = torch.tensor([2, 2, 2, 0, 0, 1])
    found = Filter(threshold=0.9, share=0.01).keep(ROWS, wrong, TEXT)
    assert set(wrong[found.kept].tolist()) == {0, 1, 2}


def test_what_goes_for_one_reason_is_not_judged_for_another():
    """A near-duplicate of an image that went for its agreement stays."""
    rows = features([[0.0, 1.0, 0.0], [0.0, 1.0, 0.001], [1.0, 0.0, 0.0]])
    labels = torch.tensor([0, 0, 0])
    found = Filter(threshold=0.5).keep(rows, labels, TEXT)
    assert found.kept.tolist() == [False, False, True]
    assert all(reason.startswith("agreement") for reason in found.reasons[:2])


def test_order_does_not_matter():
    order = torch.tensor([5, 2, 4, 0, 3, 1])
    sieve = Filter(threshold=0.2, share=0.7, largest_cosine=0.95)
    found = sieve.keep(ROWS, LABELS, TEXT)
    other = sieve.keep(ROWS.subset(order), LABELS[order], TEXT)
    assert other.kept.tolist() == found.kept[order].tolist()


def test_greedy_by_hand():
    values = normalize(torch.tensor([[1.0, 0.0], [0.99, 0.14], [0.9, 0.43], [0.0, 1.0]]), dim=1)
    # the third is near the second, which is gone already
    assert first_of_alike(values, 0.95).tolist() == [True, False, True, True]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"threshold": 1.0}, r"threshold must be in \[0, 1\), got 1.0"),
        ({"share": 0.0}, r"share must be in \(0, 1\], got 0.0"),
        ({"largest_cosine": 1.5}, r"largest_cosine must be in \(0, 1\], got 1.5"),
    ],
)
def test_wrong_settings_are_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        Filter(**fields)


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="5 labels from 0 to 1 for 6 images of 3 classes"):
        Filter().keep(ROWS, LABELS[:5], TEXT)
    with pytest.raises(ValueError, match="6 labels from 0 to 3"):
        Filter().keep(ROWS, torch.tensor([0, 1, 2, 3, 0, 0]), TEXT)
