import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from nameonly.report.synthetic import BeforeAfter, MadeImages, write_synthetic_report
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
    def write(measured, rows, dropped=None, *more):
        made = MadeImages(rows, measured, opened)
        write_synthetic_report(tmp_path / "r.html", made, dropped or {}, *more)
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
    assert cells == ["24", "100%", "0.65", "4.8", "10.4%", "4.51", "98%"]
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


def test_before_and_after_stand_beside_each_other_trick_by_trick(page):
    tricks = ("base", "class_prompt")
    rows = [
        row(name, i) | {"trick": trick, "lora": "x"}
        for name in ("cat", NASTY)
        for i, trick in enumerate(tricks * 5)
    ]
    before = Measured(WHOLE, dict.fromkeys(tricks, WHOLE), {})
    better = replace(WHOLE, coverage=0.5, mmd=1.0)
    after = Measured(better, {"base": better, "class_prompt": WHOLE}, {})
    text = page(after, rows, {}, BeforeAfter(before, after, rows, "unadapted"))
    section = text[text.index('id="before-after"') : text.index('id="images"')]
    names = re.findall(r'rowspan="2"><bdi>([^<]*)', section)
    assert names == ["all images", *tricks]
    coverage = re.findall(
        r"<td>(as it is|adapted)</td>(?:<td[^>]*>[^<]*</td>){4}<td[^>]*>(\d+)\.", section
    )
    assert coverage == [
        ("as it is", "10"),
        ("adapted", "50"),
        ("as it is", "10"),
        ("adapted", "50"),
        ("as it is", "10"),
        ("adapted", "10"),
    ]
    pictures = re.findall(r'alt="(before|after) adaptation (cat|&lt;)', section)
    assert len(pictures) == 2 * 2 * 6, "six pairs a trick"
    assert [kind for kind, _ in pictures[:4]] == ["before", "after"] * 2
    assert [name for _, name in pictures[:4]] == ["cat", "cat", "&lt;", "&lt;"], "class by class"
    assert NASTY not in text
    assert "before-after" not in page(after, rows)
