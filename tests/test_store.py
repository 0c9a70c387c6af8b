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


@pytest.fixture
def many(tmp_path, monkeypatch):
    """A store of 50 rows that maps whatever is larger than ten, and reads seven at once."""
    monkeypatch.setattr("nameonly.store.MAPPED_BYTES", 10 * 3 * 4)
    monkeypatch.setattr("nameonly.store.ROWS_AT_ONCE", 7)
    store = opened(tmp_path)
    ids, values = rows(50)
    for start in range(0, 50, 20):
        store.add(ids[start : start + 20], values[start : start + 20])
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0)).tolist()
    return tmp_path, [ids[i] for i in order], values[order]


def gathered(store):
    return sorted(store.folder.glob("gathered-*.npy"))


def test_many_rows_are_a_map_of_a_file_that_is_found_again(many):
    tmp_path, ids, values = many
    store = opened(tmp_path)
    assert torch.equal(store.get(ids[:10]), values[:10]) and gathered(store) == []
    first = store.get(ids)
    assert torch.equal(first, values)
    (path,) = gathered(store)
    written = path.stat().st_mtime_ns
    again = opened(tmp_path).get(ids)
    assert torch.equal(again, values) and path.stat().st_mtime_ns == written
    again[0] = -1.0  # stays in memory
    assert torch.equal(opened(tmp_path).get(ids), values)


def test_rows_in_another_order_are_gathered_in_place_of_the_last(many):
    tmp_path, ids, values = many
    store = opened(tmp_path)
    first = store.get(ids)
    assert torch.equal(store.get(ids[::-1]), values.flip(0))
    assert len(gathered(store)) == 1 and len(list(store.folder.glob("gathered-*"))) == 2
    assert torch.equal(first, values)  # who looks at the old file still sees it


@pytest.mark.parametrize("damage", ["no checksum", "flip", "truncate", "empty", "other shape"])
def test_a_gathered_file_that_is_not_whole_is_written_again(many, damage):
    tmp_path, ids, values = many
    store = opened(tmp_path)
    store.get(ids)
    (path,) = gathered(store)
    whole = path.read_bytes()
    content = bytearray(whole)
    if damage == "no checksum":
        path.with_suffix(".crc32").unlink()
    elif damage == "flip":
        content[-3] ^= 1
        path.write_bytes(content)
    elif damage == "truncate":
        path.write_bytes(content[:-12])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        np.save(path, np.zeros((50, 4), np.float32))
    assert torch.equal(opened(tmp_path).get(ids), values)
    assert path.read_bytes() == whole and path.with_suffix(".crc32").exists()


KILLED = """
import os, signal, sys, zlib
from pathlib import Path
from nameonly import store
store.MAPPED_BYTES, store.ROWS_AT_ONCE = 0, 7
key = {"backbone": "toy/model", "revision": "1", "dtype": "float32"}
kept = store.FeatureStore(Path(sys.argv[1]), key)
ids = [f"id{i:03d}" for i in range(50)]
assert not kept.missing(ids)
sums = zlib.crc32
def crc32(data, start=0):
    if start:
        os.kill(os.getpid(), signal.SIGKILL)
    return sums(data, start)
store.zlib.crc32 = crc32
kept.get(ids)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_a_gather_that_was_killed_is_not_believed(many):
    tmp_path, _, _ = many
    store = opened(tmp_path)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(store.folder)], check=False)
    assert killed.returncode == -9
    assert gathered(store) == [] and len(list(store.folder.glob("gathered-*.partial"))) == 1
    ids, values = rows(50)
    assert torch.equal(opened(tmp_path).get(ids), values)
    assert list(store.folder.glob("gathered-*.partial")) == []


def test_where_nothing_can_be_written_rows_are_copied(many, monkeypatch):
    tmp_path, ids, values = many
    store = opened(tmp_path)

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(FeatureStore, "_gather", full)
    assert torch.equal(store.get(ids), values) and gathered(store) == []
    reader = FeatureStore(store.folder, KEY, create=False)
    assert torch.equal(reader.get(ids), values)
