import numpy as np
import pytest

from nameonly.evaluation.settings import (
    harmonic_mean,
    labels_of_seen,
    long_tailed,
    seen_and_unseen_accuracy,
    seen_classes,
    semi_supervised,
    small_batch,
)


def test_ssl_is_the_published_draw():
    y = np.arange(60) % 3
    given = semi_supervised(y, 3, 2)
    for column in range(3):
        np.random.seed(0)  # the published code, word for word what it does
        want = np.random.choice(np.where(y == column)[0], size=2, replace=False)
        assert set(np.flatnonzero(given == column)) == set(want)
    assert (given >= 0).sum() == 6
    # by hand: rows of class 0 are 0, 3, 6, ...; seed 0 permutes twenty so that 18 and 1 lead
    assert np.flatnonzero(given == 0).tolist() == [3, 54]


def test_ssl_counts_and_small_classes():
    y = np.array([0, 0, 0, 0, 0, 1, 2, 2, 2])
    given = semi_supervised(y, 4, 3)
    assert np.bincount(given[given >= 0], minlength=4).tolist() == [3, 1, 3, 0]
    assert ((given == y) | (given < 0)).all()
    with pytest.raises(ValueError, match="at least 1"):
        semi_supervised(y, 3, 0)


@pytest.mark.parametrize(
    ("seed", "seen"),
    [(500, [0, 2, 3, 4, 5, 9]), (0, [1, 2, 4, 6, 8, 9]), (200, [1, 3, 5, 6, 7, 8])],
)
def test_trzsl_splits_of_ten_classes(seed, seen):
    np.random.seed(seed)
    published = np.random.choice(range(10), size=int(10 * 0.62), replace=False)
    found = np.flatnonzero(seen_classes(10, seed)).tolist()
    assert found == sorted(published.tolist()) == seen


@pytest.mark.parametrize(("n", "n_seen"), [(102, 63), (45, 27), (47, 29), (10, 6), (100, 62)])
def test_trzsl_counts_are_the_published_ones(n, n_seen):
    assert seen_classes(n, 500).sum() == n_seen


def test_trzsl_gives_all_labels_of_seen_classes_and_no_other():
    y = np.array([0, 1, 2, 0, 1, 2])
    assert labels_of_seen(y, np.array([True, False, True])).tolist() == [0, -1, 2, 0, -1, 2]
    with pytest.raises(ValueError, match="at least two classes"):
        seen_classes(1, 0)


def test_long_tail_is_exponential_and_exact():
    y = np.repeat(np.arange(5), [400, 300, 200, 350, 400])
    rows = long_tailed(y, 5, 16.0, seed=0)
    order = np.random.RandomState(0).permutation(5)
    counts = np.bincount(y[rows], minlength=5)[order]
    # by hand: shares 1, 1/2, 1/4, 1/8, 1/16 in the order 2, 0, 1, 3, 4; class 2 has 200 images
    assert order.tolist() == [2, 0, 1, 3, 4]
    assert counts.tolist() == [200, 100, 50, 25, 12]
    assert (np.diff(rows) > 0).all()
    assert not np.array_equal(rows, long_tailed(y, 5, 16.0, seed=1))
    assert np.array_equal(rows, long_tailed(y, 5, 16.0, seed=0))


def test_long_tail_takes_the_head_that_every_class_can_afford():
    y = np.repeat(np.arange(3), [90, 1000, 40])
    order = np.random.RandomState(3).permutation(3)
    counts = np.bincount(y, minlength=3)[order]
    head = min(counts / np.array([1, 10**-0.5, 0.1]))
    want = np.floor(head * np.array([1, 10**-0.5, 0.1]) + 1e-9)
    assert (
        np.bincount(y[long_tailed(y, 3, 10.0, seed=3)], minlength=3)[order].tolist()
        == want.tolist()
    )


def test_long_tail_edges():
    y = np.array([0, 0, 0, 1, 1, 1, 3])
    assert long_tailed(y, 4, 1.0, seed=0).tolist() == list(range(7))
    kept = long_tailed(y, 4, 50.0, seed=0)
    assert set(y[kept]) == {0, 1, 3}  # each keeps one, and a class without images stays without
    assert long_tailed(np.zeros(5, dtype=int), 1, 10.0, seed=0).tolist() == list(range(5))
    with pytest.raises(ValueError, match="at least 1"):
        long_tailed(y, 4, 0.5, seed=0)


def test_batches_hold_few_classes():
    y = np.arange(200) % 10
    rows = small_batch(y, 24, 3, (0, 0))
    assert len(rows) == 24 and (np.diff(rows) > 0).all() and len(set(y[rows])) <= 3
    seen = {tuple(sorted(set(y[small_batch(y, 24, 3, (0, draw))]))) for draw in range(10)}
    assert len(seen) > 5
    assert np.array_equal(rows, small_batch(y, 24, 3, (0, 0)))
    whole = small_batch(y, None, 2, (1, 0))
    assert len(whole) == 40 and len(set(y[whole])) == 2
    assert small_batch(y, None, None, (0, 0)).tolist() == list(range(200))
    assert len(set(y[small_batch(y, 150, None, (0, 0))])) == 10


@pytest.mark.parametrize(
    ("size", "classes", "words"),
    [(50, 2, "50 images from 40"), (0, None, "0 images"), (5, 11, "11 classes from images of 10")],
)
def test_batches_that_cannot_be_drawn(size, classes, words):
    with pytest.raises(ValueError, match=words):
        small_batch(np.arange(200) % 10, size, classes, (0, 0))


def test_harmonic_mean_of_seen_and_unseen():
    y = np.array([0, 0, 0, 0, 1, 1])
    labels = np.array([0, 0, 0, 1, 1, -1])
    seen = np.array([True, False])
    assert seen_and_unseen_accuracy(y, labels, seen) == (0.75, 0.5)
    assert harmonic_mean(0.75, 0.5) == pytest.approx(0.6)
    assert harmonic_mean(0.0, 0.0) == 0.0 and harmonic_mean(1.0, 0.0) == 0.0
    with pytest.raises(ValueError, match="at least one image"):
        seen_and_unseen_accuracy(y[:4], labels[:4], seen)
