import pytest
import torch

from nameonly.ops.mixing import mix_probs


def test_by_hand():
    p, q = torch.tensor([[0.8, 0.2]]), torch.tensor([[0.2, 0.8]])
    torch.testing.assert_close(mix_probs(p, q, 1.0), torch.tensor([[0.5, 0.5]]))
    torch.testing.assert_close(mix_probs(p, q, 0.5), torch.tensor([[0.6, 0.4]]))
    torch.testing.assert_close(mix_probs(p, q, 0.0), p)


def test_a_probability_of_zero_has_a_logarithm():
    none = torch.tensor([[1.0, 0.0]])
    assert torch.isfinite(mix_probs(none, none, 1.0).log()).all()


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match=r"must not be negative, got -0\.5"):
        mix_probs(torch.ones(1, 1), torch.ones(1, 1), -0.5)
