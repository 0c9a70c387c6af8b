import numpy as np
import pytest
import torch

from nameonly.ops.selection import row_blocks
from nameonly.pseudo_labels.candidate_sets import CandidateSets, least_scores, top_classes
from nameonly.types import Features, LabelSpace

SPACE = LabelSpace(("a", "b", "c"))
PROBS = torch.tensor(
    [
        [0.90, 0.06, 0.04],
        [0.50, 0.30, 0.20],
        [0.45, 0.40, 0.15],
        [0.10, 0.70, 0.20],
        [0.2, 0.25, 0.55],
    ]
)
OPEN = torch.ones(5, dtype=torch.bool)
FEATURES = Features(torch.eye(5), tuple("vwxyz"), "toy")


def naive(probs, alpha, beta):
    """The paper's two rules, word for word, on probabilities in float64."""
    n, c = probs.shape
    tau = np.quantile(probs.max(axis=1), alpha)
    intra, inter = np.zeros((n, c), bool), np.zeros((n, c), bool)
    for i in range(n):
        total = 0.0
        for j in np.argsort(-probs[i], kind="stable"):
            intra[i, j] = True
            total += probs[i, j]
            if total > tau:
                break
    for j in range(c):
        inter[:, j] = probs[:, j] >= np.quantile(probs[:, j], beta)
    return intra, inter


def random_case(seed, n=41, c=7):
    logits = 2 * torch.randn(n, c, generator=torch.Generator().manual_seed(seed)).double()
    rows = torch.arange(n).float()[:, None]
    features = Features(rows, tuple(f"{i:03d}" for i in range(n)), "toy")
    return logits, features, LabelSpace(tuple(chr(97 + j) for j in range(c)))


def test_top_classes_by_hand():
    """The top probabilities are 0.45, 0.5, 0.55, 0.7, 0.9; tau is their median, 0.55."""
    got = top_classes(PROBS.log(), OPEN, 0.5)
    want = [[1, 0, 0], [1, 1, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1]]
    assert got.int().tolist() == want  # z has exactly tau, which does not exceed it


def test_least_scores_by_hand():
    """Two quantiles of three images' scores: on the middle one, and between it and the next."""
    scores = torch.tensor([[3.0, 1.0], [2.0, 1.0], [1.0, -torch.inf], [9.0, 9.0]])
    is_open = torch.tensor([True, True, True, False])
    assert least_scores(scores, is_open, 0.5).tolist() == [2.0, 1.0]
    assert least_scores(scores, is_open, 0.51).tolist() == [3.0, 1.0]
    assert least_scores(scores, is_open, 0.0).tolist() == [1.0, -torch.inf]
    many = torch.arange(80.0).reshape(2, 40)
    assert torch.equal(least_scores(many, torch.ones(2, dtype=torch.bool), 1.0), many[1])


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.6, 0.75, 0.9, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_both_rules_are_the_papers(alpha, seed):
    logits, features, space = random_case(seed, n=40 + seed)
    probs = logits.softmax(dim=1).numpy()
    for gamma in (0.5, 1.0, 2.0, 3.5, 7.0):
        intra, inter = naive(probs, alpha, 1 - gamma / 7)
        got = CandidateSets(alpha, gamma).label(features, logits, space)
        assert np.array_equal(got.candidates.numpy(), intra & inter)
        assert np.array_equal(got.selected.numpy(), (intra & inter).any(axis=1))
    assert np.array_equal(
        top_classes(logits, torch.ones(len(logits), dtype=torch.bool), alpha), intra
    )


def test_rules_span_blocks_of_rows():
    n, c = 800, 700
    assert len(row_blocks(n, c)) > 1
    logits = 2 * torch.randn(n, c, generator=torch.Generator().manual_seed(0)).double()
    features = Features(torch.arange(n).float()[:, None], tuple(map(str, range(n))), "toy")
    space = LabelSpace(tuple(f"class {j}" for j in range(c)))
    intra, inter = naive(logits.softmax(dim=1).numpy(), 0.75, 1 - 2 / c)
    got = CandidateSets().label(features, logits, space)
    assert np.array_equal(got.candidates.numpy(), intra & inter)


def test_targets_are_the_probabilities_renormalised_on_the_set():
    got = CandidateSets(0.5, 3.0).label(FEATURES, PROBS.log(), SPACE)
    torch.testing.assert_close(got.targets[1], torch.tensor([0.625, 0.375, 0.0]))


def test_quantiles_are_those_of_open_images_and_of_target_classes():
    """Given rows and seen classes take no part: the rest is labelled as if they were not there."""
    logits, features, _ = random_case(0)
    logits[10:, :3] += 9.0
    space = LabelSpace(tuple("abcdefg"), seen=(True,) * 3 + (False,) * 4)
    given = torch.full((41,), -1)
    given[:10] = 1
    got = CandidateSets().label(features, logits, space, given)
    rest = features.subset(torch.arange(10, 41))
    alone = CandidateSets().label(rest, logits[10:, 3:], LabelSpace(tuple("defg")))
    assert torch.equal(got.candidates[10:, 3:], alone.candidates)
    assert not got.candidates[10:, :3].any() and (got.labels[:10] == 1).all()


def test_places_select_images_and_leave_their_sets():
    logits, features, space = random_case(1)
    every = CandidateSets().label(features, logits, space)
    few = CandidateSets(images_per_class=2).label(features, logits, space)
    assert 7 < few.selected.sum() <= 14 < every.selected.sum()
    assert torch.equal(few.candidates[few.selected], every.candidates[few.selected])
    assert (few.candidates.sum(dim=1) > 1).any()


def test_an_image_without_its_first_candidate_is_selected_by_its_second():
    """w, x and y may be a or b. a takes the surest, w; x asks b, which prefers y's 0.40 to 0.30."""
    logits = torch.tensor([[0.6, 0.35, 0.05], [0.58, 0.3, 0.12], [0.55, 0.4, 0.05]]).log()
    features = FEATURES.subset(torch.tensor([0, 1, 2]))
    method = CandidateSets(1.0, 3.0, images_per_class=(1, 1, 0))
    got = method.label(features, logits, SPACE)
    assert got.selected.tolist() == [True, False, True]
    assert got.places.tolist() == [0, -1, 1]
    assert got.candidates[:, :2].tolist() == [[True, True], [False, False], [True, True]]


def test_nothing_rounds_to_one():
    """All are 1.0 in float32: still, only the surest half of each column stands out."""
    logits = torch.tensor([[40.0, 0.0], [50.0, 0.0], [0.0, 60.0], [0.0, 40.0]])
    features = FEATURES.subset(torch.arange(4))
    got = CandidateSets(0.5, 0.5).label(features, logits, LabelSpace(("a", "b")))
    assert got.labels.tolist() == [-1, 0, 1, -1]
    assert (got.candidates.sum(dim=1) <= 1).all()
    # tau lies between the two less sure ones, which need their second class to exceed it
    assert top_classes(logits, OPEN[:4], 0.5).sum(dim=1).tolist() == [2, 1, 1, 2]


def test_images_that_are_certain_keep_one_class():
    """All top probabilities are exactly 1, which no sum exceeds: what has none is no candidate."""
    logits = torch.tensor([[2000.0, 0.0, 0.0], [0.0, 2000.0, 0.0]]).double()
    got = top_classes(logits, OPEN[:2], 0.75)
    assert got.int().tolist() == [[1, 0, 0], [0, 1, 0]]


def test_with_fewer_classes_than_shares_every_image_stands_out():
    got = CandidateSets(0.5, 9.0).label(FEATURES, PROBS.log(), SPACE)
    assert torch.equal(got.candidates, top_classes(PROBS.log(), OPEN, 0.5))
    one = CandidateSets().label(FEATURES, torch.ones(5, 1), LabelSpace(("a",)))
    assert one.candidates.all()


def test_classes_of_equal_probability_stand_or_fall_together():
    logits = torch.tensor([[0.4, 0.3, 0.3], [0.3, 0.4, 0.3], [0.5, 0.25, 0.25]]).log()
    got = top_classes(logits, OPEN[:3], 1.0)
    assert got.int().tolist() == [[1, 1, 1], [1, 1, 1], [1, 1, 1]]
    assert top_classes(logits, OPEN[:3], 0.0).int().tolist() == [[1, 1, 1], [1, 1, 1], [1, 0, 0]]


def test_all_given_leaves_nothing_to_choose():
    given = torch.tensor([0, 1, 2, 0, 1])
    got = CandidateSets(images_per_class=1).label(FEATURES, PROBS.log(), SPACE, given)
    assert torch.equal(got.labels, given) and (got.places == -1).all()
    assert CandidateSets().label(FEATURES, PROBS.log(), SPACE, given).places is None


def test_settings_that_cannot_be_meant_are_refused():
    with pytest.raises(ValueError, match=r"confidence_quantile must lie in \[0, 1\], got 75\.0"):
        CandidateSets(75.0)
    with pytest.raises(ValueError, match=r"class_share must be above 0, got 0\.0"):
        CandidateSets(class_share=0.0)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        CandidateSets(images_per_class=0)
    with pytest.raises(ValueError, match="2 numbers for 3 classes"):
        CandidateSets(images_per_class=(1, 1)).label(FEATURES, PROBS.log(), SPACE)
    with pytest.raises(ValueError, match="expected 5 images x 2 classes"):
        CandidateSets().label(FEATURES, PROBS.log(), LabelSpace(("a", "b")))
