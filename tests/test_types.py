import numpy as np
import pytest
import torch

from nameonly.types import Features, LabelSpace, PseudoLabels, row_hashes


def features(n=50, d=7):
    values = torch.randn(n, d, generator=torch.Generator().manual_seed(0))
    return Features(values, tuple(f"{i:03d}" for i in range(n)), "toy")


def test_content_order_follows_the_rows_wherever_they_stand():
    x = features()
    perm = torch.randperm(50, generator=torch.Generator().manual_seed(1))
    shuffled = Features(x.values[perm], tuple(f"z{i}" for i in range(50)), "toy")
    assert torch.equal(x.values[x.content_order()], shuffled.values[shuffled.content_order()])


def test_rows_of_equal_values_follow_their_ids():
    x = features()
    values = x.values.clone()
    values[[3, 30, 17]] = values[3].clone()
    order = Features(values, tuple(reversed(x.ids)), "toy").content_order().tolist()
    places = [order.index(row) for row in (30, 17, 3)]
    assert places == list(range(places[0], places[0] + 3))
    one = Features(values[:1].expand(5, -1).contiguous(), ("e", "d", "c", "b", "a"), "toy")
    assert one.content_order().tolist() == [4, 3, 2, 1, 0]


@pytest.mark.parametrize("d", [1, 2, 7, 64])
def test_hashes_tell_rows_apart_and_depend_on_nothing_else(d):
    rows = np.random.default_rng(0).standard_normal((5000, d)).astype(np.float32)
    hashes = row_hashes(rows)
    assert len(np.unique(hashes)) == len(np.unique(rows, axis=0))
    assert (row_hashes(rows[4999:]) == hashes[4999:]).all()
    changed = rows.copy()
    changed[:, -1] = np.nextafter(changed[:, -1], np.float32(9))
    assert (row_hashes(changed) != hashes).all()


def test_unlabelled_images_may_have_the_unseen_classes():
    names = ("a", "b", "c")
    assert LabelSpace(names).targets.tolist() == [True] * 3
    assert LabelSpace(names, seen=(True, False, True)).targets.tolist() == [False, True, False]
    assert LabelSpace(names, seen=(True,) * 3).targets.tolist() == [True] * 3
    assert LabelSpace(names, seen=(False,) * 3).targets.tolist() == [True] * 3


def test_targets_share_an_image_among_its_candidates():
    probs = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6], [1.0, 0.0, 0.0]])
    candidates = torch.tensor([[True, True, False], [False] * 3, [False, True, True]])
    got = PseudoLabels(("a", "b", "c"), probs, candidates, torch.ones(3)).targets
    want = torch.tensor([[2 / 3, 1 / 3, 0], [0, 0, 0], [0, 0.5, 0.5]])
    torch.testing.assert_close(got, want)


def test_views_follow_their_rows():
    x = features(4, 3)
    views = torch.arange(24.0).reshape(2, 4, 3)
    got = Features(x.values, x.ids, "toy", views).subset(torch.tensor([2, 0]))
    assert torch.equal(got.views, views[:, [2, 0]])
