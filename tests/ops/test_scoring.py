import pytest
import torch

from nameonly.ops import scoring
from nameonly.ops.scoring import logit_blocks, most_probable, tempered


@pytest.fixture(autouse=True)
def seven_rows(monkeypatch):
    sizes = []

    def blocks(n, c):
        sizes.append((n, c))
        return [slice(start, start + 7) for start in range(0, n, 7)]

    monkeypatch.setattr(scoring, "row_blocks", blocks)
    return sizes


def test_blocks_are_the_logits_part_by_part(toy):
    features, text, _, _ = toy
    parts = list(logit_blocks(text, features))
    assert [len(logits) for _, logits in parts] == [7] * 8 + [4]
    whole = text.predict_logits(features)
    for rows, logits in parts:
        torch.testing.assert_close(logits, whole[rows])
    assert torch.equal(most_probable(text, features), whole.argmax(dim=1))


def test_a_softmax_in_blocks_is_the_softmax(toy, seven_rows):
    features, text, _, _ = toy
    logits = text.predict_logits(features)
    torch.testing.assert_close(tempered(logits, 2.5), (logits / 2.5).softmax(dim=1))
    assert seven_rows == [(60, 4)]


def test_features_of_another_width_are_refused(toy):
    features, text, _, _ = toy
    with pytest.raises(ValueError, match="use one backbone for both"):
        most_probable(text, type(features)(features.values[:, :8], features.ids, "toy"))
