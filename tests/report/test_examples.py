import numpy as np

from nameonly.report.examples import extreme_rows, largest_classes, spread_rows


def test_all_classes_are_shown_when_they_fit():
    assert largest_classes(np.array([0, 5, 2, 5]), 4) == [1, 3, 2, 0]


def test_only_the_largest_are_shown_when_they_do_not_fit():
    assert largest_classes(np.array([0, 5, 2, 5, 0]), 2) == [1, 3]


def test_empty_classes_do_not_fill_the_room_of_others():
    assert largest_classes(np.array([0, 0, 1, 0]), 3) == [2]


def test_both_sides_are_ordered_from_their_own_end():
    probs = np.array([0.9, 0.1, 0.5, 0.7, 0.3, 0.2])
    assert extreme_rows(np.arange(6), probs, 2) == ([0, 3], [1, 5])


def test_no_row_stands_on_both_sides():
    probs = np.array([0.9, 0.1, 0.5])
    assert extreme_rows(np.array([0, 1, 2]), probs, 2) == ([0, 2], [1])
    assert extreme_rows(np.array([1]), probs, 2) == ([1], [])
    assert extreme_rows(np.array([], dtype=np.int64), probs, 2) == ([], [])


def test_ties_keep_the_earlier_row():
    assert extreme_rows(np.array([2, 0, 1]), np.full(3, 0.5), 1) == ([0], [2])


def test_every_group_is_served_before_a_second_row_is_taken():
    probs = np.array([0.1, 0.9, 0.5, 0.4, 0.8])
    groups = [np.array([0, 1, 2]), np.array([3]), np.array([4])]
    assert spread_rows(groups, probs, 2) == [1, 3]
    assert spread_rows(groups, probs, 4) == [1, 2, 3, 4]
    assert spread_rows(groups, probs, 99) == [1, 2, 0, 3, 4]
    assert spread_rows([], probs, 3) == []
