import pytest
import torch

from nameonly.ops.selection import (
    filled,
    log_odds,
    row_blocks,
    top_k_mask,
    top_k_of_each,
    top_log_odds,
)


def test_mask_by_hand():
    scores = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    want = torch.tensor([[True, False], [True, True], [False, True]])
    assert torch.equal(top_k_mask(scores, 2), want)


def test_rows_out_of_the_running_are_never_marked():
    scores = torch.tensor([[0.9], [-torch.inf], [0.1]])
    assert top_k_mask(scores, 3).flatten().tolist() == [True, False, True]


def test_ties_go_to_the_earlier_in_the_given_order():
    scores = torch.zeros(4, 1)
    got = top_k_mask(scores, 2, lambda: torch.tensor([3, 1, 0, 2]))
    assert got.flatten().tolist() == [False, True, False, True]


def test_log_odds_are_those_of_the_softmax():
    logits = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)).double() * 3
    p = logits.softmax(dim=1)
    torch.testing.assert_close(log_odds(logits), (p / (1 - p)).log())


def test_log_odds_go_on_where_probabilities_round():
    got = log_odds(torch.tensor([[100.0, 0.0, 0.0], [100.0, 40.0, 0.0], [9.0, 9.0, 9.0]]))
    assert got[0, 0] > got[1, 0] > 50 and torch.isfinite(got).all()
    assert torch.isfinite(log_odds(torch.tensor([[3.0], [2.0]]))).all()


def test_top_log_odds_are_the_largest_log_odds():
    logits = 30 * torch.randn(500, 7, generator=torch.Generator().manual_seed(0))
    odds, classes = top_log_odds(logits)
    want = log_odds(logits).max(dim=1)
    torch.testing.assert_close(odds, want.values)
    assert torch.equal(classes, want.indices)
    assert torch.isfinite(top_log_odds(torch.zeros(3, 1))[0]).all(), "one class has no rival"


def by_sorting(columns: torch.Tensor, k: int, order: torch.Tensor) -> torch.Tensor:
    mask = torch.zeros_like(columns, dtype=torch.bool)
    place = {row: position for position, row in enumerate(order.tolist())}
    for j, column in enumerate(columns.T.tolist()):
        ranked = sorted(range(len(column)), key=lambda i: (-column[i], place[i]))
        for i in ranked[:k]:
            mask[i, j] = column[i] > -torch.inf
    return mask


def test_the_best_of_each_class_are_those_of_sorting():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 6, (200,), generator=generator).double()
    scores[::17] = -torch.inf
    classes = torch.randint(0, 5, (200,), generator=generator)
    order = torch.randperm(200, generator=generator)
    columns = torch.full((200, 5), -torch.inf, dtype=torch.float64)
    columns[torch.arange(200), classes] = scores
    for k in (1, 7, 60, 300):
        want = by_sorting(columns, k, order)
        assert torch.equal(top_k_mask(columns, k, lambda: order), want)
        assert torch.equal(top_k_of_each(scores, classes, k, lambda: order), want.any(dim=1))


def test_the_order_of_ties_is_asked_only_where_a_tie_decides():
    def never():
        raise AssertionError("no tie decides here")

    scores = torch.tensor([3.0, 3.0, 2.0, 1.0, -torch.inf, -torch.inf])
    classes = torch.zeros(6, dtype=torch.long)
    for k in (2, 3, 4, 5, 6, 9):
        top_k_of_each(scores, classes, k, never)
        top_k_mask(scores[:, None], k, never)
    for best in (
        lambda: top_k_of_each(scores, classes, 1, never),
        lambda: top_k_mask(scores[:, None], 1, never),
    ):
        with pytest.raises(AssertionError, match="no tie"):
            best()


def test_blocks_cover_every_row_once():
    for n, c in ((0, 3), (1, 10**7), (10, 3), (1000, 2000), (5, 0)):
        rows = [i for block in row_blocks(n, c) for i in range(n)[block]]
        assert rows == list(range(n)) and row_blocks(n, c)
    assert len(row_blocks(1000, 2000)) > 1


def test_blocks_are_put_into_place_in_whichever_order_they_come():
    parts = [(slice(3, 5), torch.tensor([3, 4])), (slice(0, 3), torch.tensor([0, 1, 2]))]
    assert filled(torch.full((5,), -1), iter(parts)).tolist() == [0, 1, 2, 3, 4]
    assert filled(torch.empty(0), iter([])).tolist() == []


def test_log_odds_do_not_depend_on_the_blocks():
    logits = torch.randn(1200, 700, generator=torch.Generator().manual_seed(0)) * 5
    assert len(row_blocks(*logits.shape)) > 1
    p = logits.double().softmax(dim=1)
    torch.testing.assert_close(log_odds(logits), (p / (1 - p)).log())
    assert torch.equal(log_odds(logits, torch.float32), log_odds(logits).float())
