import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from nameonly.backbones import _feature_file
from nameonly.backbones._feature_file import is_feature_file
from nameonly.backbones.precomputed import PrecomputedBackbone
from nameonly.ops import room
from nameonly.types import LabelSpace


def saved(path, arrays, **changes):
    kept = {k: v for k, v in {**arrays, **changes}.items() if v is not None}
    np.savez(path, **kept)
    return PrecomputedBackbone(str(path))


def test_npz_and_safetensors_say_the_same(toy, feature_file, tmp_path):
    features, text, space, _ = toy
    path, _ = feature_file
    other = tmp_path / "features.safetensors"
    metadata = {
        "ids": json.dumps(features.ids),
        "class_names": json.dumps(space.class_names),
        "logit_scale": "20",
    }
    save_file({"features": features.values, "text_weights": text.weights}, other, metadata)
    for backbone in (PrecomputedBackbone(str(path)), PrecomputedBackbone(str(other))):
        torch.testing.assert_close(backbone.features.values, features.values)
        assert backbone.features.ids == features.ids
        got = backbone.text_classifier(space)
        torch.testing.assert_close(got.weights, text.weights)
        assert got.logit_scale == 20.0


def test_rows_follow_the_names_not_the_order(toy, feature_file):
    _, text, _, _ = toy
    path, _ = feature_file
    got = PrecomputedBackbone(str(path)).text_classifier(LabelSpace(("Dog", "cat", "bee", "ant")))
    torch.testing.assert_close(got.weights, text.weights.flip(0))


def test_rows_are_made_unit_whatever_comes(feature_file):
    path, arrays = feature_file
    backbone = saved(path, arrays, features=(arrays["features"] * 7).astype(np.float64))
    torch.testing.assert_close(backbone.features.values.norm(dim=1), torch.ones(60))


def test_ids_and_scale_may_be_left_out(feature_file):
    path, arrays = feature_file
    backbone = saved(path, arrays, ids=None, logit_scale=None)
    assert backbone.features.ids[:2] == ("00", "01") and backbone.logit_scale == 100.0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"features": None}, "no 'features'"),
        ({"text_weights": None}, "no 'text_weights'"),
        ({"features": np.zeros((60, 16), np.float32)}, "60 rows that are zero or not finite"),
        ({"features": np.full((60, 16), np.nan)}, "not finite"),
        ({"features": np.ones(16)}, "must be a matrix"),
        ({"features": np.array([["a"] * 16] * 60)}, "must hold numbers"),
        ({"text_weights": np.eye(3, 16)}, "3 rows of text_weights for 4 classes"),
        ({"text_weights": np.eye(4, 15)}, "15 dimensions, features 16"),
        ({"ids": np.array(["a"] * 60)}, "ids repeat"),
        ({"ids": np.array(["a"] * 59)}, r"\(59,\), expected 60"),
        ({"class_names": np.array(["ant", "bee", "cat", "eel"])}, r"no text weights for \['dog'\]"),
        ({"logit_scale": np.array(-3.0)}, "must be positive"),
        ({"logit_scale": np.array([])}, "must be one number"),
        ({"class_names": np.array("ant")}, "expected 4, one for each"),
        (
            {"class_names": np.array(["ant", "bee", "cat", "dog", "eel"])},
            "expected 4, one for each",
        ),
        ({"ids": np.array("a")}, "expected 60"),
    ],
)
def test_bad_files_teach(toy, feature_file, changes, words):
    path, arrays = feature_file
    backbone = saved(path, arrays, **changes)
    with pytest.raises(ValueError, match=words):
        _ = backbone.features, backbone.text_classifier(toy[2])


def test_pickled_and_broken_files_are_refused(tmp_path):
    path = tmp_path / "f.npz"
    np.savez(path, features=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="cannot read"):
        _ = PrecomputedBackbone(str(path)).features
    path.write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(ValueError, match="cannot read"):
        _ = PrecomputedBackbone(str(path)).features
    broken = tmp_path / "f.safetensors"
    broken.write_bytes(b"\xff" * 40)
    with pytest.raises(ValueError, match="cannot read"):
        _ = PrecomputedBackbone(str(broken)).features
    with pytest.raises(ValueError, match="no feature file"):
        _ = PrecomputedBackbone(str(tmp_path / "none.npz")).features


def stored_as(kind, path, arrays):
    """Write the features in one of the ways in which they can lie on a disk."""
    if kind == "safetensors":
        path = path.with_suffix(".safetensors")
        save_file({key: torch.from_numpy(value) for key, value in arrays.items()}, path)
    elif kind == "compressed":
        np.savez_compressed(path, **arrays)
    elif kind == "by column":
        np.savez(path, **{**arrays, "features": np.asfortranarray(arrays["features"])})
    else:
        np.savez(path, **arrays)
    return PrecomputedBackbone(str(path))


@pytest.fixture
def many():
    generator = np.random.default_rng(0)
    rows = 2 * _feature_file.ROWS_AT_ONCE + 7
    return {"features": generator.standard_normal((rows, 8), np.float32)}


KINDS = ("safetensors", "plain", "compressed", "by column")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_large_lies_in_a_file_without_a_name(kind, many, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(room, "MAPPED_BYTES", 4 * many["features"].size - 1)
    values = stored_as(kind, tmp_path / "f.npz", many).features.values
    rows = torch.from_numpy(many["features"])
    assert torch.equal(values, torch.nn.functional.normalize(rows, dim=1))
    assert list((tmp_path / "temporary").iterdir()) == []
    if sys.platform == "linux":
        assert f" {tmp_path / 'temporary'}/" in Path("/proc/self/maps").read_text()
        del values
        assert f" {tmp_path / 'temporary'}/" not in Path("/proc/self/maps").read_text()


def test_memory_must_do_where_the_disk_is_full(many, tmp_path, monkeypatch):
    resource = pytest.importorskip("resource")
    backbone = stored_as("plain", tmp_path / "f.npz", many)
    monkeypatch.setattr(room, "MAPPED_BYTES", 0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        values = backbone.features.values
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    torch.testing.assert_close(values.norm(dim=1), torch.ones(len(values)))


@pytest.mark.parametrize("kind", KINDS)
def test_bad_rows_are_counted_in_all_of_the_file(kind, many, tmp_path):
    many["features"][[3, 5_000, 8_000]] = 0
    many["features"][8_195, 2] = np.nan
    with pytest.raises(ValueError, match=r"4 rows .* first \[3, 5000, 8000, 8195\]"):
        _ = stored_as(kind, tmp_path / "f.npz", many).features


@pytest.mark.parametrize("kind", ["plain", "compressed"])
def test_rows_damaged_anywhere_are_refused(kind, many, tmp_path):
    backbone, path = stored_as(kind, tmp_path / "f.npz", many), tmp_path / "f.npz"
    sound = path.read_bytes()
    path.write_bytes(sound[:200_000] + b"\0\1\2\3" + sound[200_004:])
    with pytest.raises(ValueError, match=r"cannot read .*f\.npz"):
        _ = backbone.features


def test_only_files_of_features_are_taken_for_such():
    assert is_feature_file("a/B.NPZ") and is_feature_file("x.safetensors")
    assert not is_feature_file("photos") and not is_feature_file(["a.npz", "b.npz"])
