import pytest
import torch

from nameonly.decisions.abstain import Abstain

LOGITS = torch.tensor([[0.0, 0.0], [0.0, 3.0]])


def test_below_the_threshold_there_is_no_label():
    assert Abstain(threshold=0.6).fit(LOGITS).decide(LOGITS).tolist() == [-1, 1]
    assert Abstain(threshold=0.0).decide(LOGITS).tolist() == [0, 1]
    assert Abstain(threshold=1.0).decide(LOGITS).tolist() == [-1, -1]


def test_a_threshold_that_is_no_probability_is_refused():
    with pytest.raises(ValueError, match=r"\[0, 1\], got 60"):
        Abstain(threshold=60.0)
