import errno
import io
import re
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nameonly.export.labelled import read_run
from nameonly.export.pictures import (
    OF_BROWSERS,
    OF_TORCHVISION,
    class_folders,
    file_stems,
    look,
    open_pictures,
)
from nameonly.images import BadImageError

# what no name may be on Windows, macOS and Linux taken together
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.I)
NASTY = st.one_of(
    st.sampled_from(
        [
            "../x",
            "..",
            ".",
            "con",
            "CON",
            "a/b",
            "a\\b",
            "<script>",
            " ",
            "a ",
            "a.",
            "é",
            "e\u0301",
        ]
    ),
    st.sampled_from(["Cat", "cat", "cat-6e2ca8f6", "images", "nul.png", "x" * 300, "x\n", "a\0b"]),
    st.text(min_size=1, max_size=30),
)


def safe(name):
    return (
        re.fullmatch(r"[A-Za-z0-9_.-][A-Za-z0-9 _.-]*", name)
        and len(name) <= 100
        and not RESERVED.fullmatch(name)
        and name[0] not in " .-"
        and name[-1] not in " ."
    )


@given(st.lists(NASTY, min_size=1, max_size=12, unique=True))
def test_class_folders_are_safe_and_tell_classes_apart(names):
    folders = class_folders(names)
    assert list(folders) == names and all(safe(f) for f in folders.values())
    assert len({f.casefold() for f in folders.values()}) == len(names)


def test_class_folders_keep_plain_names():
    names = ["golden retriever", "Cat", "7", "sea-lion", "a/b", "dog", "DOG"]
    found = class_folders(names)
    assert [found[n] for n in names[:4]] == names[:4]
    assert found["a/b"].startswith("a-b-") and found["dog"] == "dog"
    assert found["DOG"].startswith("dog-")


@given(st.lists(NASTY, min_size=1, max_size=12, unique=True))
def test_file_stems_are_safe_and_tell_sources_apart(sources):
    stems = file_stems(sources)
    assert list(stems) == sources and all(safe(s) for s in stems.values())
    assert len({s.casefold() for s in stems.values()}) == len(sources)


def test_file_stems_keep_plain_names():
    a, b, shard, row = "x/IMG 1.JPG", "y/dup.png", "s.tar::in/a.b.jpg", "t.parquet#12"
    found = file_stems([a, b, shard, row, "z/dup.jpg"])
    assert (found[a], found[shard], found[row]) == ("IMG-1", "a.b", "t.parquet-12")
    assert re.fullmatch("dup-[0-9a-f]{12}", found[b]) and found[b] != found["z/dup.jpg"]
    # a name that looks like one of ours cannot be mistaken for it
    assert file_stems([b, "z/dup.jpg", f"{found[b]}.png"])[f"{found[b]}.png"] != found[b]


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [("PNG", ".png"), ("JPEG", ".jpg"), ("GIF", ".gif"), ("TIFF", ".tif"), ("WEBP", ".webp")],
)
def test_looks_tell_kind_and_size(pictures_of, kind, suffix):
    assert look(pictures_of(0, kind)) == (suffix, 9, 6)


def test_a_turned_image_is_measured_upright(pictures_of):
    exif = Image.Exif()
    exif[0x0112] = 6
    assert look(pictures_of(0, "JPEG", exif=exif)) == (".jpg", 6, 9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(BadImageError, match="no image that can be read"):
            look(b"no image")


@pytest.fixture
def opened(new_run):
    def open_(files, **options):
        run = read_run(new_run(files))
        return {row.path: row for row in run.rows()}, open_pictures(run, **options)

    return open_


def test_bytes_are_copied_as_they_are(opened, some, tmp_path):
    rows, pictures = opened(some)
    name = pictures.put(rows["03.png"], tmp_path / "out")
    assert name == "03.png" and (tmp_path / "out" / name).read_bytes() == some["03.png"]
    assert pictures.skipped == []


def test_suffixes_say_what_a_file_is(opened, pictures_of, tmp_path):
    rows, pictures = opened({"a.png": pictures_of(0, "JPEG"), "B.JPEG": pictures_of(1, "JPEG")})
    assert pictures.put(rows["a.png"], tmp_path / "out") == "a.jpg"
    assert pictures.put(rows["B.JPEG"], tmp_path / "out") == "B.jpg"


@pytest.mark.parametrize(("kind", "shown"), [("GIF", OF_TORCHVISION), ("TIFF", OF_BROWSERS)])
def test_kinds_that_a_tool_does_not_show_become_png(opened, pictures_of, kind, shown, tmp_path):
    data = pictures_of(0, kind)
    rows, pictures = opened({"a.gif": data})
    name = pictures.put(rows["a.gif"], tmp_path / "out", shown)
    with Image.open(tmp_path / "out" / name) as made, Image.open(io.BytesIO(data)) as was:
        assert made.format == "PNG" and made.tobytes() == was.convert("RGB").tobytes()
    assert pictures.put(rows["a.gif"], tmp_path / "other") != name


def test_images_that_changed_or_vanished_are_told_and_lose_no_other(opened, some, tmp_path):
    rows, pictures = opened(some)
    (tmp_path / "photos" / "00.png").unlink()
    (tmp_path / "photos" / "01.png").write_bytes(some["02.png"])
    put = {path: pictures.put(row, tmp_path / "out") for path, row in rows.items()}
    assert [path for path, name in put.items() if name is None] == ["00.png", "01.png"]
    told = {bad.source: bad.reason for bad in pictures.skipped}
    assert "no such file" in told["00.png"] and "changed since" in told["01.png"]
    assert len(list((tmp_path / "out").iterdir())) == 10


def test_images_that_changed_or_vanished_before_are_told_too(new_run, some, tmp_path):
    run = read_run(new_run(some))
    photos = tmp_path / "photos"
    (photos / "00.png").unlink()
    (photos / "01.png").write_bytes(some["02.png"])
    (photos / "03.png").write_bytes(b"")
    (photos / "04.png").rename(photos / "moved.png")
    (photos / "05.png").rename(photos / "five.png")
    (photos / "05.png").write_bytes(some["02.png"])
    pictures = open_pictures(run)
    put = [pictures.put(row, tmp_path / "out") for row in run.rows()]
    told = {bad.source: bad.reason for bad in pictures.skipped}
    assert told == {
        "00.png": "not found",
        "01.png": "its bytes have changed since it was labelled",
        "03.png": "zero bytes",
    }
    assert {"04.png", "05.png"} <= set(put)  # the same bytes, under another name
    assert (tmp_path / "out" / "05.png").read_bytes() == some["05.png"]


def test_links_point_to_the_images(opened, some, tmp_path):
    rows, pictures = opened(some, link=True)
    name = pictures.put(rows["05.png"], tmp_path / "out")
    link = tmp_path / "out" / name
    assert link.is_symlink() and link.readlink() == tmp_path / "photos" / "05.png"
    assert link.read_bytes() == some["05.png"]


def test_a_link_cannot_turn_a_gif_into_a_png(opened, pictures_of, some, tmp_path):
    rows, pictures = opened({**some, "a.gif": pictures_of(50, "GIF")}, link=True)
    assert pictures.put(rows["a.gif"], tmp_path / "out", OF_TORCHVISION) is None
    assert "leave out --link" in pictures.skipped[0].reason
    assert pictures.put(rows["a.gif"], tmp_path / "out") == "a.gif"


def test_links_need_files(new_run, some, shard, tmp_path):
    run = read_run(new_run({}, spec=shard(tmp_path / "s.tar", some)))
    with pytest.raises(ValueError, match=r"s\.tar::00\.png' lies inside a shard or a table"):
        open_pictures(run, link=True)
    assert open_pictures(run).put(next(run.rows()), tmp_path / "out") == "00.png"


def test_a_table_of_paths_can_be_linked(new_run, some, tmp_path):
    new_run(some, name="first")
    lines = ["image", *(f"photos/{name}" for name in some)]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    run = read_run(new_run({}, spec=tmp_path / "t.csv"))
    name = open_pictures(run, link=True).put(next(run.rows()), tmp_path / "out")
    assert (tmp_path / "out" / name).read_bytes() == some["00.png"]


def test_a_full_disk_is_no_fault_of_an_image(opened, some, tmp_path, monkeypatch):
    rows, pictures = opened(some)
    real = Path.open

    def full(self, mode="r", *arguments, **options):
        if "x" in mode:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match="No space left"):
        pictures.put(rows["00.png"], tmp_path / "out")
    assert pictures.skipped == []


def test_progress_is_told(new_run, some):
    heard = []
    run = read_run(new_run(some))
    pictures = open_pictures(run)
    pictures.total, pictures.on_progress = 12, lambda *told: heard.append(told)
    for row in run.rows():
        pictures.read(row)
    assert heard == [(i, 12) for i in range(1, 13)]
