"""MATLAB files: vectors, cells and records are read; everything else is refused."""

import numpy as np
import pytest
from scipy.io import savemat

from nameonly.datasets.mat import read_numbers, read_records, read_texts


@pytest.fixture
def mat(tmp_path):
    def write(**arrays):
        savemat(tmp_path / "f.mat", arrays)
        return tmp_path / "f.mat"

    return write


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float64])
@pytest.mark.parametrize("shape", [(1, 3), (3, 1)])
def test_numbers(mat, dtype, shape):
    path = mat(v=np.array([1, 2, 200], dtype).reshape(shape), other=np.zeros(2))
    assert read_numbers(path, "v").tolist() == [1, 2, 200]
    assert read_numbers(mat(v=np.array([[7]])), "v").tolist() == [7]


@pytest.mark.parametrize(
    "value",
    [
        np.array([1.5]),
        np.array([np.nan]),
        np.array([np.inf]),
        np.eye(2),
        "text",
        np.array(["a"], object),
    ],
)
def test_what_is_no_vector_of_whole_numbers(mat, value):
    with pytest.raises(ValueError, match=r"f.mat: 'v' is no vector of whole numbers"):
        read_numbers(mat(v=value), "v")


def test_texts(mat):
    assert read_texts(mat(v=np.array([["a b", "c"]], object)), "v") == ["a b", "c"]
    assert read_texts(mat(v=np.array([["only"]], object)), "v") == ["only"]
    with pytest.raises(ValueError, match="something else than text and whole numbers"):
        read_texts(mat(v=np.array([["a", np.eye(2)]], object)), "v")


def test_records(mat):
    dtype = [("fname", object), ("class", object), ("box", object)]
    path = mat(v=np.array([[("a.jpg", 3, np.eye(2)), ("b.jpg", 1, 0)]], dtype))
    assert read_records(path, "v", ("fname", "class")) == [("a.jpg", "3"), ("b.jpg", "1")]
    with pytest.raises(ValueError, match="'v' has no fields fname, label"):
        read_records(path, "v", ("fname", "label"))
    with pytest.raises(ValueError, match="something else than text"):
        read_records(path, "v", ("fname", "box"))
    one = mat(v=np.array([[("a.jpg", 3, 0)]], dtype))
    assert read_records(one, "v", ("class", "fname")) == [("3", "a.jpg")]


def test_files_that_are_cut_or_something_else(tmp_path, mat):
    path = mat(v=np.arange(500))
    whole = path.read_bytes()
    with pytest.raises(ValueError, match=r"f.mat has no variable 'w'"):
        read_numbers(path, "w")
    for content in (whole[:-100], whole[:50], b"", b"no", b"\x89HDF\r\n\x1a\n" + bytes(500)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"f.mat is no whole MATLAB file of version 5"):
            read_numbers(path, "v")


@pytest.mark.parametrize("number", [0, 8])
def test_split_numbers_without_a_label(build, refuse, number):
    description, m = build("flowers102")
    m.mat("setid.mat", trnid=np.array([1, 2]), valid=np.array([number]), tstid=np.array([3]))
    told = refuse(description, check_counts=False)
    assert "setid.mat numbers images from " in told and "has labels for 1 to 7" in told


def test_labels_that_are_no_flower(build, refuse):
    description, m = build("flowers102")
    m.mat("imagelabels.mat", labels=np.array([[103, 0, 2, 1, 102, 2, 1]]))
    told = refuse(description, check_counts=False)
    assert "2 classes that the data set has not: '103' (1 image), '0' (1 image)" in told


def test_a_record_that_leads_out(build, refuse):
    description, m = build("stanford_cars")
    dtype = [("fname", object), ("class", object)]
    m.mat("cars_test_annos_withlabels.mat", annotations=np.array([[("../../x.jpg", 1)]], dtype))
    assert "the path 'cars_test/../../x.jpg' leads out" in refuse(description)


def test_test_annotations_without_labels_are_refused(build, refuse):
    description, m = build("stanford_cars")
    records = np.array([[("00001.jpg",)]], [("fname", object)])
    m.mat("cars_test_annos_withlabels.mat", annotations=records)
    assert "'annotations' has no fields fname, class" in refuse(description)
