from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize, one_hot

from nameonly.pseudo_labels import label_propagation
from nameonly.pseudo_labels.label_propagation import (
    LabelPropagation,
    given_sources,
    text_edges,
    text_sources,
)
from nameonly.types import Features, LabelSpace


def features_of(values):
    values = normalize(torch.as_tensor(values, dtype=torch.float32), dim=1)
    return Features(values, tuple(f"{i:03d}" for i in range(len(values))), "toy")


def space(c):
    return LabelSpace(tuple("abcdefgh"[:c]))


def chain(n=12):
    """Images along a quarter circle: each is nearest to those beside it."""
    angles = torch.linspace(0, torch.pi / 2, n)
    return features_of(torch.stack([angles.cos(), angles.sin()], dim=1))


def dense_zlap(x, cosines, k, power, alpha):
    """The paper's system with text nodes, entry by entry, in float64."""
    n, c = cosines.shape
    x, cosines = x.double(), cosines.double()
    weights = torch.zeros(c + n, c + n, dtype=torch.float64)
    for i in range(n):
        similar = x @ x[i]
        similar[i] = -2
        for j in similar.argsort(descending=True)[:k].tolist():
            weights[c + i, c + j] = max(similar[j].item(), 0.0)
        for t in cosines[i].argsort(descending=True)[:k].tolist():
            weights[c + i, t] = max(cosines[i, t].item(), 0.0) ** power
    weights = weights + weights.T
    roots = weights.sum(dim=1).sqrt()
    matrix = torch.eye(c + n).double() - alpha * weights / roots[:, None] / roots
    solved = torch.linalg.solve(matrix, torch.eye(c + n).double()[:, :c])
    return solved[c:]


def test_with_small_cosines_it_is_the_paper_s_solution():
    g = torch.Generator().manual_seed(0)
    means = normalize(torch.randn(6, 24, generator=g), dim=1)
    x = features_of(means[torch.arange(80) % 6] + 0.25 * torch.randn(80, 24, generator=g)).values
    # CLIP's range: every cosine with a text between 0.15 and 0.32
    cosines = 0.15 + 0.17 * torch.rand(80, 6, generator=g)
    want = dense_zlap(x, cosines, k=5, power=5.0, alpha=0.3)
    got = LabelPropagation().label(features_of(x), 100 * cosines, space(6))
    torch.testing.assert_close(
        got.probs.double(), want / want.sum(dim=1, keepdim=True), rtol=1e-2, atol=1e-3
    )
    assert torch.equal(got.labels, want.argmax(dim=1))
    assert not torch.equal(got.labels, cosines.argmax(dim=1))


def test_two_images_by_hand():
    features = features_of([[1.0, 0.0], [0.6, 0.8]])
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    got = LabelPropagation(k=1, text_power=1.0, alpha=0.5).label(features, logits, space(2))
    # one edge: S = [[0, 1], [1, 0]], both degrees 1.2; texts emit 1 / sqrt(1.2) and
    # 0.5 / sqrt(0.5 * 1.2), and (I - S / 2)^-1 is [[4, 2], [2, 4]] / 3
    emitted = torch.tensor([1 / 1.2**0.5, 0.5 / 0.6**0.5])
    reached = torch.tensor([[4.0, 2.0], [2.0, 4.0]]) / 3 * emitted
    torch.testing.assert_close(got.probs, reached / reached.sum(dim=1, keepdim=True))
    assert got.labels.tolist() == [0, 1]
    torch.testing.assert_close(got.confidence, got.probs.max(dim=1).values)


def test_text_edges_by_hand():
    logits = torch.tensor([[4.0, 2.0, 1.0], [-1.0, -2.0, 3.0], [8.0, 6.0, 4.0]])
    is_open = torch.tensor([True, True, False])
    weights, classes = text_edges(logits, is_open, 2, 2.0)
    torch.testing.assert_close(weights, torch.tensor([[1.0, 0.25], [0.5625, 0.0], [0.0, 0.0]]))
    assert classes.tolist() == [[0, 1], [2, 0], [0, 1]]


def test_text_sources_by_hand():
    weights, classes = torch.tensor([[0.5, 0.25], [0.5, 0.0]]), torch.tensor([[0, 1], [0, 2]])
    got = text_sources(weights, classes, torch.tensor([4.0, 0.0]), 3)
    want = torch.tensor([[0.5 / 4.0**0.5, 0.25 / (4 * 0.25) ** 0.5], [0.5, 0.0]])
    torch.testing.assert_close(got, want)


def test_given_sources_are_in_units_of_the_typical_best_text():
    text = torch.tensor([[0.2, 0.1], [0.4, 0.3], [0.0, 0.0]])
    got = given_sources(torch.tensor([-1, -1, 1]), text, 10.0)
    torch.testing.assert_close(got, torch.tensor([0.0, 0.0, 3.0]))
    alone = given_sources(torch.tensor([0]), torch.zeros(1, 2), 10.0)
    torch.testing.assert_close(alone, torch.tensor([10.0]))


def test_neighbours_correct_the_text_and_without_alpha_nobody_does():
    x = features_of(torch.tensor([[1.0, 0.0], [0.99, 0.1], [0.98, 0.2], [0.97, 0.15], [0.0, 1.0]]))
    logits = torch.tensor([[9.0, 1.0], [9.0, 1.0], [4.9, 5.0], [9.0, 1.0], [1.0, 9.0]])
    labels = [
        LabelPropagation(k=3, alpha=alpha).label(x, logits, space(2)).labels.tolist()
        for alpha in (0.9, 0.0)
    ]
    assert labels == [[0, 0, 0, 0, 1], [0, 0, 1, 0, 1]]


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_no_logit_scale_changes_the_answer(toy, scale):
    features, text, label_space, _ = toy
    logits = text.predict_logits(features)
    a, b = (LabelPropagation().label(features, f * logits, label_space) for f in (1.0, scale))
    torch.testing.assert_close(a.probs, b.probs)


def test_blocks_of_classes_change_nothing(monkeypatch):
    g = torch.Generator().manual_seed(0)
    features, logits = features_of(torch.randn(30, 6, generator=g)), torch.rand(30, 8, generator=g)
    given = torch.full((30,), -1)
    given[:8] = torch.arange(8)
    whole = LabelPropagation().label(features, logits, space(8), given)
    monkeypatch.setattr(label_propagation, "COLUMN_BYTES", 4 * 30 * 5)
    torch.testing.assert_close(
        LabelPropagation().label(features, logits, space(8), given).probs, whole.probs
    )


def test_among_equal_images_ids_decide_who_is_joined_to_a_given_label():
    features, logits = features_of(torch.ones(20, 3)), torch.ones(20, 2)
    given = torch.full((20,), -1)
    given[7] = 1
    perm = torch.randperm(20, generator=torch.Generator().manual_seed(3))
    method = LabelPropagation(k=2)
    a = method.label(features, logits, space(2), given)
    b = method.label(features.subset(perm), logits, space(2), given[perm])
    torch.testing.assert_close(a.probs[perm], b.probs)
    assert len(a.probs[:, 1].unique()) > 2


def test_a_given_label_spreads_along_the_chain():
    features, logits = chain(), torch.ones(12, 2)
    given = torch.full((12,), -1)
    given[0], given[11] = 0, 1
    method = LabelPropagation(k=2, alpha=0.9)
    got = method.label(features, logits, space(2), given)
    assert got.labels.tolist() == [0] * 6 + [1] * 6
    assert (got.probs[:, 0].diff() < 0).all()
    louder = replace(method, given_weight=300.0).label(features, logits, space(2), given)
    assert louder.probs[3, 0] > got.probs[3, 0] + 0.01


def test_an_image_with_a_given_label_has_no_text_edge():
    features, logits = chain(6), torch.full((6, 3), 1.0)
    given = torch.tensor([0, -1, -1, -1, -1, -1])
    misled = logits.clone()
    misled[0] = torch.tensor([1.0, 1.0, 500.0])
    a, b = (LabelPropagation(k=2).label(features, x, space(3), given) for x in (logits, misled))
    torch.testing.assert_close(a.probs, b.probs)


def test_where_unseen_classes_remain_no_open_image_is_of_a_seen_one():
    features, logits = chain(), torch.ones(12, 3)
    label_space = LabelSpace(("a", "b", "c"), seen=(True, False, False))
    given = torch.full((12,), -1)
    given[:6] = 0
    logits[9:, 2] = 2.0
    got = LabelPropagation(k=2, alpha=0.9).label(features, logits, label_space, given)
    assert (got.probs[6:, 0] == 0).all() and (got.labels[:6] == 0).all()
    assert (got.labels[8:] == 2).all()
    torch.testing.assert_close(got.probs.sum(dim=1), torch.ones(12))


def test_what_nothing_reaches_is_left_out():
    features = features_of([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.0]])
    logits = torch.tensor([[2.0, -1.0], [1.0, 1.0], [-2.0, -1.0]])
    got = LabelPropagation().label(features, logits, space(2))
    assert got.labels.tolist() == [0, 0, -1] and not got.selected[2]
    torch.testing.assert_close(got.probs[2], torch.tensor([0.5, 0.5]))


def test_all_labels_given_need_no_text():
    features, given = chain(4), torch.tensor([0, 0, 1, 1])
    got = LabelPropagation().label(features, -torch.ones(4, 2), space(2), given)
    assert torch.equal(got.labels, given)
    assert torch.equal(got.candidates, one_hot(given, 2).bool())
    assert (got.confidence == 1).all()


def test_what_cannot_be_propagated_is_refused(toy):
    features, text, label_space, _ = toy
    logits = text.predict_logits(features)
    with pytest.raises(ValueError, match="no logit is above 0"):
        LabelPropagation().label(features, logits.log_softmax(dim=1), label_space)
    with pytest.raises(ValueError, match="expected 60 images x 4 classes"):
        LabelPropagation().label(features, logits[:, :3], label_space)
    wrong = {"k": 0, "alpha": 1.0, "text_power": 0.0, "given_weight": -1.0, "tolerance": 0.0}
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=f"{name} must be"):
            LabelPropagation(**{name: value})
