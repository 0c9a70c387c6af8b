"""Files that hold many images: pixels come out as they went in; cut files are refused."""

import gzip
import pickle
import struct
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nameonly.datasets.packed import MemoryLocation, PixelLocation
from nameonly.datasets.reading import open_dataset
from nameonly.images import load
from nameonly.sources.decoding import decode


@pytest.mark.parametrize("packed", [False, True])
def test_planes_and_rows_come_out_in_order(tmp_path, packed):
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (3, 4, 5), np.uint8)
    grey = rng.integers(0, 256, (1, 2, 3), np.uint8)
    path = tmp_path / ("f.gz" if packed else "f")
    raw = b"head" + colour.tobytes() + grey.tobytes()
    path.write_bytes(gzip.compress(raw) if packed else raw)
    image = decode(PixelLocation(str(path), 4, (3, 4, 5)).read())
    assert np.array_equal(np.asarray(image), colour.transpose(1, 2, 0))
    image = decode(PixelLocation(str(path), 64, (1, 2, 3)).read())
    assert np.array_equal(np.asarray(image), grey[0][:, :, None].repeat(3, axis=2))
    late = PixelLocation(str(path), 65, (1, 2, 3))
    with pytest.raises(OSError, match="ends after 5 of the image's 6 bytes"):
        late.read()
    assert pickle.loads(pickle.dumps(late)) == late


def test_ids_follow_from_the_pixels_alone(tmp_path):
    (tmp_path / "f").write_bytes(bytes(range(12)))
    data = PixelLocation(str(tmp_path / "f"), 0, (3, 2, 2)).read()
    # A BMP is a header and raw rows from the bottom up, blue first, each filled to four bytes.
    header = b"BM" + struct.pack("<3I", 70, 0, 54)
    header += struct.pack("<3I2H6I", 40, 2, 2, 1, 24, 0, 16, 3780, 3780, 0, 0)
    body = bytes([10, 6, 2, 11, 7, 3, 0, 0, 8, 4, 0, 9, 5, 1, 0, 0])
    assert data == header + body


def test_a_file_that_vanishes(tmp_path):
    with pytest.raises(OSError):
        PixelLocation(str(tmp_path / "f"), 0, (1, 1, 1)).read()
    assert MemoryLocation(b"abc").read() == b"abc"


def test_mnist_in_its_three_spellings(build):
    description, m = build("mnist")
    dataset = open_dataset(description, m.root, check_counts=False)
    assert dataset.train.y_true.tolist() == [5, 0, 4]
    assert dataset.test.y_true.tolist() == [7, 2]
    assert dataset.test.images.sources[1] == "t10k-images-idx3-ubyte#1"
    assert load(dataset.test.images, 1).size == (28, 28)
    folder = m.root / "MNIST/raw"
    name = folder / "train-labels.idx1-ubyte"
    (folder / "train-labels.idx1-ubyte.gz").write_bytes(gzip.compress(name.read_bytes()))
    name.unlink()
    dataset = open_dataset(description, folder, check_counts=False)
    assert dataset.train.y_true.tolist() == [5, 0, 4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b[:-1], "states 3 x 28 x 28 bytes and holds 2,351; it was cut short"),
        (lambda b: b + b"x", "states 3 x 28 x 28 bytes and holds 2,353"),
        (lambda b: b[:7], "is no idx file of 3 axes: b'\\x00\\x00\\x08\\x03' leads it"),
        (lambda b: b"PK" + b[2:], "is no idx file of 3 axes: b'PK\\x08\\x03' leads it"),
        (lambda b: b"", "cannot be read: zero bytes"),
        (
            lambda b: b[:7] + b"\2" + b[8 : -28 * 28],
            "holds 2 images, train-labels.idx1-ubyte 3 labels",
        ),
    ],
)
def test_idx_files_that_are_cut_or_changed(build, refuse, change, message):
    description, m = build("mnist")
    path = m.root / "MNIST/raw/train-images-idx3-ubyte"
    path.write_bytes(change(path.read_bytes()))
    assert message in refuse(description, check_counts=False)


@pytest.mark.parametrize("change", [lambda b: b[:-9], lambda b: b"\0" * len(b), lambda b: b[:30]])
def test_gzip_files_that_are_cut_or_changed(build, refuse, change):
    description, m = build("mnist")
    path = m.root / "MNIST/raw/t10k-images-idx3-ubyte.gz"
    path.write_bytes(change(path.read_bytes()))
    assert "t10k-images-idx3-ubyte.gz cannot be read: " in refuse(description, check_counts=False)


def test_missing_idx_files_are_named_with_their_spellings(build, refuse):
    description, m = build("mnist")
    (m.root / "MNIST/raw/t10k-labels-idx1-ubyte.gz").unlink()
    told = refuse(description, check_counts=False)
    assert "1 of 4 files and folders are not there: t10k-labels-idx1-ubyte or t10k-labels" in told


@pytest.mark.parametrize(("name", "record"), [("cifar10_binary", 3073), ("cifar100", 3074)])
def test_cifar_files_that_are_cut(build, refuse, name, record):
    description, m = build(name)
    file = description.layout.test[0]
    path = m.root / description.inside[0] / file
    path.write_bytes(path.read_bytes()[:-1])
    told = refuse(description, check_counts=False)
    assert f"{file} holds " in told and f"no whole number of {record}-byte records" in told
    path.write_bytes(b"")
    assert f"{file} holds 0 bytes" in refuse(description, check_counts=False)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("cifar10_binary", "cifar-10-batches-py/data_batch_1"),
        ("cifar10_binary", "data_batch_1"),
        ("cifar100", "cifar-100-python/train"),
        ("cifar100", "train"),
    ],
)
def test_the_pickled_version_is_refused_and_not_opened(tmp_path, refuse, name, place):
    mark = tmp_path / "ran"

    class Trap:
        def __reduce__(self):
            return mark.touch, ()

    path = tmp_path / "data" / place
    path.parent.mkdir(parents=True)
    path.write_bytes(pickle.dumps(Trap()))
    told = refuse(name, tmp_path / "data")
    assert "belongs to the python version; it is a pickle" in told
    assert "Get the binary version" in told and "kriz/cifar.html" in told
    assert not mark.exists()


def write(path, **columns):
    pq.write_table(pa.table(columns), path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": [b"x"], "fine": [1]}, "labels in 'label': the columns are ['image', 'fine']"),
        ({"pixels": [b"x"], "label": [1]}, "no table of images in 'image'"),
        ({"image": [b"x", b"y"], "label": [1, None]}, "1 rows have no label, row 1 first"),
        (
            {"image": [b"x"], "label": ["zebra"]},
            "1 class that the data set has not: 'zebra' (1 image)",
        ),
        ({"image": [b"x"], "label": [10]}, "that the data set has not: '10'"),
        ({"image": [b"x"], "label": [-1]}, "that the data set has not: '-1'"),
    ],
)
def test_parquet_tables_of_another_form(build, refuse, columns, message):
    description, m = build("cifar10")
    write(m.root / "cifar10_test.parquet", **columns)
    assert message in refuse(description, check_counts=False)


def test_parquet_tables_that_are_cut(build, refuse):
    description, m = build("cifar10")
    path = m.root / "cifar10_test.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    told = refuse(description, check_counts=False)
    assert "cifar10_test.parquet is no table of images" in told and ".parquet file" in told


def test_names_and_positions_mean_the_same_classes(build):
    description, m = build("cifar10")
    dataset = open_dataset(replace(description, n_train=9), m.root, check_counts=False)
    assert dataset.train.y_true.tolist() == [0, 5, 9, 5]
    assert dataset.test.y_true.tolist() == [0, 5]


def test_classes_that_a_table_names_are_not_without_images(build, refuse):
    description, m = build("cifar10")
    few = replace(description.classes, names=("airplane", "dog", "truck"))
    write(m.root / "cifar10_test.parquet", image=[b"x"], label=["dog"])
    small = replace(description, classes=few, n_train=4, n_test=1)
    assert len(open_dataset(small, m.root).listing.test) == 1
    one_more = replace(small, classes=replace(few, names=(*few.names, "cat")), n_classes=4)
    assert "1 class without images: cat" in refuse(one_more)
