"""Folders, the draw of a split, and paths that stay inside."""

import hashlib
from dataclasses import replace

import pytest

from nameonly.datasets.layouts import ClassFolders, DrawnSplit, Folder
from nameonly.datasets.reading import open_dataset
from nameonly.sources.locations import FileLocation


@pytest.mark.parametrize(
    "path",
    [
        "../a.jpg", "a/../../b.jpg", "a/..", "/etc/passwd", "//a/b.jpg", "C:/a.jpg", "C:a.jpg",
        r"..\a.jpg", r"a\..\..\b.jpg", r"\a.jpg", "a\0.jpg",
    ],
)  # fmt: skip
def test_no_path_leads_out(tmp_path, path):
    with pytest.raises(ValueError, match="leads out of the data set's folder"):
        Folder(tmp_path, tmp_path).row(path, "k")


def test_a_path_is_kept_below_the_base(tmp_path):
    row = Folder(tmp_path, tmp_path / "in").row("./a//b..c/d.jpg", "k")
    assert row == ("a/b..c/d.jpg", FileLocation(f"{tmp_path}/in/a/b..c/d.jpg"), "k")


def test_files_are_found_below_the_base_first(tmp_path):
    (tmp_path / "in").mkdir()
    folder = Folder(tmp_path, tmp_path / "in")
    assert folder.find("f.txt") is None
    (tmp_path / "f.txt").write_text("outer")
    assert folder.file("f.txt") == tmp_path / "f.txt"
    (tmp_path / "in/f.txt").write_text("\n inner \n\n")
    assert list(folder.lines("f.txt")) == [("f.txt, line 2", "inner")]
    with pytest.raises(ValueError, match=r"there is no file g.txt"):
        folder.file("g.txt")


def test_class_folders_hold_images_alone(tmp_path):
    for path in ("b/2.JPEG", "b/1.png", "b/notes.txt", "b/.hidden.jpg", "a/x/deep.jpg", "top.jpg"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    for folder in (".git", "__MACOSX", "skip"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.jpg").touch()
    classes = Folder(tmp_path, tmp_path).class_folders("", ignored=("skip",))
    assert {k: [r.source for r in rows] for k, rows in classes.items()} == {
        "b": ["b/1.png", "b/2.JPEG"]
    }
    with pytest.raises(ValueError, match="there is no folder train"):
        ClassFolders(train="train", test="").read(Folder(tmp_path, tmp_path))
    with pytest.raises(ValueError, match="b holds no folder with images"):
        Folder(tmp_path, tmp_path).class_folders("b")


def test_the_draw_is_by_hash_of_class_and_file(build):
    description, m = build("caltech101")
    dataset = open_dataset(description, m.root)
    top = "101_ObjectCategories"
    for folder in ("airplanes", "windsor_chair"):
        names = [f"{folder}/image_{i:04d}.jpg" for i in range(5)]
        first = sorted(names, key=lambda n: hashlib.sha256(n.encode()).hexdigest())[:2]
        drawn = [r.source for r in dataset.listing.train if folder in r.source]
        assert drawn == sorted(f"{top}/{name}" for name in first)
        others = [r.source for r in dataset.listing.test if folder in r.source]
        assert others == sorted(f"{top}/{name}" for name in set(names) - set(first))


def test_the_draw_does_not_depend_on_the_place_or_on_other_classes(build, tmp_path):
    here, m = build("resisc45", tmp_path / "here")
    there, other = build("resisc45", tmp_path / "there")
    for i in range(5):
        other.image(f"NWPU-RESISC45/beach/beach_{i}.jpg", "beach")
    one = open_dataset(here, m.root).listing.train
    two = open_dataset(there, other.root / "NWPU-RESISC45", check_counts=False).listing.train
    assert [r.source for r in one] == [r.source for r in two if "beach" not in r.source]


def test_the_leak_has_the_test_of_the_clean_split(build, tmp_path):
    clean, m = build("eurosat")
    leaking = replace(clean, layout=replace(clean.layout, leak=True), n_train=50)
    a, b = open_dataset(clean, m.root).listing, open_dataset(leaking, m.root).listing
    assert [r.source for r in a.test] == [r.source for r in b.test]
    assert sorted(r.source for r in b.train) == sorted(r.source for r in (*a.train, *a.test))


def test_a_class_that_is_too_small_for_the_draw(build, refuse):
    description, m = build("resisc45")
    for i in (1, 2, 3):
        (m.root / f"NWPU-RESISC45/railway/railway_00{i}.jpg").unlink()
    told = refuse(description, check_counts=False)
    assert "class folder railway holds 2 images; the split needs over 2" in told
    (m.root / "NWPU-RESISC45/railway/railway_003.jpg").touch()
    listing = DrawnSplit(train_per_class=2).read(Folder(m.root, m.root / "NWPU-RESISC45"))
    assert sum(row.key == "railway" for row in listing.test) == 1
