import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nameonly.label_tables.reading import match_labels, read_labels


@pytest.fixture
def table(tmp_path):
    def write(content, name="truth.csv"):
        path = tmp_path / name
        if isinstance(content, dict):
            pq.write_table(pa.table(content), path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_csv(table):
    path = table('\ufeffPath,Label\r\n"a,1.jpg",cat\r\n\r\nb.jpg, snow owl \r\nc.jpg,\r\n')
    assert read_labels(path) == {"a,1.jpg": "cat", "b.jpg": "snow owl"}


def test_parquet_with_numbers_and_gaps(table):
    path = table({"id": ["a", "b", "c"], "target": [1.0, None, 2.0]}, "t.parquet")
    assert read_labels(path) == {"a": "1", "c": "2"}
    path = table({"stem": [7, 8], "y": pa.array([0, 1], pa.int8())}, "t.parquet")
    assert read_labels(path) == {"7": "0", "8": "1"}
    path = table({"file": ["a"], "class": pa.array(["cat"]).dictionary_encode()}, "t.parquet")
    assert read_labels(path) == {"a": "cat"}
    path = table({"file": ["a", "b"], "class": [float("nan"), 1.0]}, "t.parquet")
    assert read_labels(path) == {"b": "1"}


def test_columns_by_name_and_by_order(table):
    path = table("id,path,label,class\n1,a.jpg,0,cat\n")
    assert read_labels(path, label_column="CLASS") == {"a.jpg": "cat"}
    assert read_labels(path, label_column="label", key_column="id") == {"1": "0"}


def test_a_persons_answer_goes_before_the_runs_own_label(table):
    path = table("path,id,label,true_label\na.jpg,1,cat,dog\nb.jpg,2,cat,\n")
    assert read_labels(path) == {"a.jpg": "dog"}


def test_a_key_may_repeat_with_the_same_label(table):
    assert read_labels(table("path,label\na,cat\na,cat\n")) == {"a": "cat"}


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("", "t.csv", "is empty"),
        ("path,label\n", "t.csv", "holds no label in its column 'label'"),
        ("path,label\na,\n", "t.csv", "holds no label"),
        (
            "path;label\na;cat\n",
            "t.csv",
            "no label column .*only path;label; name it with --label-c",
        ),
        ("label\ncat\n", "t.csv", "no key column"),
        ("path,label,class\na,0,cat\n", "t.csv", "'label' and 'class' could be the label column"),
        ("path,label,Label\na,0,cat\n", "t.csv", "'label' and 'Label' could be"),
        ("path,path,label\na,b,cat\n", "t.csv", "'path' and 'path' could be the key column"),
        ("path,label\na,cat,x\n", "t.csv", "line 2: 3 fields, but the header has 2"),
        ("path,label\na\n", "t.csv", "line 2: 1 fields"),
        ("path,label\na,cat\na,dog\n", "t.csv", "line 3: 'a' is 'dog' here and 'cat' before"),
        ("path,label\n,cat\n", "t.csv", "line 2: the 'path' of label 'cat' is empty"),
        ('path,label\n"a,cat\n', "t.csv", "no CSV table"),
        (b"path,label\n\xff,cat\n", "t.csv", "no CSV table in UTF-8"),
        ("path,label\na,cat\n", "t.parquet", "is no parquet table"),
        ({"path": ["a"], "label": [["cat"]]}, "t.parquet", "got a list"),
    ],
)
def test_bad_tables(table, content, name, message):
    with pytest.raises(ValueError, match=message):
        read_labels(table(content, name))


def test_missing_file_and_column(table, tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        read_labels(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="there is no file"):
        read_labels(tmp_path)
    with pytest.raises(ValueError, match=r"no label column \(species\), only path, label"):
        read_labels(table("path,label\na,cat\n"), label_column="species")


NAMES = ("cat", "snow owl", "café")


def match(paths, truth, by="auto", names=NAMES):
    return match_labels(paths, [f"id{i}" for i in range(len(paths))], truth, names, by)


def test_class_names_are_compared_without_case_and_spacing():
    truth = {"1.jpg": "Snow_Owl", "2.jpg": "CAT", "3.jpg": "cafe\u0301"}
    found = match(["in/1.jpg", "in/2.jpg", "in/3.jpg", "in/4.jpg"], truth)
    assert found.labels.tolist() == [1, 0, 2, -1]
    assert found.labels.dtype == np.int64
    assert (found.matched_by, found.read_as_positions, found.n_without_label) == ("path", False, 1)


def test_numbers_are_positions_where_no_class_is_named_so():
    found = match(["1.jpg", "2.jpg"], {"1.jpg": "2", "2.jpg": "0"})
    assert found.labels.tolist() == [2, 0] and found.read_as_positions
    found = match(["1.jpg", "2.jpg"], {"1.jpg": "1", "2.jpg": "0"}, names=("1", "0"))
    assert found.labels.tolist() == [0, 1] and not found.read_as_positions


def test_folder_names_are_the_truth():
    found = match(["in/cat/1.jpg", "in/Snow_Owl/1.jpg", "1.jpg"], None, "folder")
    assert found.labels.tolist() == [0, 1, -1]
    assert (found.matched_by, found.n_without_label) == ("folder", 1)


@pytest.mark.parametrize(
    ("paths", "truth", "by", "message"),
    [
        (["1.jpg"], {"1.jpg": "dog"}, "auto", r"'dog' \(1 images\); class names are 'cat', 'snow"),
        (["1.jpg"], {"1.jpg": "3"}, "auto", "'3' .*positions, 0 to 2"),
        (["1.jpg"], {"1.jpg": "-1"}, "auto", r"'-1' \(1 images\)"),
        (["1.jpg"], {"1.jpg": "²"}, "auto", r"'²' \(1 images\)"),
        (["1.jpg", "2.jpg"], {"1.jpg": "1", "2.jpg": "cat"}, "auto", r"no class names: '1' \(1"),
        (["dog/1.jpg", "dog/2.jpg", "cat/1.jpg"], None, "folder", r"'dog' \(2 images\)"),
        (["1.jpg"], None, "folder", "no image lies in a folder"),
        (["cat/1.jpg"], {"1.jpg": "cat"}, "folder", "leave the table out"),
        (["cat/1.jpg"], None, "auto", "needs a table of labels"),
        (["1.jpg"], {"2.jpg": "cat"}, "auto", "no image is found"),
    ],
)
def test_bad_truth(paths, truth, by, message):
    with pytest.raises(ValueError, match=message):
        match(paths, truth, by)


def test_many_unknown_labels_are_counted():
    paths = [f"{i}.jpg" for i in range(30)]
    with pytest.raises(ValueError, match="and 20 more; class names"):
        match(paths, {path: f"kind {path}" for path in paths})


def test_the_table_that_the_images_came_from_is_a_truth(tmp_path):
    path = tmp_path / "shard.parquet"
    columns = {"image": [b"a", b"b", b"c"], "label": ["cat", "dog", "cat"]}
    pq.write_table(pa.table(columns), path)
    truth = read_labels(path)
    assert truth == {"shard.parquet#0": "cat", "shard.parquet#1": "dog", "shard.parquet#2": "cat"}
    paths = ["shard.parquet#2", "shard.parquet#1"]
    assert match_labels(paths, ["x", "y"], truth, ["cat", "dog"]).labels.tolist() == [0, 1]
