import pytest

from nameonly.label_tables.matching import find_labels, plain_path, shown_items


def find(paths, truth, by="auto", ids=None):
    return find_labels(paths, ids or [f"id{i}" for i in range(len(paths))], truth, by)


@pytest.mark.parametrize(
    ("paths", "truth", "labels"),
    [
        (["a/1.jpg", "b/1.jpg"], {"a/1.jpg": "x", "b/1.jpg": "y"}, ["x", "y"]),
        (["in/a/1.jpg", "in/b/1.jpg"], {"b/1.jpg": "y", "a/1.jpg": "x"}, ["x", "y"]),
        (["a/1.jpg", "b/1.jpg"], {"/data/in/a/1.jpg": "x", "/data/in/b/1.jpg": "y"}, ["x", "y"]),
        (["in/a/1.jpg", "in/b/2.jpg"], {"1.jpg": "x", "2.jpg": "y"}, ["x", "y"]),
        (["in/a/1.jpg", "in/b/2.jpg"], {"1.jpg": "x"}, ["x", None]),
        (["in\\a\\1.jpg"], {"./a//1.jpg": "x"}, ["x"]),
        (["cafe\u0301/1.jpg"], {"caf\u00e9/1.jpg": "x"}, ["x"]),
        # A row that is found exactly belongs to nobody else.
        (["1.jpg", "a/1.jpg", "a/2.jpg"], {"1.jpg": "x", "2.jpg": "y"}, ["x", None, "y"]),
        # The longer partner is the nearer one.
        (["in/a/1.jpg"], {"1.jpg": "x", "a/1.jpg": "y"}, ["y"]),
        # Two rows for one image may agree.
        (["1.jpg"], {"a/1.jpg": "x", "b/1.jpg": "x"}, ["x"]),
        # Another folder is another image, as long as one is found.
        (["a/1.jpg", "b/1.jpg"], {"a/1.jpg": "x", "c/1.jpg": "y"}, ["x", None]),
    ],
)
@pytest.mark.parametrize("by", ["auto", "path"])
def test_by_path(paths, truth, labels, by):
    assert find(paths, truth, by) == (labels, "path")


def test_by_stem():
    truth = {"1": "x", "scan.v2": "y", "3.png": "z"}
    paths = ["in/1.jpg", "scan.v2.jpg", "scan.jpg", "3.jpg"]
    assert find(paths, truth) == (["x", "y", None, "z"], "stem")
    assert find(["in/1.jpg"], {"other/1.png": "x"}, "stem") == (["x"], "stem")


def test_a_whole_name_is_nearer_than_a_cut_one():
    truth = {"scan": "x", "scan.v2": "y"}
    assert find(["scan.jpg", "scan.v2.jpg"], truth) == (["x", "y"], "stem")


def test_by_id_serves_duplicates():
    ids = ["ab12", "ab12", "cd34"]
    assert find(["1.jpg", "2.jpg", "3.jpg"], {"ab12": "x"}, ids=ids) == (["x", "x", None], "id")


@pytest.mark.parametrize(
    ("paths", "truth", "by", "message"),
    [
        (["1.jpg"], {"a/1.jpg": "x", "b/1.jpg": "y"}, "auto", "'1.jpg' could be .*use path"),
        (["a/1.jpg", "b/1.jpg"], {"1.jpg": "x"}, "auto", "'a/1.jpg' and 'b/1.jpg' both match"),
        (
            ["a/1.jpg", "b/1.jpg"],
            {"1": "x"},
            "auto",
            "both match '1' of the table of labels; use path",
        ),
        (["1.jpg"], {"a/1.png": "x", "b/1.png": "y"}, "stem", "'1.jpg' could be .*use path"),
        (["1.jpg"], {"a\\1.jpg": "x", "a/1.jpg": "y"}, "path", "could be"),
        (["a\\1.jpg"], {"a\\1.jpg": "x", "a/1.jpg": "y"}, "path", "could be"),
        (["test/1.jpg"], {"train/1.jpg": "x"}, "auto", "no image is found .*'train/1.jpg'.*'stem'"),
        (["1.jpg"], {"2.jpg": "x"}, "path", "no image is found in the table .*by path; .*'1.jpg'"),
        (["1.jpg"], {"1.jpg": "x"}, "id", "with ids 'id0', the table has '1.jpg'"),
    ],
)
def test_no_or_several_partners(paths, truth, by, message):
    with pytest.raises(ValueError, match=message):
        find(paths, truth, by)


def test_plain_paths_and_lists():
    assert plain_path(".\\a\\\\b/./c.jpg") == plain_path("/a/b/c.jpg") == "a/b/c.jpg"
    assert shown_items(["a", "b"], 1) == "'a', ..."
    assert shown_items([]) == ""
