import pytest

from nameonly.export.formats import TABLES, WITH_IMAGES, Wanted, export_run

ALL = [*TABLES, *WITH_IMAGES]


@pytest.mark.parametrize("to", ALL)
def test_counts_are_told(to, new_run, some, exported, tmp_path):
    folder = new_run(some, abstained=(1, 2))
    (tmp_path / "photos" / "05.png").unlink()
    _, found = exported(folder, to)
    reads_images, holds_unlabelled = to in WITH_IMAGES, to not in NEED_LABELS
    assert found["format"] == to and found["sources"] == 12 and found["abstained"] == 2
    assert found["exported"] == 12 - reads_images - 2 * (not holds_unlabelled)
    assert len(found["unreadable"]) == reads_images
    assert found["classes"] == ["cat", "dog"] and found["backbone"] == "tiny"


NEED_LABELS = ("imagefolder", "ultralytics", "cleanlab")


@pytest.mark.parametrize("to", ALL)
def test_names_from_hell(to, new_run, pictures_of, exported, tmp_path):
    """No class or file name breaks a format or writes outside the folder."""
    files = {
        name: pictures_of(i)
        for i, name in enumerate(
            ["=1+1.png", "a;b.png", "con.png", "CON.PNG", "x\ny.png", '"q".png', "é.png", "-r.png"]
        )
    }
    classes = (
        "../../x",
        "con",
        "a/b",
        "<script>alert(1)</script>",
        "=1+1",
        "\u202etac",
        "..",
        "x" * 300,
    )
    before = {p for p in tmp_path.rglob("*") if "photos" not in p.parts}
    folder = new_run(files, classes)
    place, found = exported(folder, to)
    assert found["exported"] == 8 and found["unreadable"] == []
    new = {p for p in tmp_path.rglob("*") if "photos" not in p.parts} - before
    assert all(p.is_relative_to(place) or p.is_relative_to(folder) for p in new)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"to": "coco"}, "no format 'coco'; there are: csv, parquet"),
        ({"to": "csv", "min_confidence": 1.5}, "between 0 and 1, got 1.5"),
        ({"to": "csv", "link": True}, "csv holds no images: leave out --images and --link"),
        ({"to": "parquet", "images": "photos"}, "holds no images"),
        ({"to": "cvat", "val_share": 0.2}, "--val-share goes with ultralytics, not with cvat"),
    ],
)
def test_what_does_not_go_together_is_told(wanted, words):
    with pytest.raises(ValueError, match=words):
        Wanted(**wanted)


def test_nothing_to_export_is_an_error_that_says_why(new_run, some, exported, tmp_path):
    folder = new_run(some, abstained=range(12))
    with pytest.raises(ValueError, match=r"12 rows .* is as certain as 1"):
        exported(folder, "parquet", min_confidence=1.0)
    with pytest.raises(ValueError, match=r"nothing to export .* 12 have no label"):
        export_run(folder, Wanted("imagefolder"), tmp_path)


def test_images_that_all_changed_are_an_error(new_run, pictures_of, exported, tmp_path):
    folder = new_run({"a.png": pictures_of(0), "b.png": pictures_of(1)}, abstained=(1,))
    (tmp_path / "photos" / "a.png").write_bytes(pictures_of(9))
    with pytest.raises(ValueError, match=r"1 images could not be put \(a.png: its bytes have"):
        exported(folder, "imagefolder")
