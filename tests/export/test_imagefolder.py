import csv
import gc
import json

import datasets
import pytest
from torchvision.datasets import ImageFolder

from nameonly.export.labelled import read_run

NASTY = ("../x", "con", "a/b", "<script>", "cat", "Cat ")


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")


def test_torchvision_reads_it(new_run, some, exported):
    folder = new_run(some, ("dog", "cat"), abstained=(3, 7))
    place, found = exported(folder, "imagefolder")
    assert (found["exported"], found["abstained"], found["sources"]) == (10, 2, 12)
    read = ImageFolder(place)
    assert read.classes == ["cat", "dog"]
    label = {row.path: row.label for row in read_run(folder).rows()}
    for path, index in read.samples:
        assert label[path.rsplit("/", 1)[1]] == read.classes[index]
    assert len(read) == 10 and read[0][0].size == (9, 6)


def test_class_names_cannot_leave_the_folder(new_run, some, exported, tmp_path):
    place, found = exported(new_run(some, NASTY), "imagefolder")
    assert found["exported"] == 12 == len(ImageFolder(place))
    files = [p for p in tmp_path.rglob("*.png") if "photos" not in p.parts]
    assert len(files) == 12 and all(p.parent.parent == place for p in files)
    classes = json.loads((place / "classes.json").read_text())
    assert [c["name"] for c in classes] == list(NASTY) and classes[4]["folder"] == "cat"
    assert [c["index"] for c in classes] == list(range(6))
    by_folder = {c["folder"]: c["name"] for c in classes}
    with (place / "metadata.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            assert by_folder[row["file_name"].split("/")[0]] == row["label"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # datasets' own
def test_metadata_is_what_hugging_face_reads_beside_the_images(new_run, some, exported, tmp_path):
    folder = new_run(some)
    place, _ = exported(folder, "imagefolder")
    read = datasets.load_dataset(
        "imagefolder", data_dir=str(place), split="train", cache_dir=str(tmp_path / "hf")
    )
    rows = {row.path: row for row in read_run(folder).rows()}
    assert len(read) == 12
    for got in read:
        want = rows[got["path"]]
        assert (got["label"], got["runner_up"]) == (want.label, want.runner_up)
        assert got["confidence"] == pytest.approx(want.confidence, abs=1e-8)
        assert got["probability"] == pytest.approx(want.probability, abs=1e-8)
        assert (got["recipe"], got["backbone"], got["nameonly"]) == ("zero_shot", "tiny", "9.8.7")
        assert got["image"].size == (9, 6)
    del read, got
    gc.collect()  # it leaves a file open; the warning shall come here


def test_links_are_read_as_well(new_run, some, exported, tmp_path):
    place, _ = exported(new_run(some), "imagefolder", link=True)
    read = ImageFolder(place)
    assert len(read) == 12 and all((tmp_path / "photos").is_dir() for _ in read)
    assert all(p.is_symlink() for p in place.rglob("*.png"))


def test_equal_names_from_several_folders_stay_apart(new_run, pictures_of, exported):
    files = {
        f"{c}/{n}.png": pictures_of(i) for i, (c, n) in enumerate(zip("abcd", "1112", strict=True))
    }
    place, found = exported(new_run(files), "imagefolder")
    assert found["exported"] == 4 == len(list(place.rglob("*.png")))


def test_shards_and_tables_are_unpacked(new_run, some, shard, exported, tmp_path):
    folder = new_run({}, spec=shard(tmp_path / "s.tar", some))
    place, _ = exported(folder, "imagefolder")
    got = {p.name: p.read_bytes() for p in place.rglob("*.png")}
    assert got == some
