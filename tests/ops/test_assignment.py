import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nameonly.ops.assignment import (
    check_places,
    deferred_acceptance,
    name_order,
    places_per_class,
)


def textbook(scores, capacities, order, class_order):
    """Gale and Shapley 1962: one image at a time, down a list of all its classes."""
    rank = {int(i): r for r, i in enumerate(order)}
    turn = {int(j): r for r, j in enumerate(class_order)}
    lists = [
        sorted((j for j in turn if row[j] > -np.inf), key=lambda j: (-row[j], turn[j]))
        for row in scores
    ]
    asked, held = [0] * len(scores), {j: [] for j in turn}
    free = list(range(len(scores)))
    while free:
        i = free.pop()
        if asked[i] == len(lists[i]):
            continue
        j = lists[i][asked[i]]
        asked[i] += 1
        held[j].append(i)
        if len(held[j]) > capacities[j]:
            worst = min(held[j], key=lambda k: (scores[k][j], -rank[k]))
            held[j].remove(worst)
            free.append(worst)
    matched = [-1] * len(scores)
    for j, images in held.items():
        for i in images:
            matched[i] = j
    return matched


def blocking_pairs(scores, capacities, order, class_order, matched):
    """Pairs that would both rather have each other, by the definition of stability."""
    rank = {int(i): r for r, i in enumerate(order)}
    turn = {int(j): r for r, j in enumerate(class_order)}
    for i, j in itertools.product(rank, turn):
        if scores[i][j] == -np.inf or matched[i] == j:
            continue
        now = matched[i]
        rather = now < 0 or (scores[i][j], -turn[j]) > (scores[i][now], -turn[now])
        rivals = [k for k in rank if matched[k] == j]
        worse = any((scores[i][j], -rank[i]) > (scores[k][j], -rank[k]) for k in rivals)
        if rather and (len(rivals) < capacities[j] or worse):
            yield i, j


@st.composite
def markets(draw):
    n, c = draw(st.integers(1, 14)), draw(st.integers(1, 5))
    # few values make many ties, and some pairs are not acceptable
    value = st.sampled_from([-np.inf, -1.5, 0.0, 0.5, 2.0]) | st.floats(-3, 3, width=32)
    scores = draw(st.lists(st.lists(value, min_size=c, max_size=c), min_size=n, max_size=n))
    capacities = draw(st.lists(st.integers(0, 5), min_size=c, max_size=c))
    orders = draw(st.permutations(range(n))), draw(st.permutations(range(c)))
    return scores, capacities, *orders


@settings(max_examples=250, deadline=None)
@given(markets())
def test_the_matching_is_the_textbook_one_and_stable(market):
    scores, capacities, order, class_order = market
    matched = deferred_acceptance(
        torch.tensor(scores),
        torch.tensor(capacities),
        torch.tensor(order),
        torch.tensor(class_order),
    ).tolist()
    assert not list(blocking_pairs(*market, matched))
    assert matched == textbook(*market)
    for j, capacity in enumerate(capacities):
        assert matched.count(j) <= capacity
    assert all(j < 0 or scores[i][j] > -np.inf for i, j in enumerate(matched))


@pytest.mark.parametrize("capacity", [1, 3])
def test_many_images_in_several_blocks(capacity):
    """Images and classes largely agree on who is wanted, so that most lose many places."""
    g = torch.Generator().manual_seed(0)
    n, c = 900, 700
    scores = torch.randn(n, c, generator=g) + 2 * torch.randn(c, generator=g)
    scores = (scores + torch.randn(n, 1, generator=g)).mul(4).round()
    order, class_order = torch.randperm(n, generator=g), torch.randperm(c, generator=g)
    capacities = torch.full((c,), capacity)
    got = deferred_acceptance(scores, capacities, order, class_order)
    want = textbook(scores.numpy(), capacities.tolist(), order.tolist(), class_order.tolist())
    assert got.tolist() == want


def test_by_hand_an_image_that_loses_its_place_goes_on():
    scores = torch.tensor([[0.6, 0.5, 0.1], [0.9, 0.2, 0.1], [0.7, 0.6, 0.2]])
    # 0 comes first to class 0, loses it to 1, finds 2 better in class 1, and ends in class 2
    assert deferred_acceptance(scores, torch.tensor([1, 1, 1])).tolist() == [2, 0, 1]
    assert deferred_acceptance(scores, torch.tensor([1, 1, 0])).tolist() == [-1, 0, 1]
    assert deferred_acceptance(scores, torch.tensor([2, 1, 0])).tolist() == [1, 0, 0]


def test_with_room_for_all_everyone_has_the_first_choice():
    scores = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)).double()
    got = deferred_acceptance(scores, torch.full((4,), 50))
    assert torch.equal(got, scores.argmax(dim=1))


def test_ties_follow_the_orders_and_not_rows_or_columns():
    same = torch.zeros(4, 2)
    order, class_order = torch.tensor([2, 0, 3, 1]), torch.tensor([1, 0])
    got = deferred_acceptance(same, torch.tensor([1, 2]), order, class_order)
    assert got.tolist() == [1, -1, 1, 0]
    assert deferred_acceptance(same, torch.tensor([1, 2])).tolist() == [0, 1, 1, -1]


def test_scores_that_single_precision_cannot_tell_apart_are_told_apart():
    scores = torch.tensor([[1.0], [1.0 + 1e-12], [1.0 - 1e-12]], dtype=torch.float64)
    assert deferred_acceptance(scores, torch.tensor([1])).tolist() == [-1, 0, -1]


def test_nothing_comes_of_nothing():
    assert deferred_acceptance(torch.zeros(0, 3), torch.tensor([1, 1, 1])).tolist() == []
    assert deferred_acceptance(torch.zeros(2, 1), torch.tensor([0])).tolist() == [-1, -1]


def test_places_are_one_number_or_one_each():
    assert places_per_class(3, 2).tolist() == [3, 3]
    assert places_per_class((3, 0), 2).tolist() == [3, 0]
    with pytest.raises(ValueError, match="2 numbers for 3 classes"):
        places_per_class((3, 0), 3)


def test_impossible_numbers_of_places_are_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        check_places(0)
    with pytest.raises(ValueError, match="at least 0 each, got -2"):
        check_places((3, -2))
    check_places((0, 0))


def test_names_give_an_order_that_columns_cannot_change():
    assert name_order(("bee", "ant", "cat")).tolist() == [1, 0, 2]
