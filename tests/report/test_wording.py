import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from nameonly.report.wording import (
    clean,
    counted,
    duration_text,
    file_name,
    flat_settings,
    probability_text,
    setting_text,
    share_text,
    short_count,
    shortened,
)


@given(st.text(max_size=60), st.integers(min_value=3, max_value=40))
def test_shortened_keeps_both_ends_within_the_limit(text, limit):
    result = shortened(text, limit)
    assert len(result) <= limit
    if len(text) <= limit:
        assert result == text
    else:
        head, tail = result.split("\u2026", 1) if "\u2026" not in text else ("", "")
        assert text.startswith(head)
        assert text.endswith(tail)
        assert len(result) == limit


def test_clean_replaces_what_html_forbids_and_keeps_the_rest():
    assert clean("a\x00b\nc\udcffd") == "a\ufffdb\ufffdc\ufffdd"
    family = "\U0001f469\u200d\U0001f52c \u05d0 \u00a0 e\u0301"
    assert clean(family) == family
    assert clean(7) == 7
    markup = Markup("<b>\n</b>")
    assert clean(markup) is markup


@given(st.text())
def test_cleaned_text_can_be_written_as_utf_8(text):
    clean(text).encode("utf-8")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("a/b/c.png", "c.png"),
        ("c.png", "c.png"),
        ("C:\\photos\\c.png", "c.png"),
        ("shard.tar/000.jpg", "000.jpg"),
        ("folder/", "folder"),
        ("/", "/"),
        ("", ""),
    ],
)
def test_file_name_is_the_last_part(source, name):
    assert file_name(source) == name


def test_counted_uses_the_plural_that_fits():
    assert counted(1, "image") == "1 image"
    assert counted(0, "image") == "0 images"
    assert counted(20_000, "class", "classes") == "20,000 classes"


def test_shares_are_all_or_nothing_only_when_they_are():
    assert share_text(0, 0) == share_text(0, 9) == "0 %"
    assert share_text(9, 9) == "100 %"
    assert share_text(1, 1000) == "under 1 %"
    assert share_text(999, 1000) == "over 99 %"
    assert share_text(1, 4) == "25 %"


def test_probabilities_are_certain_only_when_they_are():
    assert probability_text(0.0) == "0.00"
    assert probability_text(1.0) == "1.00"
    assert probability_text(0.9999) == ">0.99"
    assert probability_text(0.0001) == "<0.01"
    assert probability_text(0.256) == "0.26"


def test_durations_use_the_unit_that_fits():
    assert duration_text(0.04) == "0.0 s"
    assert duration_text(3.24) == "3.2 s"
    assert duration_text(59.96) == "1 min 0 s"
    assert duration_text(75.0) == "1 min 15 s"
    assert duration_text(3 * 3600.0 + 61) == "3 h 1 min"


def test_settings_read_as_words():
    assert setting_text(None) == "none"
    assert setting_text(True) == "yes"
    assert setting_text(1e-4) == "0.0001"
    assert setting_text(["a", 2, None]) == "a, 2, none"
    assert setting_text([]) == "none"
    assert setting_text("x, y") == "x, y"


def test_nested_settings_become_dotted_names_in_order():
    nested = {"b": {"y": 1, "x": {"z": False}}, "a": "last"}
    assert list(flat_settings(nested)) == [("b.y", "1"), ("b.x.z", "no"), ("a", "last")]


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (1000, "1.0k"), (9949, "9.9k"), (9950, "10k"), (123_456, "123k")],
)
def test_short_counts_have_four_characters_at_most(number, text):
    assert short_count(number) == text and len(text) <= 4
