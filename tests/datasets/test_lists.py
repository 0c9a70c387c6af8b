"""Broken and hostile split files."""

import json

import pytest


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("banded_0000.jpg", "labels/train1.txt, line 2: 'banded_0000.jpg' is not of the form "),
        ("../../x.jpg", "labels/train1.txt, line 2: the path 'images/../../x.jpg' leads out"),
        ("banded/../../../x.jpg", "line 2: the path 'images/banded/../../../x.jpg' leads out"),
    ],
)
def test_lines(build, refuse, line, message):
    description, m = build("dtd")
    m.text("dtd/labels/train1.txt", "banded/banded_0000.jpg", line)
    assert message in refuse(description)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe"])
def test_lists_that_are_no_text(build, refuse, content):
    description, m = build("dtd")
    (m.root / "dtd/labels/train1.txt").write_bytes(content)
    told = refuse(description)
    assert "train1.txt is empty" in told or "is not UTF-8" in told
    assert told.startswith("dtd in ") and "get it from" in told


@pytest.mark.parametrize("line", ["/../a/sun.jpg", "//etc/x/passwd"])
def test_sun397_keeps_inside_though_its_lines_begin_with_a_slash(build, refuse, line):
    description, m = build("sun397")
    m.text("Training_01.txt", line)
    told = refuse(description, check_counts=False)
    assert "leads out" in told or "image not there: SUN397/etc/x/passwd" in told


@pytest.mark.parametrize(
    ("file", "lines", "message"),
    [
        ("images.txt", ["1 a/b.jpg"], "number 1, 6 and 6 images, not the same ones"),
        ("images.txt", [f"{i} x.jpg" for i in range(2, 8)], "6, 6 and 6 images, not the same"),
        ("images.txt", ["1"], "images.txt, line 1: '1' is not of the form 'number value'"),
        ("images.txt", ["1 a.jpg", "1 b.jpg"], "images.txt, line 2: '1 b.jpg' is not"),
        ("train_test_split.txt", [f"{i} 2" for i in range(1, 7)], "image 1 is '2', not 0 or 1"),
        (
            "images.txt",
            [f"{i} ../../x.jpg" for i in range(1, 7)],
            "images.txt: the path 'images/..",
        ),
        ("image_class_labels.txt", [f"{i} 3" for i in range(1, 7)], "has not: '3' (6 images)"),
    ],
)
def test_numbered_lists(build, refuse, file, lines, message):
    description, m = build("cub200")
    m.text(f"CUB_200_2011/{file}", *lines)
    assert message in refuse(description)


GOOD = ["banded/0_0.jpg", 0, "banded"]


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ([], "has no list 'train' of [path, label, class name]"),
        ({"train": [GOOD]}, "has no list 'test' of"),
        ({"train": [["a.jpg", "0", "b"]], "test": []}, "train image 1: ['a.jpg', '0', 'b'] is no"),
        ({"train": [["a.jpg", 0]], "test": []}, "is no [path, label, class name]"),
        ({"train": [GOOD, ["b.jpg", 0, "dotted"]], "test": []}, "class 0 is 'dotted' here"),
        ({"train": [["../../b.jpg", 0, "banded"]], "test": []}, "train image 1: the path"),
        ({"train": [GOOD], "test": [["banded/9.jpg", 0, "banded"]]}, "1 image not there: images"),
        ({"train": [GOOD], "test": [GOOD]}, "1 image in both splits"),
    ],
)  # fmt: skip
def test_coop_split_files(build, refuse, split, message):
    description, m = build("dtd_coop")
    m.text("split_zhou_DescribableTextures.json", json.dumps(split))
    assert message in refuse(description, check_counts=False)


def test_a_split_file_that_is_no_json(build, refuse):
    description, m = build("dtd_coop")
    m.text("split_zhou_DescribableTextures.json", "{")
    assert "is not valid JSON: line " in refuse(description)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": [{"file_name": "x.zip@airplane/airplane_009.jpg"}]}, "1 image not there"),
        ({"images": [{"file_name": "x.zip@airplane_000.jpg"}]}, "is not of the form archive@"),
        ({"images": [{"file_name": "x.zip@../x.jpg"}]}, "train.json, image 1: the path '../x.jpg'"),
        ({"images": [{"name": "x"}]}, "train.json, image 1 has no file_name"),
        ({"images": {}}, "train.json has no list of images"),
        ([], "train.json has no list of images: '[]'"),
    ],
)  # fmt: skip
def test_elevater_lists(build, refuse, content, message):
    description, m = build("resisc45_elevater")
    m.text("train.json", json.dumps(content))
    assert message in refuse(description, check_counts=False)
