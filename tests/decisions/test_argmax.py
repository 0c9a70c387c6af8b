import torch

from nameonly.decisions.argmax import Argmax


def test_the_highest_logit_wins():
    logits = torch.tensor([[0.1, 0.2], [5.0, -5.0]])
    assert Argmax().fit(logits).decide(logits).tolist() == [1, 0]
