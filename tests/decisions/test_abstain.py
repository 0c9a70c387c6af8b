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


def test_what_no_name_fits_gets_no_label():
    known = torch.tensor([[5.0, 0.0], [0.0, 5.2], [5.1, 0.0], [0.0, 4.9], [4.8, 0.0]])
    strange = torch.tensor([[1.0, -9.0]])
    both = torch.cat([known, strange])
    assert Abstain().fit(both).decide(strange).tolist() == [0]
    found = Abstain(deviations=3.0).fit(both)
    assert found.decide(both).tolist() == [0, 1, 0, 1, 0, -1]
    assert found.fit(strange).decide(strange).tolist() == [0], "a second fit forgets the first"
    with pytest.raises(ValueError, match="deviations"):
        Abstain(deviations=-1.0)
