import pytest
from torchvision.datasets import ImageFolder

from nameonly.export.labelled import read_run
from nameonly.export.ultralytics import sides


@pytest.fixture
def many(pictures_of):
    return {f"{i:03d}.png": pictures_of(i) for i in range(200)}


def folders(place):
    return {side: ImageFolder(place / side, allow_empty=True) for side in ("train", "val")}


def test_both_sides_number_the_classes_alike(new_run, many, exported):
    names = ("dog", "cat", "nothing is ever this")
    folder = new_run(many, names)
    place, found = exported(folder, "ultralytics")
    read = folders(place)
    assert read["train"].class_to_idx == read["val"].class_to_idx and len(read["val"].classes) == 3
    assert {s: len(read[s]) for s in read} == {s: found[s] for s in read}
    assert found["exported"] == 200 and 8 <= found["val"] <= 35 and found["notes"] == []
    label = {row.path: row.label for row in read_run(folder).rows()}
    for side in read.values():
        for path, index in side.samples:
            assert label[path.rsplit("/", 1)[1]] == side.classes[index]


def test_an_image_stays_on_its_side(new_run, many, some):
    """When others come or go; and its copies are with it."""
    run = read_run(new_run({**many, "copy.png": many["007.png"]}))
    first, again = sides(run, 0.1), sides(run, 0.1)
    assert first == again and len(first) == 200
    fewer = sides(run.at_least(0.7), 0.1)
    assert 0 < len(fewer) < 200
    moved = [i for i, side in fewer.items() if first[i] != side]
    assert moved == []
    larger = sides(run, 0.5)
    assert all(larger[i] == "val" for i, side in first.items() if side == "val")
    assert 70 < list(larger.values()).count("val") < 130


def test_a_small_class_is_on_both_sides(new_run, pictures_of, exported):
    files = {f"{i}.png": pictures_of(i) for i in range(6)}
    run = read_run(new_run(files))
    for share in (0.001, 0.999):
        found = sides(run, share)
        for name in run.class_names:
            ids = {row.id for row in run.rows() if row.label == name}
            assert len(ids) < 2 or {found[i] for i in ids} == {"train", "val"}
    (tmp,) = run.at_least(sorted(row.confidence for row in run.rows())[-1]).rows()
    assert sides(run.at_least(tmp.confidence), 0.999) == {tmp.id: "train"}


def test_what_the_split_lacks_is_noted(new_run, pictures_of, exported, tmp_path):
    _, found = exported(new_run({"a.png": pictures_of(0)}), "ultralytics")
    assert found["val"] == 0 and "no image fell into val" in found["notes"][0]


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0])
def test_a_share_lies_between_none_and_all(new_run, some, exported, share):
    with pytest.raises(ValueError, match="--val-share must lie between 0 and 1"):
        exported(new_run(some), "ultralytics", val_share=share)
