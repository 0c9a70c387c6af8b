from itertools import pairwise

import numpy as np
import pytest

from nameonly.tiny import digits, glyphs
from nameonly.tiny.glyphs import (
    CHARACTERS,
    CLASS_NAMES,
    FONTS,
    HELD_OUT_FONTS,
    STYLES,
    TRAINING_FONTS,
    Glyph,
    class_of,
    draw_glyph,
    sample_glyph,
    style_glyph,
)

N = 24


def pictures(*effects, font="DejaVuSans", n=N):
    """Draw different characters in one style, each with the chance of its own number."""
    return np.stack(
        [
            draw_glyph(
                style_glyph(CHARACTERS[i], font, frozenset(effects)), np.random.default_rng(i)
            )
            for i in range(n)
        ]
    ).astype(float)


def ink(images):
    """Return how far each pixel is from the paper, as a share of the picture's contrast."""
    paper = np.median(images[:, [0, 0, -1, -1], [0, -1, 0, -1]], axis=1)[:, None, None]
    away = np.abs(images - paper)
    return away / away.max(axis=(1, 2), keepdims=True)


def area(images):
    return (ink(images) > 0.5).mean()


def roughness(images):
    return np.mean([np.abs(np.diff(images, axis=1)).mean(), np.abs(np.diff(images, axis=2)).mean()])


def height(images):
    return np.mean([np.ptp(np.flatnonzero((i > 0.5).any(axis=1))) + 1 for i in ink(images)])


def contrast(images):
    return np.ptp(images, axis=(1, 2)).mean()


def slant(images):
    y, x = np.mgrid[:32, :32]
    moments = []
    for weight in ink(images):
        dy = y - np.average(y, weights=weight)
        dx = x - np.average(x, weights=weight)
        moments.append(-(weight * dx * dy).sum() / (weight * dy * dy).sum())
    return np.mean(moments)


def holes(images):
    """Return the mean ink of the pixels that are ink in the plain picture."""
    return np.mean(ink(images)[ink(pictures()) > 0.9])


def blockiness(images):
    """Return how much of the change between columns is in the fifth that changes most."""
    steps = np.sort(np.abs(np.diff(images, axis=2)).sum(axis=1), axis=1)[:, ::-1]
    return (steps[:, :6].sum(axis=1) / steps.sum(axis=1)).mean()


@pytest.mark.parametrize("font", sorted(FONTS))
def test_every_character_has_its_own_picture_in_every_font(font):
    drawn = {
        c: draw_glyph(style_glyph(c, font), np.random.default_rng(0)).tobytes() for c in CHARACTERS
    }
    assert len(set(drawn.values())) == len(CHARACTERS) == 62
    for character, data in drawn.items():
        picture = np.frombuffer(data, np.uint8).astype(float).reshape(1, 32, 32)
        assert contrast(picture) > 100, character
        assert 0.02 < area(picture) < 0.5, character


def test_held_out_fonts_are_not_trained_on():
    assert not set(TRAINING_FONTS) & set(HELD_OUT_FONTS)
    assert len(FONTS) == len(TRAINING_FONTS) + len(HELD_OUT_FONTS)


def test_classes_fold_the_case_of_letters():
    assert len(CLASS_NAMES) == 36
    assert CLASS_NAMES[:10] == digits.CLASS_NAMES
    assert {class_of(c) for c in CHARACTERS} == set(range(36))
    assert CLASS_NAMES[class_of("K")] == CLASS_NAMES[class_of("k")] == "letter k"
    assert style_glyph("7", "cmr10").label == 7


@pytest.mark.parametrize(
    ("style", "measure", "sign"),
    [
        ("bold", area, 1),
        ("thin", area, -1),
        ("italic", slant, 1),
        ("outlined", holes, -1),
        ("small", height, -1),
        ("large", height, 1),
        ("inverted", np.mean, -1),
        ("faint", contrast, -1),
        ("dark", np.mean, -1),
        ("bright", np.min, 1),
        ("blurred", roughness, -1),
        ("noisy", roughness, 1),
        ("pixelated", blockiness, 1),
        ("low resolution", roughness, -1),
    ],
)
def test_style_is_visible_in_its_own_measure(style, measure, sign):
    with_style, without = measure(pictures(style)), measure(pictures())
    assert sign * (with_style - without) > 0.05 * abs(without), (with_style, without)


@pytest.mark.parametrize("style", [s for row in glyphs.EFFECTS for s in row])
def test_every_effect_changes_pixels(style):
    changed = np.abs(pictures(style) - pictures()).mean(axis=(1, 2))
    assert (changed > 0.5).all()


def test_wobble_and_turn_move_the_strokes():
    for style in ("wobbly", "rotated"):
        moved = (ink(pictures(style)) > 0.5) != (ink(pictures()) > 0.5)
        assert moved.mean() > 0.04, style


def test_hand_drawn_lines_do_not_show_the_weight_of_the_font():
    light, heavy = (
        area(pictures("hand-drawn", font=font)) for font in ("DejaVuSans", "DejaVuSans-Bold")
    )
    assert heavy / light < 1.15
    assert area(pictures(font="DejaVuSans-Bold")) / area(pictures()) > 1.25


def test_styles_of_a_glyph_tell_what_can_be_seen():
    assert style_glyph("K", "cmti10").styles == {"serif", "italic", "plain", "capital"}
    assert style_glyph("3", "DejaVuSans-Bold", frozenset({"noisy"})).styles == {
        "sans-serif",
        "bold",
        "noisy",
    }
    by_hand = style_glyph("k", "STIXGeneralBol", frozenset({"hand-drawn"})).styles
    assert by_hand == {"hand-drawn", "wobbly", "lowercase"}
    assert "bold" not in style_glyph("3", "cmb10", frozenset({"thin"})).styles


def test_drawing_is_a_function_of_glyph_and_seed():
    fonts = tuple(TRAINING_FONTS)

    def draw(seed):
        rng = np.random.default_rng(seed)
        return [draw_glyph(sample_glyph(rng, fonts), rng) for _ in range(20)]

    first, second, other = draw(1), draw(1), draw(2)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    assert not any(np.array_equal(a, b) for a, b in pairwise(first))


def test_sampling_covers_every_style_font_and_character():
    rng = np.random.default_rng(0)
    drawn = [sample_glyph(rng, tuple(TRAINING_FONTS)) for _ in range(4000)]
    assert {g.character for g in drawn} == set(CHARACTERS)
    assert {g.font for g in drawn} == set(TRAINING_FONTS)
    assert set().union(*(g.styles for g in drawn)) == set(STYLES)
    share = np.mean([g.character.isdigit() for g in drawn])
    assert 0.46 < share < 0.54
    for row in glyphs.EFFECTS:
        facts = {"bold", "italic"}
        assert all(len(g.styles & (set(row) - facts)) <= 1 for g in drawn)


def test_harder_glyphs_have_more_effects_and_never_fail():
    fonts = tuple(HELD_OUT_FONTS)

    def effects(hardness):
        rng = np.random.default_rng(0)
        return np.mean([len(sample_glyph(rng, fonts, hardness).styles) for _ in range(500)])

    assert effects(1.5) > effects(1.0) + 0.5
    rng = np.random.default_rng(0)
    for _ in range(50):
        glyph = sample_glyph(rng, fonts, hardness=100.0)
        assert draw_glyph(glyph, rng).shape == (32, 32)


@pytest.mark.parametrize(
    ("character", "font", "styles", "message"),
    [
        ("ä", "cmr10", (), "a glyph is one of"),
        ("", "cmr10", (), "a glyph is one of"),
        ("12", "cmr10", (), "a glyph is one of"),
        ("3", "Comic Sans", (), "no font 'Comic Sans'"),
        ("3", "cmr10", ("bolt",), r"no styles \['bolt'\]"),
    ],
)
def test_unknown_wishes_are_refused(character, font, styles, message):
    with pytest.raises(ValueError, match=message):
        Glyph(character, font, frozenset(styles))
    with pytest.raises(ValueError, match=message):
        style_glyph(character, font, frozenset(styles))
