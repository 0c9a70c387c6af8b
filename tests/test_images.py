"""From every kind of source to an ImageSet: right rows, right ids, and bad rows set aside."""

import json
import shutil
import socket
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from awkward import encode, make_awkward_folder, noise, plain
from hypothesis import given, settings
from hypothesis import strategies as st

from nameonly.images import BadImageError, Quarantined, content_id, load, open_images
from nameonly.types import ImageSet

CIFAR = Path(__file__).parents[2] / "shared" / "data" / "cifar10_test.parquet"
COLOURS = ("red", "lime", "blue", "gold", "teal", "navy", "pink", "olive", "cyan", "gray")


def picture(number: int) -> bytes:
    return encode(plain("RGB", COLOURS[number]), "PNG")


def make_folder(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    return root


def write_hugging_face(folder: Path, numbers: range, labels: list[int]) -> None:
    folder.mkdir(parents=True)
    cells = [{"bytes": picture(i), "path": f"{i}.png"} for i in numbers]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(cells, kind), "label": labels})
    with pa.ipc.new_stream(str(folder / "data-00000-of-00001.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")


def outcomes(images: ImageSet, quarantined: list[Quarantined]) -> dict[str, str | None]:
    out: dict[str, str | None] = {bad.source: bad.reason for bad in quarantined}
    for row, source in enumerate(images.sources):
        assert source not in out
        try:
            assert load(images, row).mode == "RGB"
            out[source] = None
        except BadImageError as error:
            out[source] = str(error)
    return out


def test_awkward_folder(tmp_path):
    expected = make_awkward_folder(tmp_path / "awkward")
    assert len(expected) >= 30
    images, quarantined = open_images(tmp_path / "awkward")
    got = outcomes(images, quarantined)
    assert set(got) == set(expected)
    wrong = {
        name: (got[name], why)
        for name, why in expected.items()
        if (why is None) != (got[name] is None) or (why is not None and why not in got[name])
    }
    assert wrong == {}
    assert list(images.sources) == sorted(images.sources)
    ids = dict(zip(images.sources, images.ids, strict=True))
    assert ids["plain.jpg"] == ids["copy_of_plain.jpg"] == ids["link.jpg"]
    assert len({ids[name] for name in ids if name.startswith("turned_")}) == 8


def test_ids_are_hashes_of_the_bytes(tmp_path):
    images, _ = open_images(make_folder(tmp_path, "b.png", "a.png"))
    assert images.sources == ("a.png", "b.png")
    assert images.ids == (content_id(picture(1)), content_id(picture(0)))
    assert len(content_id(b"")) == 32


def test_class_folders_and_names_change_no_id(tmp_path):
    make_folder(tmp_path / "one", "cat/0.png", "cat/1.png", "dog/2.png")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    (tmp_path / "two" / "cat").rename(tmp_path / "two" / "zebra")
    (tmp_path / "two" / "dog" / "2.png").rename(tmp_path / "two" / "dog" / "a_cat.png")
    one, two = (open_images(tmp_path / name)[0] for name in ("one", "two"))
    assert sorted(one.ids) == sorted(two.ids)
    assert one.sources != two.sources


@pytest.mark.parametrize("kind", ["parquet", "csv", "datasets"])
def test_label_columns_change_nothing(tmp_path, kind):
    opened = []
    for name, labels in (("one", [0, 1, 2, 3]), ("two", [9, 9, 9, 9])):
        folder = tmp_path / name / "data"
        if kind == "datasets":
            write_hugging_face(folder, range(4), labels)
            opened.append(open_images(folder)[0])
            continue
        make_folder(folder, "0.png", "1.png", "2.png", "3.png")
        if kind == "csv":
            rows = "".join(f"{i}.png,{label}\n" for i, label in enumerate(labels))
            (folder / "t.csv").write_text("path,label\n" + rows)
        else:
            table = pa.table({"image": [picture(i) for i in range(4)], "label": labels})
            pq.write_table(table, folder / "t.parquet")
        opened.append(open_images(folder / f"t.{kind}")[0])
    assert opened[0].ids == opened[1].ids == tuple(content_id(picture(i)) for i in range(4))
    assert opened[0].sources == opened[1].sources


def test_parquet_rows_keep_their_order(tmp_path):
    table = pa.table({"x": [picture(i % 10) for i in range(12)] + [None]})
    pq.write_table(table, tmp_path / "t.parquet")
    images, quarantined = open_images(tmp_path / "t.parquet")
    assert images.sources == tuple(f"t.parquet#{i}" for i in range(12))
    assert quarantined == [
        Quarantined("t.parquet#12", "the cell of the table is null or empty"),
    ]
    assert images.ids[0] == images.ids[10]
    assert load(images, 11).getpixel((0, 0)) == (0, 255, 0)


def test_csv_in_a_folder_of_images(tmp_path):
    make_folder(tmp_path, "a.png", "b.png")
    (tmp_path / "t.csv").write_text("label,file\ncat,b.png\ndog,b.png\ncow,gone.png\n")
    assert open_images(tmp_path)[0].sources == ("a.png", "b.png")
    images, quarantined = open_images(tmp_path / "t.csv")
    assert images.sources == ("t.csv#0", "t.csv#1")
    assert set(images.ids) == {content_id(picture(1))}
    assert quarantined[0].source == "t.csv#2" and quarantined[0].reason.endswith(": gone.png")
    with pytest.raises(ValueError, match=r"'label' .*'file'"):
        open_images(tmp_path / "t.csv", column="image")
    with pytest.raises(ValueError, match="none of 3 images can be read"):
        open_images(tmp_path / "t.csv", column="label")


def test_save_to_disk_folders(tmp_path):
    write_hugging_face(tmp_path / "d" / "train", range(3), [0, 1, 2])
    write_hugging_face(tmp_path / "d" / "test", range(3, 5), [0, 1])
    (tmp_path / "d" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    images, _ = open_images(tmp_path / "d")
    file = "data-00000-of-00001.arrow"
    assert images.sources == (
        *(f"test/{file}#{i}" for i in range(2)),
        *(f"train/{file}#{i}" for i in range(3)),
    )
    assert images.ids == tuple(content_id(picture(i)) for i in (3, 4, 0, 1, 2))
    assert load(images, 2).getpixel((0, 0)) == (255, 0, 0)
    split, _ = open_images(tmp_path / "d" / "train")
    assert split.sources == tuple(f"{file}#{i}" for i in range(3))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("state.json", "not json"),
        ("state.json", "[]"),
        ("state.json", '{"_data_files": [{"file": 1}]}'),
        ("state.json", '{"_data_files": [], "_indices_data_files": [{"filename": "i.arrow"}]}'),
        ("dataset_dict.json", '{"splits": 3}'),
        ("dataset_dict.json", '{"splits": ["gone"]}'),
        ("dataset_dict.json", '{"splits": ["."], "x": 1'),
    ],
)
def test_damaged_save_to_disk_folder(tmp_path, name, text):
    write_hugging_face(tmp_path / "d", range(2), [0, 1])
    (tmp_path / "d" / name).write_text(text)
    with pytest.raises(ValueError, match=r"save_to_disk|lacks its splits"):
        open_images(tmp_path / "d")


def test_lost_arrow_file_is_told(tmp_path):
    write_hugging_face(tmp_path / "d", range(2), [0, 1])
    state = [{"filename": "data-00000-of-00001.arrow"}, {"filename": "gone.arrow"}]
    (tmp_path / "d" / "state.json").write_text(json.dumps({"_data_files": state}))
    images, quarantined = open_images(tmp_path / "d")
    assert len(images) == 2
    assert [bad.source for bad in quarantined] == ["gone.arrow"]


def test_tar_shards_by_file_glob_braces_and_folder(tmp_path, monkeypatch):
    for shard in range(3):
        make_folder(tmp_path / f"s{shard}", "b.png", "a.png")
        archive = shutil.make_archive(
            str(tmp_path / f"s-{shard:03}"), "tar", tmp_path / f"s{shard}"
        )
        shutil.rmtree(tmp_path / f"s{shard}")
        assert archive.endswith(".tar")
    monkeypatch.chdir(tmp_path)
    for spec in ("s-*.tar", "s-{000..002}.tar", ".", sorted(tmp_path.glob("*.tar"))):
        images, quarantined = open_images(spec)
        members = [(f"s-{shard:03}.tar", name) for shard in range(3) for name in "ab"]
        assert quarantined == []
        assert [s.replace("::./", "::") for s in images.sources] == [
            f"{shard}::{name}.png" for shard, name in members
        ]
        assert images.ids == (content_id(picture(1)), content_id(picture(0))) * 3
        assert load(images, 5).getpixel((0, 0)) == (255, 0, 0)


def test_broken_containers_do_not_stop_the_others(tmp_path):
    (tmp_path / "bad.tar").write_bytes(b"no tar" * 200)
    (tmp_path / "bad.parquet").write_bytes(b"no parquet")
    (tmp_path / "empty.parquet").touch()
    pq.write_table(pa.table({"image": [picture(0)]}), tmp_path / "good.parquet")
    images, quarantined = open_images(tmp_path)
    assert images.sources == ("good.parquet#0",)
    assert {bad.source for bad in quarantined} == {"bad.tar", "bad.parquet", "empty.parquet"}


def test_same_short_names_get_longer_ones(tmp_path, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        pq.write_table(pa.table({"image": [picture(0)]}), tmp_path / name / "t.parquet")
    monkeypatch.chdir(tmp_path)
    images, _ = open_images(["one/t.parquet", "two/t.parquet"])
    assert images.sources == ("one/t.parquet#0", "two/t.parquet#0")
    images, _ = open_images(["one/t.parquet"])
    assert images.sources == ("t.parquet#0",)


def test_names_that_print_alike_are_numbered(tmp_path):
    names = [b"a\xff.png", b"a\xfe.png", "a\N{REPLACEMENT CHARACTER}.png".encode()]
    try:
        for number, name in enumerate(names):
            Path(tmp_path, name.decode("utf-8", "surrogateescape")).write_bytes(picture(number))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    images, _ = open_images(tmp_path)
    assert len(set(images.sources)) == 3
    assert set(images.ids) == {content_id(picture(i)) for i in range(3)}
    for row in range(3):
        images.sources[row].encode("utf-8")
        load(images, row)


def test_limit_draws_before_reading(tmp_path):
    make_folder(tmp_path, *(f"{i}.png" for i in range(10)))
    everything = open_images(tmp_path)[0].sources
    first, second, other = (open_images(tmp_path, limit=4, seed=s)[0].sources for s in (1, 1, 2))
    assert len(first) == 4 and set(first) < set(everything)
    assert list(first) == sorted(first)
    assert first == second != other
    assert open_images(tmp_path, limit=99)[0].sources == everything
    for name in set(everything) - set(first):
        (tmp_path / name).write_bytes(b"")
    assert open_images(tmp_path, limit=4, seed=1)[1] == []
    for limit in (0, -3):
        with pytest.raises(ValueError, match="limit must be at least 1"):
            open_images(tmp_path, limit=limit)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(0, 5))
def test_limit_on_a_table(tmp_path_factory, limit, seed):
    path = tmp_path_factory.mktemp("limit") / "t.parquet"
    pq.write_table(pa.table({"image": [picture(i) for i in range(10)]}), path)
    images, _ = open_images(path, limit=limit, seed=seed)
    rows = [int(source.split("#")[1]) for source in images.sources]
    assert len(rows) == min(limit, 10) and rows == sorted(set(rows))
    assert images.ids == tuple(content_id(picture(row)) for row in rows)


def test_progress_ends_at_the_total(tmp_path):
    table = pa.table({"image": [picture(0)] * 600})
    pq.write_table(table, tmp_path / "t.parquet")
    calls: list[tuple[int, int]] = []
    open_images(tmp_path / "t.parquet", on_progress=lambda done, total: calls.append((done, total)))
    assert calls == sorted(calls) and calls[-1] == (600, 600)
    assert {total for _, total in calls} == {600}


def test_vanished_and_changed_between_open_and_load(tmp_path, monkeypatch):
    make_folder(tmp_path, "a.png", "b.png", "c.png", "d.png")
    monkeypatch.chdir(tmp_path)
    images, _ = open_images(".")
    (tmp_path / "a.png").unlink()
    (tmp_path / "b.png").write_bytes(picture(9))
    (tmp_path / "c.png").write_bytes(b"")
    monkeypatch.chdir("/")
    for row, why in enumerate(("no such file", "changed while running", "zero bytes")):
        with pytest.raises(BadImageError, match=why):
            load(images, row)
    assert load(images, 3).getpixel((0, 0)) == (255, 215, 0)


def test_special_files_are_never_opened(tmp_path):
    make_folder(tmp_path, "a.png")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.jpg"))
        (tmp_path / "zero.jpg").symlink_to("/dev/zero")
        images, quarantined = open_images(tmp_path)
    assert images.sources == ("a.png",)
    assert [bad.source for bad in quarantined] == ["socket.jpg", "zero.jpg"]
    assert all("not a regular file" in bad.reason for bad in quarantined)


def test_huge_file_is_not_read(tmp_path):
    make_folder(tmp_path, "a.png")
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(1 << 40)
    _, quarantined = open_images(tmp_path)
    assert "1099511627776 bytes" in quarantined[0].reason


def test_mixed_sources(tmp_path, monkeypatch):
    make_folder(tmp_path, "f/a.png", "b.png")
    pq.write_table(pa.table({"image": [picture(2)]}), tmp_path / "t.parquet")
    monkeypatch.chdir(tmp_path)
    images, _ = open_images([Path("f"), "b.png", "t.parquet"], column="image")
    assert images.sources == ("b.png", "f/a.png", "t.parquet#0")


def test_errors(tmp_path):
    with pytest.raises(ValueError, match=r"no image found in .*looked for \.bmp, .*\.webp"):
        open_images(tmp_path)
    with pytest.raises(ValueError, match="does not exist"):
        open_images(tmp_path / "gone")
    with pytest.raises(ValueError, match="no image found"):
        open_images(str(tmp_path / "*.jpg"))
    for number in range(5):
        (tmp_path / f"{number}.jpg").touch()
    with pytest.raises(ValueError, match=r"none of 5 images can be read: 0\.jpg: zero bytes; 1"):
        open_images(tmp_path)
    with pytest.raises(ValueError, match="column='x' was given, but there is no table"):
        open_images(tmp_path, column="x")


def test_arrays_of_a_large_folder_stay_small(tmp_path):
    """Encoded bytes are not kept: 40 MB of them are hashed, far less is in use at the end."""
    generator = np.random.default_rng(0)
    for number in range(40):
        (tmp_path / f"{number}.jpg").write_bytes(generator.bytes(1 << 20))
    tracemalloc.start()
    open_images(tmp_path)
    current, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert current < 1 << 20
    assert peak < 20 << 20


@pytest.mark.skipif(not CIFAR.is_file(), reason="the CIFAR-10 table is not beside the repository")
def test_real_table(tmp_path):
    start = time.process_time()  # what this process used: a busy machine fails nothing
    images, quarantined = open_images(CIFAR)
    assert time.process_time() - start < 20
    assert len(images) == 10_000 and quarantined == []
    assert images.sources[-1] == "cifar10_test.parquet#9999"
    sizes = {load(images, row).size for row in range(len(images))}
    assert len(sizes) == 1


def test_noise_survives_every_way_in(tmp_path):
    data = encode(noise(), "PNG")
    (tmp_path / "a.png").write_bytes(data)
    pq.write_table(pa.table({"image": [data]}), tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_text("path\na.png\n")
    for spec in ("a.png", "t.parquet", "t.csv"):
        images, _ = open_images(tmp_path / spec)
        assert (np.asarray(load(images, 0)) == np.asarray(noise())).all()
