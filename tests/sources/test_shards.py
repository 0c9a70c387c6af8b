"""Tar shards are read in place, by offset, whatever tar dialect wrote them."""

import gzip
import io
import shutil
import subprocess
import tarfile

import pytest
from awkward import encode, noise

from nameonly.sources.shards import list_members

JPEG = encode(noise(), "JPEG")


def write_tar(path, members: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> None:
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def read_all(path) -> dict[str, bytes | str]:
    out: dict[str, bytes | str] = {}
    for name, location in list_members(str(path)):
        try:
            out[name] = location.read()
        except OSError as error:
            out[name] = str(error)
    return out


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_read_and_sorted(tmp_path, form):
    long = "/".join(["long" * 10] * 3) + "/c.png"
    members = {"b.jpg": b"bee", long: b"sea", "a.JPEG": b"ay", "a.cls": b"7", "a.json": b"{}"}
    write_tar(tmp_path / "s.tar", members, form)
    expected = {"::a.JPEG": b"ay", "::b.jpg": b"bee", f"::{long}": b"sea"}
    assert list(read_all(tmp_path / "s.tar").items()) == list(expected.items())


def test_names_are_only_names(tmp_path):
    names = ["../../up.jpg", "/etc/rooted.jpg", "./here.jpg", "größe 🐟.jpg"]
    write_tar(tmp_path / "s.tar", dict.fromkeys(names, b"x"))
    before = sorted(tmp_path.rglob("*"))
    assert set(read_all(tmp_path / "s.tar")) == {f"::{name}" for name in names}
    assert sorted(tmp_path.rglob("*")) == before


def test_hidden_members_and_folders_are_left_out(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for name in ("._a.jpg", "__MACOSX/a.jpg", ".git/a.jpg", "folder.jpg/a.txt", "good.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 1
            archive.addfile(info, io.BytesIO(b"x"))
        folder = tarfile.TarInfo("folder.jpg")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    assert read_all(tmp_path / "s.tar") == {"::good.jpg": b"x"}


def test_same_name_twice_gives_two_rows(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for data in (b"one", b"two"):
            info = tarfile.TarInfo("a.jpg")
            info.size = 3
            archive.addfile(info, io.BytesIO(data))
    rows = list_members(str(tmp_path / "s.tar"))
    assert [(name, location.read()) for name, location in rows] == [
        ("::a.jpg", b"one"),
        ("::a.jpg", b"two"),
    ]


def test_links_and_empty_members_are_told(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for name, kind in (("soft.jpg", tarfile.SYMTYPE), ("pipe.jpg", tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        archive.addfile(tarfile.TarInfo("empty.jpg"))
    told = read_all(tmp_path / "s.tar")
    assert "not a regular file" in told["::soft.jpg"]
    assert "not a regular file" in told["::pipe.jpg"]
    assert told["::empty.jpg"] == "zero bytes"


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs the tar program")
@pytest.mark.parametrize("form", ["gnu", "posix"])
@pytest.mark.parametrize("ends_in_data", [False, True])
def test_sparse_member(tmp_path, form, ends_in_data):
    with (tmp_path / "holes.jpg").open("wb") as file:
        for start in (0, 1 << 20, 3 << 20):
            file.seek(start)
            file.write(bytes([1 + start % 251]) * 4096)
        if not ends_in_data:
            file.truncate(4 << 20)
    command = ["tar", "-S", f"--format={form}", "-cf", "s.tar", "holes.jpg"]
    if subprocess.run(command, cwd=tmp_path, capture_output=True).returncode:
        pytest.skip("this tar program writes no sparse members")
    assert (tmp_path / "s.tar").stat().st_size < 1 << 20, "no hole was stored as a hole"
    assert read_all(tmp_path / "s.tar") == {"::holes.jpg": (tmp_path / "holes.jpg").read_bytes()}


def test_cut_shard_keeps_what_came_before(tmp_path):
    write_tar(tmp_path / "s.tar", {"a.jpg": JPEG, "b.jpg": JPEG, "c.jpg": JPEG})
    whole = (tmp_path / "s.tar").read_bytes()
    at = whole.index(b"b.jpg") + 512 + 100
    (tmp_path / "s.tar").write_bytes(whole[:at])
    told = read_all(tmp_path / "s.tar")
    assert told["::a.jpg"] == JPEG
    assert "the shard ends after 100 of" in told["::b.jpg"]
    assert "unexpected end of data" in told[""]


def test_negative_size_ends(tmp_path):
    """A header whose size is negative sends a reader back to where it was, for ever."""
    write_tar(tmp_path / "s.tar", {"a.jpg": JPEG, "b.jpg": b"x"})
    data = bytearray((tmp_path / "s.tar").read_bytes())
    at = data.index(b"b.jpg")
    data[at + 124 : at + 136] = (-2048).to_bytes(12, "big", signed=True)
    checksum = sum(data[at : at + 512]) - sum(data[at + 148 : at + 156]) + 8 * 32
    data[at + 148 : at + 156] = f"{checksum:06o}\0 ".encode()
    (tmp_path / "s.tar").write_bytes(data)
    told = read_all(tmp_path / "s.tar")
    assert told["::a.jpg"] == JPEG
    assert "not an uncompressed tar shard" in told[""]


# named: bytes as names must be the same in every process that collects the tests
@pytest.mark.parametrize(
    "data",
    [b"text" * 300, gzip.compress(bytes(10240), mtime=0), b"\xff" * 512],
    ids=["text", "gzip", "ones"],
)
def test_not_a_tar(tmp_path, data):
    (tmp_path / "s.tar").write_bytes(data)
    ((name, location),) = list_members(str(tmp_path / "s.tar"))
    assert name == ""
    with pytest.raises(OSError, match="not an uncompressed tar shard"):
        location.read()


def test_empty_shard_file_is_an_error(tmp_path):
    (tmp_path / "s.tar").touch()
    with pytest.raises(OSError, match="zero bytes"):
        list_members(str(tmp_path / "s.tar"))


def test_shard_that_shrinks_or_vanishes_is_an_error(tmp_path):
    write_tar(tmp_path / "s.tar", {"a.jpg": JPEG})
    ((_, location),) = list_members(str(tmp_path / "s.tar"))
    (tmp_path / "s.tar").write_bytes(b"short")
    with pytest.raises(OSError, match="ends after 0"):
        location.read()
    (tmp_path / "s.tar").unlink()
    with pytest.raises(FileNotFoundError):
        location.read()
