import torch
from torch.nn.functional import cross_entropy

from nameonly.ops.losses import partial_label_loss

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 0.0]])


def test_one_label_is_cross_entropy():
    targets = torch.eye(3)[[0, 2]]
    want = cross_entropy(LOGITS, torch.tensor([0, 2]))
    torch.testing.assert_close(partial_label_loss(LOGITS, targets), want)


def test_a_candidate_set_is_probable_as_a_whole():
    targets = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
    p = LOGITS.softmax(dim=1)
    want = -((p * targets).sum(dim=1)).log().mean()
    torch.testing.assert_close(partial_label_loss(LOGITS, targets), want)


def test_weights_multiply_the_losses_of_their_rows():
    targets = torch.eye(3)[[0, 2]]
    each = cross_entropy(LOGITS, torch.tensor([0, 2]), reduction="none")
    got = partial_label_loss(LOGITS, targets, torch.tensor([0.5, 3.0]))
    torch.testing.assert_close(got, (0.5 * each[0] + 3 * each[1]) / 2)
    ones = partial_label_loss(LOGITS, targets, torch.ones(2))
    torch.testing.assert_close(ones, partial_label_loss(LOGITS, targets))
