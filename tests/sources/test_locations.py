"""A file is looked at before it is opened; each problem has one readable reason."""

import os
import pickle

import pytest

from nameonly.sources import locations
from nameonly.sources.locations import FileLocation, Unreadable, check_bytes, check_regular, reason
from nameonly.types import Location


def why(location: Location) -> str:
    with pytest.raises(OSError) as caught:
        location.read()
    return reason(caught.value)


def test_bytes_of_a_file(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\0\xff bytes")
    location = FileLocation(str(tmp_path / "a.jpg"))
    assert location.read() == b"\0\xff bytes"
    assert pickle.loads(pickle.dumps(location)) == location


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone.jpg", "no such file"),
        ("empty.jpg", "zero bytes"),
        ("folder.jpg", "not a regular file"),
        ("pipe.jpg", "not a regular file"),
        ("nul\0.jpg", "not a path"),
        ("empty.jpg/inside.jpg", "Not a directory"),
        ("x" * 300 + ".jpg", "File name too long"),
    ],
)
def test_reasons(tmp_path, name, message):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    told = why(FileLocation(f"{tmp_path}/{name}"))
    assert message in told
    assert str(tmp_path) not in told


def test_size_limits(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(bytes(11))
    monkeypatch.setattr(locations, "MAX_BYTES", 10)
    assert why(FileLocation(str(tmp_path / "a.jpg"))).startswith("11 bytes")
    check_bytes(10)
    for size in (0, 11):
        with pytest.raises(OSError, match=r"zero|11"):
            check_bytes(size)


def test_stamp_changes_with_the_file(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"one")
    before = check_regular(str(path))
    assert check_regular(str(path)) == before
    path.write_bytes(b"longer")
    assert check_regular(str(path)) != before


def test_known_problem_is_raised():
    assert why(Unreadable("because")) == "because"
