import re

import numpy as np
import pytest
from PIL import Image

from nameonly.report.synthetic import write_synthetic_report
from nameonly.trust.synthetic import Measured, Worth

WHOLE = Worth(24, 60, 0.65, 4.8, 0.97, 1.0, 0.5, 0.104, 4.51, 0.98)
ALONE = Worth(24, 0, 0.65, 4.8, 0.97, 1.0, None, None, None, None)
NASTY = "<script>alert(1)</script>"


def row(name, number, kept=True, reason=""):
    return {
        "path": f"{name}-{number}.png",
        "class_name": name,
        "trick": "base",
        "guidance_scale": 7.5,
        "prompt": f"an image of a {name} <b>",
        "model": "some/model",
        "lora": "",
        "kept": kept,
        "reason": reason,
    }


def opened(path):
    if path.startswith("gone"):
        raise OSError("gone")
    return Image.fromarray(np.full((32, 32, 3), 90, np.uint8))


@pytest.fixture
def page(tmp_path):
    def write(measured, rows, dropped=None):
        write_synthetic_report(tmp_path / "r.html", rows, dropped or {}, measured, opened)
        return (tmp_path / "r.html").read_text()

    return write


ROWS = [row("cat", i) for i in range(20)] + [row(NASTY, i) for i in range(3)]


def test_every_class_shows_its_first_images_and_names_are_escaped(page):
    text = page(Measured(WHOLE, {"base": WHOLE}, {"cat": WHOLE, NASTY: WHOLE}), ROWS)
    assert text.count("data:image/webp") == 8 + 3
    assert NASTY not in text and "&lt;script&gt;" in text and "<b>" not in text
    assert not re.search(r"(?:src|href)=\"(?!#|data:)", text), "no outside address"


def test_figures_stand_in_the_table_and_dashes_where_there_is_none(page):
    cells = re.findall(r'<td class="number">([^<]*)</td>', page(Measured(WHOLE, {}, {}), ROWS))
    assert cells == ["24", "100%", "0.65", "4.8", "10%", "4.51", "98%"]
    alone = page(Measured(ALONE, {}, {}), ROWS)
    assert re.findall(r'<td class="number">([^<]*)</td>', alone) == ["24", "100%", "0.65", "4.8"]
    assert "Coverage" not in alone


def test_without_a_backbone_it_says_what_to_do(page):
    text = page(None, ROWS)
    assert "No backbone looked at them" in text and '<table class="worth"' not in text


def test_what_was_left_out_and_what_cannot_be_opened_is_told(page):
    rows = [row("cat", 0), row("gone", 1), row("cat", 2, False, "blank in 5 draws")]
    text = page(None, rows, {"blank in 5 draws": 1})
    assert "could not be opened" in text and "blank in 5 draws" in text
    assert "<strong>2 images</strong> of 3 of <strong>2 classes</strong>" in text


def test_many_classes_are_cut(page):
    text = page(None, [row(f"class {i}", 0) for i in range(60)])
    assert text.count("data:image/webp") == 40 and "20 further classes left out" in text
