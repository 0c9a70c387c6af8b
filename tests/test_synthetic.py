import struct
import zlib

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from nameonly.synthetic import (
    ImageRequest,
    class_folder,
    read_facts,
    read_synthetic,
    record_decisions,
    write_image,
    write_table,
)
from nameonly.types import LabelSpace


def pixels(seed, side=24):
    return np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    rows = []
    for i, name in enumerate(("cat", "cat", "Hot Dog", "Hot Dog")):
        path = ImageRequest(name, i, "p", "base", 7.5, i).path("webp").as_posix()
        row = {"path": path, "class_name": name, "made": i != 1, "kept": i != 1, "reason": ""}
        if row["made"]:
            write_image(pixels(i), tmp_path / path, row)
        rows.append(row)
    write_table(rows, tmp_path)
    return tmp_path


@pytest.mark.parametrize("suffix", ["webp", "png"])
def test_an_image_and_its_facts_come_back(tmp_path, suffix):
    facts = {"prompt": "a naïve «dog», 日本", "guidance_scale": 7.5, "seed": 2**31 - 1}
    path = tmp_path / "deep" / f"a.{suffix}"
    write_image(pixels(0), path, facts)
    assert read_facts(path) == facts
    assert np.array_equal(np.asarray(Image.open(path)), pixels(0)), "lossless"
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_what_is_absent_damaged_or_strange_has_no_facts(tmp_path):
    path = tmp_path / "a.webp"
    assert read_facts(path) is None
    write_image(pixels(0), path, {"seed": 1})
    whole = path.read_bytes()
    for n in range(0, len(whole), 37):
        path.write_bytes(whole[:n])
        assert read_facts(path) is None, n
    Image.fromarray(pixels(0)).save(path)
    assert read_facts(path) is None
    # a header that says 3600 million pixels
    large = path.with_suffix(".png")
    write_image(pixels(0), large, {"seed": 1})
    header = b"IHDR" + struct.pack(">II", 60_000, 60_000) + large.read_bytes()[24:29]
    rest = header + struct.pack(">I", zlib.crc32(header)) + large.read_bytes()[33:]
    large.write_bytes(large.read_bytes()[:12] + rest)
    assert read_facts(large) is None
    exif = Image.Exif()
    for text in ("no json", "[1, 2]", ""):
        exif[0x010E] = text
        Image.fromarray(pixels(0)).save(path, exif=exif)
        assert read_facts(path) is None


def test_a_class_has_a_folder_of_its_own():
    names = [
        "cat",
        "Cat",
        "cat ",
        "c/a/t",
        "../cat",
        "猫",
        "дог",
        "a" * 300,
        "a" * 301,
        "con",
        "com1",
        "",
    ]
    folders = [class_folder(name) for name in names]
    assert folders[0] == "cat" and folders[-3].startswith("con-")
    assert len(set(folders)) == len(names)
    for found in folders:
        assert found and len(found) < 80 and not set(found) & set("/\\. :")


def test_only_what_was_kept_is_read(folder):
    found, unreadable = read_synthetic(folder)
    assert found.class_names == ("cat", "Hot Dog", "Hot Dog") and not unreadable
    assert found.labels(LabelSpace(("hot dog", "cat"))).tolist() == [1, 0, 0]


def test_decisions_are_written_down_and_can_be_taken_back(folder):
    paths = read_synthetic(folder)[0].images.sources
    record_decisions(folder, paths, [0.9, 0.2, 0.8], ["", "agreement 0.2 below 0.5", ""])
    kept, _ = read_synthetic(folder)
    assert kept.images.sources == (paths[0], paths[2])
    rows = pq.read_table(folder / "synthetic.parquet").to_pylist()
    assert [row["agreement"] for row in rows] == [0.9, None, 0.2, 0.8]
    assert [row["kept"] for row in rows] == [True, False, False, True]
    everything, _ = read_synthetic(folder, with_dropped=True)
    assert everything.images.sources == paths
    record_decisions(folder, paths, [0.9, 0.2, 0.8], ["", "", ""])
    assert read_synthetic(folder)[0].images.sources == paths


def test_classes_must_be_the_same_and_none_empty(folder):
    found, _ = read_synthetic(folder)
    with pytest.raises(ValueError, match=r"of classes \['Hot Dog'\], which are none of"):
        found.labels(LabelSpace(("cat", "dog")))
    with pytest.raises(ValueError, match="no synthetic image is left of 'bee'; generate more"):
        found.labels(LabelSpace(("cat", "hot dog", "bee")))


def test_what_cannot_be_read_is_told(folder, tmp_path_factory):
    path = read_synthetic(folder)[0].images.sources[1]
    (folder / path).unlink()
    found, unreadable = read_synthetic(folder)
    assert len(found) == 2 and [bad.source for bad in unreadable] == [path]
    (folder / "synthetic.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="is damaged"):
        read_synthetic(folder)
    write_table([{"path": "a", "class_name": "b"}], folder)
    with pytest.raises(ValueError, match=r"is damaged .'made'"):
        read_synthetic(folder)
    with pytest.raises(ValueError, match="holds no finished synthetic images"):
        read_synthetic(tmp_path_factory.mktemp("empty"))
    write_table([{"path": "a", "class_name": "b", "made": False, "kept": False}], folder)
    with pytest.raises(ValueError, match="none of the 1 images"):
        read_synthetic(folder)
