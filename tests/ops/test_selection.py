import torch

from nameonly.ops.selection import log_odds, top_k_mask


def test_mask_by_hand():
    scores = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    want = torch.tensor([[True, False], [True, True], [False, True]])
    assert torch.equal(top_k_mask(scores, 2), want)


def test_rows_out_of_the_running_are_never_marked():
    scores = torch.tensor([[0.9], [-torch.inf], [0.1]])
    assert top_k_mask(scores, 3).flatten().tolist() == [True, False, True]


def test_ties_go_to_the_earlier_in_the_given_order():
    scores = torch.zeros(4, 1)
    got = top_k_mask(scores, 2, torch.tensor([3, 1, 0, 2]))
    assert got.flatten().tolist() == [False, True, False, True]


def test_log_odds_are_those_of_the_softmax():
    logits = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)).double() * 3
    p = logits.softmax(dim=1)
    torch.testing.assert_close(log_odds(logits), (p / (1 - p)).log())


def test_log_odds_go_on_where_probabilities_round():
    got = log_odds(torch.tensor([[100.0, 0.0, 0.0], [100.0, 40.0, 0.0], [9.0, 9.0, 9.0]]))
    assert got[0, 0] > got[1, 0] > 50 and torch.isfinite(got).all()
    assert torch.isfinite(log_odds(torch.tensor([[3.0], [2.0]]))).all()
