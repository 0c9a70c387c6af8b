import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from nameonly.store import FeatureStore, default_cache, store_folder

KEY = {"backbone": "toy/model", "revision": "1", "dtype": "float32"}


def rows(n, start=0):
    return [f"id{i:03d}" for i in range(start, start + n)], torch.arange(n * 3.0).reshape(
        n, 3
    ) + start


def opened(tmp_path, **changes):
    key = {**KEY, **changes}
    return FeatureStore(store_folder(tmp_path, "images", key), key)


def test_what_goes_in_comes_out_in_any_order(tmp_path):
    store = opened(tmp_path)
    a, b = rows(4), rows(3, start=10)
    store.add(*a)
    store.add(*b)
    again = opened(tmp_path)
    torch.testing.assert_close(again.get(["id011", "id002"]), torch.stack([b[1][1], a[1][2]]))
    assert again.missing(["id099", "id000", "id012"]) == ["id099"] and len(again) == 7


def test_every_part_of_the_key_has_its_own_folder(tmp_path):
    folders = {store_folder(tmp_path, "images", {**KEY, k: "other"}) for k in KEY}
    assert len({*folders, store_folder(tmp_path, "images", KEY)}) == 4


def test_a_store_of_another_key_is_refused(tmp_path):
    folder = store_folder(tmp_path, "images", KEY)
    FeatureStore(folder, KEY)
    with pytest.raises(ValueError, match="another model or is damaged"):
        FeatureStore(folder, {**KEY, "revision": "2"})
    (folder / "key.json").write_text("{")
    with pytest.raises(ValueError, match="delete that folder"):
        FeatureStore(folder, KEY)


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "index", "missing", "text"])
def test_damage_is_dropped_with_a_word_and_the_rest_stays(tmp_path, damage):
    store = opened(tmp_path)
    store.add(*rows(4))
    store.add(*rows(3, start=10))
    data, index = store.folder / "000000.npy", store.folder / "000000.parquet"
    content = bytearray(data.read_bytes())
    if damage == "flip":
        content[-3] ^= 1
        data.write_bytes(content)
    elif damage == "truncate":
        data.write_bytes(content[:-8])
    elif damage == "empty":
        data.write_bytes(b"")
    elif damage == "index":
        index.write_bytes(index.read_bytes()[:-9])
    elif damage == "missing":
        data.unlink()
    else:
        data.write_text("these are no features")
    again = opened(tmp_path)
    ids = rows(4)[0] + rows(3, start=10)[0]
    assert again.missing(ids) == rows(4)[0]
    assert len(again.repairs) == 1 and "damaged" in again.repairs[0]
    again.add(*rows(4))
    torch.testing.assert_close(opened(tmp_path).get(ids[:4]), rows(4)[1])


def test_pickled_features_are_never_loaded(tmp_path):
    store = opened(tmp_path)
    store.add(*rows(2))
    np.save(store.folder / "000000.npy", np.array([{"a": 1}, {}], dtype=object), allow_pickle=True)
    assert opened(tmp_path).missing(["id000"]) == ["id000"]


def test_a_shard_without_its_index_does_not_exist(tmp_path):
    store = opened(tmp_path)
    store.add(*rows(2))
    (store.folder / "000000.parquet").unlink()
    again = opened(tmp_path)
    assert len(again) == 0 and again.repairs == []
    again.add(*rows(2))
    assert opened(tmp_path).missing(["id000"]) == []


def test_reading_only_writes_nothing(tmp_path):
    folder = store_folder(tmp_path, "images", KEY)
    store = FeatureStore(folder, KEY, create=False)
    assert store.missing(["a"]) == ["a"] and not folder.exists()
    opened(tmp_path).add(*rows(2))
    (folder / "000000.npy").write_bytes(b"x")
    assert FeatureStore(folder, KEY, create=False).missing(["id000"]) == ["id000"]
    assert (folder / "000000.npy").exists()


WRITER = """
import sys, torch
from pathlib import Path
from nameonly.store import FeatureStore
folder, start = Path(sys.argv[1]), int(sys.argv[2])
store = FeatureStore(folder, {"backbone": "toy/model", "revision": "1", "dtype": "float32"})
for i in range(start, start + 40, 2):
    store.add([f"id{i:03d}", f"id{i + 1:03d}"], torch.tensor([[float(i)] * 3, [i + 1.0] * 3]))
"""


def test_two_writers_lose_nothing(tmp_path):
    folder = store_folder(tmp_path, "images", KEY)
    commands = [[sys.executable, "-c", WRITER, str(folder), start] for start in ("0", "500")]
    workers = [subprocess.Popen(command) for command in commands]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    store = FeatureStore(folder, KEY)
    assert len(store) == 80
    assert store.get(["id500"])[0, 0] == 500


def test_the_default_place_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("NAMEONLY_CACHE", str(tmp_path / "here"))
    assert default_cache() == tmp_path / "here"
    monkeypatch.delenv("NAMEONLY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache() == tmp_path / "xdg" / "nameonly"


def test_the_key_can_be_read_by_a_person(tmp_path):
    store = opened(tmp_path)
    assert json.loads((store.folder / "key.json").read_text())["backbone"] == "toy/model"
    assert store.folder.name.startswith("toy-model-")
