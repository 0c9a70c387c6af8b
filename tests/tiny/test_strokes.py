import sys

import numpy as np
import pytest
from scipy import ndimage

from nameonly.tiny.strokes import CANVAS, distance_fields, thin_to_lines

WHOLE = np.ones((3, 3), dtype=bool)


def test_bar_thins_to_its_middle_row():
    mask = np.zeros((11, 21), dtype=bool)
    mask[3:8, 2:19] = True
    lines = thin_to_lines(mask)
    assert lines[5, 5:16].all()
    assert not lines[[0, 1, 2, 3, 7, 8, 9, 10]].any()


def test_ring_stays_one_closed_line():
    y, x = np.mgrid[-15:16, -15:16]
    radius = np.hypot(x, y)
    lines = thin_to_lines((radius > 7) & (radius < 13))
    assert ndimage.label(lines, WHOLE)[1] == 1
    assert ndimage.label(~lines)[1] == 2
    assert np.abs(radius[lines] - 10).max() < 1.5
    assert lines.sum() < 100


@pytest.mark.parametrize("full", [False, True])
def test_empty_and_full_masks_come_to_an_end(full):
    lines = thin_to_lines(np.full((8, 9), full))
    assert lines.shape == (8, 9)
    assert lines.sum() <= (9 if full else 0)


@pytest.mark.parametrize("character", ["0", "8", "i", "W", "g"])
def test_fields_agree_on_where_the_ink_is(character):
    outline, centre, extent = distance_fields("DejaVuSans", character)
    assert outline.shape == centre.shape == (CANVAS, CANVAS)
    assert (outline < 0).any()
    assert (outline[centre == 0] < 0.5).all()
    assert (outline[[0, -1]] > 0).all()
    assert (outline[:, [0, -1]] > 0).all()
    parts = ndimage.label(outline < 0, WHOLE)[1]
    assert ndimage.label(centre == 0, WHOLE)[1] == parts == (2 if character == "i" else 1)
    rows, columns = np.nonzero(outline < 0)
    assert extent >= max(np.ptp(rows), np.ptp(columns))


def test_small_letter_counts_as_high_as_a_zero():
    heights = {c: distance_fields("cmr10", c)[2] for c in "0xW"}
    assert heights["x"] == heights["0"] < heights["W"]


def test_without_the_fonts_one_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ValueError, match=r"matplotlib is needed .*nameonly\[tiny\]"):
        distance_fields.__wrapped__("DejaVuSans", "a")
