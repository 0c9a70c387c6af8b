import pytest
import torch

from nameonly import label
from nameonly.ops import room
from nameonly.predicting import predict_sources
from nameonly.types import Features


@pytest.fixture
def made(feature_file):
    return label(feature_file[0]).classifier


def features_of(made, toy):
    return Features(toy[0].values, toy[0].ids, made.backbone.name)


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("size", [1, 7, 60, 100])
def test_blocks_say_what_all_rows_say(made, toy, tmp_path, monkeypatch, size, mapped):
    if mapped:
        monkeypatch.setattr(room, "MAPPED_BYTES", 0)
    blocks = [slice(start, start + size) for start in range(0, 60, size)]
    monkeypatch.setattr("nameonly.predicting.row_blocks", lambda n, c: blocks)
    features, rows = features_of(made, toy), torch.arange(60)
    found = predict_sources(made, features, rows, tmp_path / "scores")
    whole = made.predict(features)
    torch.testing.assert_close(found.probs, whole.probs, rtol=0, atol=1e-6)
    assert torch.equal(found.labels, whole.labels) and found.ids == whole.ids
    assert (tmp_path / "scores").exists() == mapped
    assert not mapped or list((tmp_path / "scores").iterdir()) == []


def test_copies_have_the_same_rows_wherever_they_stand(made, toy, tmp_path, monkeypatch):
    monkeypatch.setattr("nameonly.predicting.row_blocks", lambda n, c: [slice(0, 9), slice(9, 99)])
    features = features_of(made, toy)
    rows = torch.cat([torch.arange(60).flip(0), torch.tensor([5, 5, 59, 0])])
    found = predict_sources(made, features, rows, tmp_path)
    assert found.ids == tuple(features.ids[i] for i in rows.tolist())
    assert torch.equal(found.labels, made.predict(features).labels[rows])
    for copy, first in ((60, 54), (61, 54), (62, 0), (63, 59)):
        assert torch.equal(found.probs[copy], found.probs[first])


def test_features_of_another_backbone_are_refused(made, toy, tmp_path):
    with pytest.raises(ValueError, match="reads features of"):
        predict_sources(made, toy[0], torch.arange(60), tmp_path)
