import numpy as np
import pytest

from nameonly.tiny import glyphs
from nameonly.tiny.captions import FRAMES, STYLE_WORDS, styles_named, write_caption

FONTS = tuple(glyphs.TRAINING_FONTS)


def captions(n=3000, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(n):
        glyph = glyphs.sample_glyph(rng, FONTS)
        yield glyph, *write_caption(glyph.label, glyph.styles, rng)


def test_every_style_has_words_and_no_word_two_styles():
    assert set(STYLE_WORDS) == set(glyphs.STYLES)
    words = [word for group in STYLE_WORDS.values() for word in group]
    assert len(set(words)) == len(words)
    for style, group in STYLE_WORDS.items():
        assert group[0] == style
        for word in group:
            assert styles_named(f"a {word.upper()}, photo of the digit 3.") == {style}


def test_captions_name_their_styles_and_only_true_ones():
    seen_named = set()
    for glyph, text, named in captions():
        assert named <= glyph.styles
        assert len(named) <= 3
        assert styles_named(text) == named, text
        seen_named |= named
    assert seen_named == set(glyphs.STYLES)


def test_captions_name_their_class():
    for glyph, text, _ in captions():
        words = text.replace(",", " ").replace(".", " ").split()
        if glyph.label < 10:
            assert {str(glyph.label), glyphs.DIGIT_NAMES[glyph.label]} & set(words), text
            others = set(glyphs.DIGIT_NAMES) - {glyphs.DIGIT_NAMES[glyph.label], "one"}
            assert not others & set(words), text
        else:
            assert glyph.character.lower() in words, text


def test_wordings_vary_and_bare_names_occur():
    texts = [text for _, text, _ in captions(10_000)]
    assert len(set(texts)) > 7000
    bare = {text.rstrip(".") for text in texts}
    assert set(glyphs.DIGIT_NAMES) <= bare
    assert bare & set("0123456789")
    assert any(text.startswith("letter ") for text in bare)


def test_frames_for_any_style_hold_one_gap_and_no_style_word():
    for frame in FRAMES:
        assert frame.count("{}") == 1
        assert not styles_named(frame.format("three")), frame
    assert {"a photo of a {}", "itap of a {}", "a {} in a video game", "art of the {}"} <= set(
        FRAMES
    )


def test_captions_are_a_function_of_the_seed():
    assert list(captions(50)) == list(captions(50))
    assert list(captions(50)) != list(captions(50, seed=1))


@pytest.mark.parametrize("text", ["", "three", "a photo of a ten", "boldly go", "größe", "serifs"])
def test_text_without_style_words_names_none(text):
    assert styles_named(text) == set()


def test_sans_serif_is_not_serif():
    assert styles_named("a sans serif three") == styles_named("sans-serif") == {"sans-serif"}
    assert styles_named("a sans-serif and a serif three") == {"sans-serif", "serif"}
