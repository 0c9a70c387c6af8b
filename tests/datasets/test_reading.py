"""Every data set in miniature is read as its makers publish it; what is wrong is said."""

from dataclasses import fields, replace
from pathlib import Path

import miniatures
import numpy as np
import pyarrow.parquet as pq
import pytest

from nameonly.datasets.reading import Dataset, Split, describe, names, open_dataset
from nameonly.images import load
from nameonly.sources.decoding import decode
from nameonly.tiny.digits import load_digits_images
from nameonly.types import ImageSet

ON_DISK = [name for name in names() if name != "digits"]
# their class names are written in the description, and a miniature has images of a few alone
FEW_OF_MANY = {"cifar10", "cifar10_binary", "flowers102", "mnist"}
USER_FOLDER = Path(__file__).parents[3] / "shared" / "data"


def seen(dataset, split):
    """Return colour -> class name, from decoded pixels and y_true."""
    class_names = dataset.label_space.class_names
    return {
        load(split.images, row).getpixel((0, 0))[0]: class_names[y]
        for row, y in enumerate(split.y_true)
    }


def test_every_data_set_has_a_miniature():
    assert all(callable(getattr(miniatures, name)) for name in ON_DISK)


@pytest.mark.parametrize("name", ON_DISK)
def test_miniature(build, name):
    description, m = build(name)
    check = name not in FEW_OF_MANY
    dataset = open_dataset(description, m.root, check_counts=check)
    train, test = seen(dataset, dataset.train), seen(dataset, dataset.test)
    if "drawn" in m.truth:
        assert train | test == m.truth["drawn"]
        assert bool(train.keys() & test.keys()) is description.layout.leak
    else:
        assert (train, test) == (m.truth["train"], m.truth["test"])
    if check:
        assert dataset.label_space.class_names == tuple(m.classes)
        assert len(dataset.train.images) == len(dataset.train.y_true) == description.n_train
        assert len(dataset.test.images) == description.n_test
    else:
        assert set(m.classes) <= set(dataset.label_space.class_names)
        assert len(dataset.label_space) == describe(name).n_classes
    assert dataset.label_space.templates == ("a photo of a {}",)


@pytest.mark.parametrize("name", ON_DISK)
def test_published_numbers_are_demanded(build, refuse, name):
    _, m = build(name)
    description = describe(name)
    if hasattr(description.layout, "ignored"):  # it would need more images than there are
        return
    told = refuse(name, m.root)
    assert f"found, {description.n_test:,} expected" in told
    assert (f"found, {description.n_train:,} expected" in told) is (description.n_train > 0)
    if name not in FEW_OF_MANY and "eurosat" not in name:
        assert f"found, {description.n_classes:,} expected" in told
    assert told.startswith(f"{name} in {m.root}") and description.home in told
    assert open_dataset(name, m.root, check_counts=False).name == name


@pytest.mark.parametrize("name", ON_DISK)
def test_an_empty_folder_lists_what_is_missing(tmp_path, refuse, name):
    told, description = refuse(name), describe(name)
    assert "are not there: " in told or "holds no folder with images" in told
    for file in description.files:
        assert file in told
    assert description.home in told and f"{description.n_test:,} test images" in told


def test_half_a_folder_names_the_other_half(build, refuse):
    description, m = build("dtd")
    (m.root / "dtd/labels/val1.txt").unlink()
    (m.root / "dtd/labels/test1.txt").unlink()
    told = refuse(description)
    assert "2 of 4 files and folders are not there: labels/val1.txt, labels/test1.txt" in told
    assert "expected images/<image>, labels/train1.txt" in told
    assert "(in dtd, or at the top), with 2 classes, 6 training and 2 test images" in told
    assert "get it from https://www.robots.ox.ac.uk/~vgg/data/dtd/" in told


def test_the_archives_top_folder_may_be_named_itself(build):
    description, m = build("food101")
    inner = open_dataset(description, m.root / "food-101")
    assert inner.test.images.sources == open_dataset(description, m.root).test.images.sources
    assert inner.test.images.sources == (
        "images/apple_pie/101.jpg",
        "images/beef_tartare/101.jpg",
    )


@pytest.mark.parametrize(
    ("root", "message"),
    [(None, "needs its folder"), ("gone", "does not exist"), ("f", "no folder")],
)
def test_no_folder(tmp_path, refuse, root, message):
    (tmp_path / "f").touch()
    told = refuse("dtd", root and tmp_path / root)
    assert message in told and "labels/train1.txt" in told and "vgg/data/dtd" in told


def test_unknown_names(refuse):
    assert "did you mean 'eurosat'? there are: caltech101, " in refuse("eurosatt")
    assert "templates is protocol or customary, got 'mine'" in refuse("dtd", templates="mine")


def test_images_that_lists_name_and_are_not_there(build, refuse):
    description, m = build("food101")
    for path in (m.root / "food-101/images/apple_pie").iterdir():
        path.unlink()
    told = refuse(description)
    assert "3 images not there: images/apple_pie/100.jpg, images/apple_pie/102.jpg, " in told
    (m.root / "food-101/images/apple_pie").rmdir()
    assert "3 images not there" in refuse(description, check_counts=False)
    for path in (m.root / "food-101/images/beef_tartare").iterdir():
        path.unlink()
    assert "6 images not there" in refuse(description) and " and 1 more" in refuse(description)


def test_listed_twice_and_in_both_splits(build, refuse):
    description, m = build("food101")
    m.text("food-101/meta/train.txt", "apple_pie/100", "apple_pie/101", "apple_pie/100")
    told = refuse(description, check_counts=False)
    assert "1 training image listed twice: images/apple_pie/100.jpg" in told
    assert "1 image in both splits: images/apple_pie/101.jpg" in told


def test_classes_too_many_and_too_few(build, refuse):
    description, m = build("eurosat")
    for i in range(3):
        m.image(f"EuroSAT_RGB/Desert/Desert_{i}.jpg", "desert")
    told = refuse(description, check_counts=False)
    assert "1 class that the data set has not: 'Desert' (3 images)" in told
    for path in (m.root / "EuroSAT_RGB/Desert").iterdir():
        path.unlink()
    for path in (m.root / "EuroSAT_RGB/River").iterdir():
        path.unlink()
    told = refuse(description)
    assert "1 class without images: river" in told
    assert "27 training images found, 30 expected; 18 test images found, 20 expected" in told


def test_a_class_folder_too_many_without_a_list(build, refuse):
    description, m = build("resisc45")
    for i in range(3):
        m.image(f"NWPU-RESISC45/canal/canal_{i}.jpg", "canal")
    assert "4 classes found, 3 expected" in refuse(description)


def test_one_class_too_few_says_class_in_the_singular(build, refuse):
    description, _ = build("dtd_coop")
    assert "2 classes found, 1 expected" in refuse(replace(description, n_classes=1))
    assert "4 training images found, 5 expected" in refuse(replace(description, n_train=5))


def test_images_that_cannot_be_read(build):
    description, m = build("dtd")
    (m.root / "dtd/images/banded/banded_0002.jpg").write_bytes(b"")
    dataset = open_dataset(description, m.root)
    assert len(dataset.train.images) == 6
    with pytest.raises(
        ValueError, match=r"dtd: 1 image cannot be read: images/banded/.*zero bytes"
    ):
        _ = dataset.test


def test_repeated_class_names(build, refuse):
    description, m = build("food101")
    m.text("food-101/meta/classes.txt", "apple_pie", "beef_tartare", "Apple pie")
    assert "class names repeat" in refuse(description)


def test_no_image_is_read_before_it_is_asked_for(build):
    description, m = build("dtd")
    calls = []
    dataset = open_dataset(description, m.root, on_progress=lambda *call: calls.append(call))
    assert calls == []
    _ = dataset.test, dataset.test
    assert calls == [(2, 2)]


def test_equal_images_keep_their_rows(build):
    description, m = build("dtd")
    first = (m.root / "dtd/images/banded/banded_0000.jpg").read_bytes()
    (m.root / "dtd/images/polka-dotted/polka-dotted_0000.jpg").write_bytes(first)
    train = open_dataset(description, m.root).train
    assert len(train.images) == 6 and len(set(train.images.ids)) == 5
    same = [
        y for y, i in zip(train.y_true, train.images.ids, strict=True) if i == train.images.ids[0]
    ]
    assert same == [0, 1]


def test_truth_lies_beside_the_images(build):
    description, m = build("dtd")
    train = open_dataset(description, m.root).train
    assert {f.name for f in fields(ImageSet)} == {"sources", "ids", "locations"}
    assert train.y_true.dtype == np.int64
    with pytest.raises(ValueError, match="1 labels for 6 images"):
        Split(train.images, train.y_true[:1])


def test_what_a_data_set_says_of_itself(build):
    description, m = build("dtd")
    dataset = open_dataset(description, str(m.root), templates="customary")
    assert isinstance(dataset, Dataset)
    assert dataset.label_space.templates == ("{} texture.",)
    assert dataset.templates == {"protocol": ("a photo of a {}",), "customary": ("{} texture.",)}
    assert (dataset.licence, dataset.home) == (description.licence, description.home)


def test_digits():
    dataset = open_dataset("digits")
    assert dataset.label_space.class_names[:3] == ("zero", "one", "two")
    assert (len(dataset.train.images), len(dataset.test.images)) == (898, 899)
    sources = dataset.train.images.sources + dataset.test.images.sources
    assert sorted(sources) == [f"digit-{i:04d}" for i in range(1797)]
    pictures, labels, ids = load_digits_images()
    for split in (dataset.train, dataset.test):
        row = 5
        i = ids.index(split.images.sources[row])
        assert load(split.images, row).tobytes() == pictures[i].convert("RGB").tobytes()
        assert [labels[ids.index(s)] for s in split.images.sources] == split.y_true.tolist()


needs_tables = pytest.mark.skipif(
    not (USER_FOLDER / "cifar10_train.parquet").is_file(),
    reason="the CIFAR-10 table is not beside the repository",
)


@needs_tables
def test_cifar10_of_the_users_folder():
    dataset = open_dataset("cifar10", USER_FOLDER)
    for rows, n in ((dataset.listing.train, 5000), (dataset.listing.test, 1000)):
        counts = np.bincount([dataset.columns[row.key] for row in rows])
        assert counts.tolist() == [n] * 10
        assert decode(rows[-1].location.read()).size == (32, 32)


@needs_tables
@pytest.mark.slow
def test_cifar10_is_read_and_hashed():
    dataset = open_dataset("cifar10", USER_FOLDER)
    table = pq.read_table(USER_FOLDER / "cifar10_test.parquet")
    names = [dataset.label_space.class_names[y] for y in dataset.test.y_true]
    assert names == table.column("label").to_pylist()
    data = table.column("image")[4_321].as_py()
    assert load(dataset.test.images, 4_321).tobytes() == decode(data).tobytes()
