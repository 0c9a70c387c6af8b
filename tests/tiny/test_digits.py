import csv

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from nameonly.tiny import digits


def test_there_are_1797_grey_pictures_with_ids_in_order():
    images, labels, ids = digits.load_digits_images()
    assert len(images) == len(labels) == len(ids) == len(set(ids)) == 1797
    assert {(image.mode, image.size) for image in images} == {("L", (32, 32))}
    assert (ids[0], ids[-1]) == ("digit-0000", "digit-1796")
    assert np.array_equal(labels, load_digits().target)
    assert digits.CLASS_NAMES[labels[1]] == "one"


def test_pictures_are_the_grids_enlarged_light_on_dark():
    images, _, _ = digits.load_digits_images()
    grids = load_digits().images
    for image, grid in list(zip(images, grids, strict=True))[::100]:
        pixels = np.asarray(image).astype(float)
        frame = np.ones((32, 32), dtype=bool)
        frame[4:28, 4:28] = False
        assert not pixels[frame].any()
        again = pixels[4:28, 4:28].reshape(8, 3, 8, 3).mean(axis=(1, 3))
        assert np.corrcoef(again.ravel(), grid.ravel())[0, 1] > 0.97
        assert abs(again.mean() - grid.mean() * 255 / 16) < 6


def test_halves_are_disjoint_whole_and_fixed():
    development, final = digits.halves()
    assert (len(development), len(final)) == (898, 899)
    assert sorted([*development, *final]) == list(range(1797))
    assert (np.diff(development) > 0).all()
    assert (np.diff(final) > 0).all()
    # Written down once: the halves may never change.
    assert development[:6].tolist() == [0, 1, 7, 9, 10, 11]
    assert int((development * np.arange(898)).sum()) == 480009583


def test_halves_know_no_label():
    _, labels, _ = digits.load_digits_images()
    development, final = digits.halves()
    shares = [np.bincount(labels[rows], minlength=10) / len(rows) for rows in (development, final)]
    assert np.abs(shares[0] - shares[1]).max() < 0.04


def test_export_writes_names_without_labels_and_the_truth_apart(tmp_path):
    folder, truth = digits.export(tmp_path / "new" / "place")
    images, labels, ids = digits.load_digits_images()
    assert sorted(p.name for p in folder.iterdir()) == [f"{name}.png" for name in ids]
    assert truth.parent == folder.parent
    with truth.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [f"{name}.png" for name in ids]
    assert [row["label"] for row in rows] == [digits.CLASS_NAMES[i] for i in labels]
    for row, image in list(zip(rows, images, strict=True))[::200]:
        with Image.open(folder / row["path"]) as written:
            assert np.array_equal(np.asarray(written), np.asarray(image))
            assert not written.info
    digits.export(tmp_path / "new" / "place")  # a second export replaces the first


def test_export_keeps_foreign_files(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "cat.png").write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"1 other files, 'cat.png' first"):
        digits.export(tmp_path)
    assert [p.name for p in (tmp_path / "images").iterdir()] == ["cat.png"]
