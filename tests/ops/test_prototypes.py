import torch

from nameonly.ops.prototypes import class_prototypes, spread


def test_prototypes_by_hand():
    values = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    weights = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    fallback = torch.tensor([[0.0, 1.0], [0.6, 0.8]])
    got = class_prototypes(values, weights, fallback)
    torch.testing.assert_close(got, torch.tensor([[0.5**0.5, 0.5**0.5], [0.6, 0.8]]))


def test_spread_ignores_what_all_classes_share():
    scores = torch.tensor([[1.0, 3.0], [11.0, 13.0]])
    assert spread(scores).item() == 1.0
    assert spread(scores + torch.tensor([[5.0], [-7.0]])).item() == 1.0
    assert spread(scores[:, :1]).item() == 0.0
