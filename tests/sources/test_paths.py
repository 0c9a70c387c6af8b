"""What the user names becomes files: each once, in order, without end in loops."""

import os
from pathlib import Path

import pytest

from nameonly.sources import paths
from nameonly.sources.paths import find_files


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def names(spec) -> list[str]:
    return [file.name for file in find_files(spec)]


def test_folder_is_read_recursively_and_sorted(tmp_path):
    touch(tmp_path, "b.jpg", "a/z.PNG", "a/b/c.TiFf", "a.webp", "x.GIF", "x.bmp", "x.tif", "y.jpeg")
    touch(
        tmp_path, ".hidden.jpg", ".git/a.jpg", "__MACOSX/a.jpg", "a/._z.png", "notes.txt", "t.csv"
    )
    found = names(tmp_path)
    assert found == sorted(found)
    assert set(found) == {
        *("b.jpg", "a/z.PNG", "a/b/c.TiFf", "a.webp"),
        *("x.GIF", "x.bmp", "x.tif", "y.jpeg"),
    }


def test_hidden_things_count_when_they_are_named(tmp_path):
    touch(tmp_path, ".cache/a.jpg", ".cache/.b.jpg")
    assert names(tmp_path / ".cache") == ["a.jpg"]
    assert names(tmp_path / ".cache" / ".b.jpg") == [str(tmp_path / ".cache" / ".b.jpg")]


def test_names_are_as_given_when_there_are_several(tmp_path, monkeypatch):
    touch(tmp_path, "one/a.jpg", "two/a.jpg", "c.jpg")
    monkeypatch.chdir(tmp_path)
    assert names("one") == names(["one/"]) == ["a.jpg"]
    assert names(["two", "one", Path("c.jpg")]) == ["c.jpg", "one/a.jpg", "two/a.jpg"]


def test_a_file_named_twice_is_read_once(tmp_path, monkeypatch):
    touch(tmp_path, "one/a.jpg", "one/b.jpg")
    monkeypatch.chdir(tmp_path)
    assert names(["one", "one/a.jpg", "./one/a.jpg", "one/*.jpg"]) == ["one/a.jpg", "one/b.jpg"]


def test_link_loops_end_and_real_folders_keep_their_names(tmp_path):
    touch(tmp_path, "root/real/a.jpg", "elsewhere/b.jpg", "elsewhere/deep/c.jpg")
    root = tmp_path / "root"
    (root / "before").symlink_to(root / "real")
    (root / "real" / "up").symlink_to(root)
    (root / "real" / "self").symlink_to(root / "real")
    (root / "out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(root)
    assert names(root) == ["out/b.jpg", "out/deep/c.jpg", "real/a.jpg"]
    assert len(names(str(root / "**" / "*.jpg"))) == 3


def test_very_deep_folders(tmp_path):
    folder = tmp_path
    for _ in range(300):
        folder = folder / "deep"
        folder.mkdir()
    (folder / "a.jpg").write_bytes(b"x")
    assert names(tmp_path) == ["deep/" * 300 + "a.jpg"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="no folder is closed to root")
def test_closed_folder_is_told(tmp_path):
    touch(tmp_path, "a.jpg", "closed/b.jpg")
    (tmp_path / "closed").chmod(0)
    try:
        closed = [file for file in find_files(tmp_path) if file.problem]
    finally:
        (tmp_path / "closed").chmod(0o755)
    assert [file.name for file in closed] == ["closed"]
    assert "cannot be listed" in closed[0].problem


def test_folder_that_cannot_be_listed_is_told(tmp_path, monkeypatch):
    """As above, for the superuser too: the system call itself refuses."""
    touch(tmp_path, "a.jpg", "closed/b.jpg")
    listing = os.scandir

    def refuse(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return listing(path)

    monkeypatch.setattr(paths, "scandir", refuse)
    expected = [("a.jpg", None), ("closed", "folder cannot be listed: Permission denied")]
    assert [(file.name, file.problem) for file in find_files(tmp_path)] == expected
    assert len(find_files(str(tmp_path / "**"))) == 2


def test_folder_without_images_gives_tables_and_shards(tmp_path):
    touch(tmp_path, "data/b.parquet", "data/a.tar", "README.md", "t.csv", ".cache/c.parquet")
    assert names(tmp_path) == ["data/a.tar", "data/b.parquet"]
    touch(tmp_path, "data/one.jpg")
    assert names(tmp_path) == ["data/one.jpg"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["top.jpg"]),
        ("*.JPG", ["UP.JPG"]),
        ("*/*.jpg", ["a/1.jpg", "b/2.jpg"]),
        ("[ab]/?.jpg", ["a/1.jpg", "b/2.jpg"]),
        ("**/*.jpg", ["a/1.jpg", "a/c/3.jpg", "b/2.jpg", "top.jpg"]),
        ("a/**/*.jpg", ["a/1.jpg", "a/c/3.jpg"]),
        ("**/c/*.jpg", ["a/c/3.jpg"]),
        ("**/c", ["a/c/3.jpg"]),
        ("a/**", ["a/1.jpg", "a/c/3.jpg"]),
        ("*/c/**/3.*", ["a/c/3.jpg"]),
        ("[ab]", ["a/1.jpg", "a/c/3.jpg", "b/2.jpg"]),
        (".h*/*.jpg", [".hidden/4.jpg"]),
        ("{a,b}/*.jpg", ["a/1.jpg", "b/2.jpg"]),
        ("*.txt", []),
        ("*.tar", ["s-1.tar"]),
        ("*", ["UP.JPG", "a/1.jpg", "a/c/3.jpg", "b/2.jpg", "top.jpg"]),
    ],
)
@pytest.mark.parametrize("absolute", [False, True])
def test_glob(tmp_path, monkeypatch, pattern, expected, absolute):
    touch(tmp_path, "top.jpg", "UP.JPG", "a/1.jpg", "b/2.jpg", "a/c/3.jpg", ".hidden/4.jpg")
    touch(tmp_path, "a/notes.txt", "s-1.tar", "top.csv")
    monkeypatch.chdir(tmp_path)
    if absolute:
        given = [Path(file.given) for file in find_files(f"{tmp_path}/{pattern}")]
        assert given == [tmp_path / name for name in expected]
    else:
        assert names(pattern) == expected


def test_magic_characters_in_real_names(tmp_path, monkeypatch):
    touch(tmp_path, "[set]/a*.jpg", "{0..3}/b.jpg")
    monkeypatch.chdir(tmp_path)
    assert names("[set]") == ["a*.jpg"]
    assert names("[set]/a*.jpg") == ["[set]/a*.jpg"]
    assert names("{0..3}") == ["b.jpg"]


def test_braces_count_with_zeros(tmp_path, monkeypatch):
    touch(
        tmp_path,
        *(f"s-{i:03}.tar" for i in range(12)),
        *(f"{s}-{i}.tar" for s in "ab" for i in "12"),
    )
    monkeypatch.chdir(tmp_path)
    assert names("s-{009..011}.tar") == ["s-009.tar", "s-010.tar", "s-011.tar"]
    assert names("{a,b}-{1..2}.tar") == ["a-1.tar", "a-2.tar", "b-1.tar", "b-2.tar"]
    with pytest.raises(ValueError, match=r"'s-012.tar' does not exist"):
        names("s-{010..012}.tar")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ([], "no source given"),
        ("", "empty path"),
        (["a.jpg", " "], "empty path"),
        ("nowhere", "'nowhere' does not exist"),
        (Path("nowhere.jpg"), "'nowhere.jpg' does not exist"),
        ("nul\0.jpg", "does not exist"),
        ("x" * 5000, "cannot be read"),
        ("notes.txt", "of no known kind"),
        ("s.tar.gz", "unpack it first"),
        ("s-{5..1}.tar", "count upwards"),
        ("s-{0..9999999999}.tar", "at most 100000"),
        ("s-{0..999}{0..999}.tar", "more than 100000"),
    ],
)
def test_errors_name_the_source(tmp_path, monkeypatch, spec, message):
    touch(tmp_path, "notes.txt", "s.tar.gz", "a.jpg")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        find_files(spec)
