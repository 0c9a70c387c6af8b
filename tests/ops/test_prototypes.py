import torch

from nameonly.ops.prototypes import class_prototypes, labelled_prototypes, spread
from nameonly.types import PseudoLabels


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


def test_prototypes_of_chosen_rows_are_those_of_their_targets(toy, monkeypatch):
    features, text, _, _ = toy
    probs = text.predict_logits(features).softmax(dim=1)
    candidates = probs > 0.2
    candidates[:, 3] = False
    candidates[10:, 2] = False  # a class of the first block alone
    labels = PseudoLabels(features.ids, probs, candidates, probs.amax(dim=1))
    rows = labels.selected.nonzero()[:, 0]
    want = class_prototypes(features.values[rows], labels.targets_of(rows), text.weights)
    seen = []
    one = PseudoLabels.targets_of

    def counted(self, chosen):
        seen.append(len(chosen))
        return one(self, chosen)

    monkeypatch.setattr(PseudoLabels, "targets_of", counted)
    monkeypatch.setattr("nameonly.ops.prototypes.LEAST_ROWS", 7)
    monkeypatch.setattr("nameonly.ops.prototypes.BLOCK_VALUES", 1)
    got = labelled_prototypes(features.values, labels, rows, text.weights)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(got[3], text.weights[3])
    assert max(seen) == 7 and sum(seen) == len(rows)
