"""Rendered digits and letters in many styles: what the bundled model is trained on.

Every glyph is kept as two distance fields, one to its outline and one to its centre line. A
stroke of any weight, an outline and a pen line are thresholds of these fields, so that one warp
serves all.
"""

import string
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image
from scipy import ndimage  # type: ignore[import-untyped]

from nameonly.tiny.strokes import CANVAS, distance_fields

SIDE = 32

DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CLASS_NAMES = (*DIGIT_NAMES, *(f"letter {c}" for c in string.ascii_lowercase))
CHARACTERS = string.digits + string.ascii_lowercase + string.ascii_uppercase

# Fonts with all 62 characters that matplotlib ships. Left out: display and symbol fonts, and
# cmmi10, whose old-style zero is a small letter o.
TRAINING_FONTS: dict[str, frozenset[str]] = {
    "DejaVuSans": frozenset({"sans-serif"}),
    "DejaVuSans-Bold": frozenset({"sans-serif", "bold"}),
    "DejaVuSans-Oblique": frozenset({"sans-serif", "italic"}),
    "DejaVuSans-BoldOblique": frozenset({"sans-serif", "bold", "italic"}),
    "DejaVuSansMono": frozenset({"monospace"}),
    "DejaVuSansMono-Bold": frozenset({"monospace", "bold"}),
    "DejaVuSansMono-Oblique": frozenset({"monospace", "italic"}),
    "DejaVuSerif": frozenset({"serif"}),
    "DejaVuSerif-Bold": frozenset({"serif", "bold"}),
    "DejaVuSerif-Italic": frozenset({"serif", "italic"}),
    "DejaVuSerif-BoldItalic": frozenset({"serif", "bold", "italic"}),
    "STIXGeneral": frozenset({"serif"}),
    "STIXGeneralBol": frozenset({"serif", "bold"}),
    "STIXGeneralItalic": frozenset({"serif", "italic"}),
    "cmr10": frozenset({"serif"}),
    "cmb10": frozenset({"serif", "bold"}),
    "cmti10": frozenset({"serif", "italic"}),
}
HELD_OUT_FONTS: dict[str, frozenset[str]] = {
    "DejaVuSansMono-BoldOblique": frozenset({"monospace", "bold", "italic"}),
    "STIXGeneralBolIta": frozenset({"serif", "bold", "italic"}),
    "cmss10": frozenset({"sans-serif"}),
    "cmtt10": frozenset({"monospace"}),
}
FONTS = TRAINING_FONTS | HELD_OUT_FONTS

FAMILIES = frozenset({"serif", "sans-serif", "monospace"})
# How often a glyph is drawn so; words of one row exclude each other.
EFFECTS: tuple[dict[str, float], ...] = (
    {"bold": 0.18, "thin": 0.15},
    {"italic": 0.12},
    {"hand-drawn": 0.35, "outlined": 0.08},
    {"wobbly": 0.3},
    {"rotated": 0.15},
    {"small": 0.12, "large": 0.2},
    {"inverted": 0.5},
    {"faint": 0.1, "dark": 0.08, "bright": 0.08},
    {"low resolution": 0.3, "pixelated": 0.08},
    {"blurred": 0.2},
    {"noisy": 0.2},
)
STYLES = (*(s for row in EFFECTS for s in row), *sorted(FAMILIES), "plain", "capital", "lowercase")


@dataclass(frozen=True)
class Glyph:
    """One character in one font, with every style that can be seen in its picture.

    Attributes:
        character: One of ``CHARACTERS``.
        font: A key of ``FONTS``.
        styles: Words of ``STYLES``; weight, slant and family include the font's own.
    """

    character: str
    font: str
    styles: frozenset[str]

    def __post_init__(self) -> None:
        if len(self.character) != 1 or self.character not in CHARACTERS:
            raise ValueError(f"a glyph is one of {CHARACTERS}, got {self.character!r}")
        if self.font not in FONTS:
            raise ValueError(f"no font {self.font!r}; there are {sorted(FONTS)}")
        unknown = sorted(self.styles - set(STYLES))
        if unknown:
            raise ValueError(f"no styles {unknown}; there are {sorted(STYLES)}")

    @property
    def label(self) -> int:
        """Index of its class in ``CLASS_NAMES``; both cases of a letter are one class."""
        return class_of(self.character)


def class_of(character: str) -> int:
    """Return the index in ``CLASS_NAMES`` of a digit or a letter of either case."""
    return (string.digits + string.ascii_lowercase).index(character.lower())


def style_glyph(character: str, font: str, effects: frozenset[str] = frozenset()) -> Glyph:
    """Return a glyph with the given effects and all that follows from font and character.

    A hand-drawn glyph is a line along the strokes: it wobbles, and neither the weight nor the
    family of its font shows any more.

    Raises:
        ValueError: If the character, the font or an effect is not known.
    """
    facts = FONTS.get(font, frozenset())
    if "hand-drawn" in effects:
        facts, effects = facts - FAMILIES - {"bold"}, effects | {"wobbly"}
    if "thin" in effects:
        facts -= {"bold"}
    if not effects:
        facts |= {"plain"}
    if character.isalpha():
        facts |= {"capital" if character.isupper() else "lowercase"}
    return Glyph(character, font, facts | effects)


def sample_glyph(
    rng: np.random.Generator, fonts: Sequence[str], hardness: float = 1.0, plain: float = 0.06
) -> Glyph:
    """Draw a random glyph: half of them digits, half letters.

    Args:
        rng: Source of chance.
        fonts: Keys of ``FONTS`` to choose from.
        hardness: Multiplies the share of every effect.
        plain: Share of glyphs without any effect.
    """
    pool = string.digits if rng.random() < 0.5 else string.ascii_letters
    character = pool[rng.integers(len(pool))]
    font = fonts[int(rng.integers(len(fonts)))]
    if rng.random() < plain:
        return style_glyph(character, font)
    effects = set()
    for row in EFFECTS:
        draw = rng.random() / hardness
        for style, share in row.items():
            if 0 <= draw < share:
                effects.add(style)
            draw -= share
    return style_glyph(character, font, frozenset(effects))


def draw_glyph(glyph: Glyph, rng: np.random.Generator) -> UInt8[np.ndarray, "32 32"]:
    """Return the picture of a glyph, grey, 32 x 32; all that its styles leave open is random."""
    styles = glyph.styles
    coverage = _ink(glyph, rng)
    picture = ndimage.zoom(coverage, 0.5, order=1, grid_mode=True, mode="nearest")
    if styles & {"low resolution", "pixelated"}:
        side = int(rng.integers(14, 19) if "small" in styles else rng.integers(8, 14))
        picture = _coarsen(coverage, side, "pixelated" in styles, rng)
    sigma = rng.uniform(0.9, 1.6) if "blurred" in styles else rng.uniform(0.0, 0.4)
    picture = ndimage.gaussian_filter(picture, sigma)
    ink, paper = _tones(styles, rng)
    picture = paper + (ink - paper) * picture
    spread = rng.uniform(0.08, 0.2) if "noisy" in styles else rng.uniform(0.0, 0.02)
    # Noise follows contrast, or a faint glyph would drown in it.
    picture = picture + rng.normal(0.0, spread * max(0.4, abs(ink - paper)), picture.shape)
    grey: UInt8[np.ndarray, "32 32"] = np.rint(picture.clip(0, 1) * 255).astype(np.uint8)
    return grey


def _ink(glyph: Glyph, rng: np.random.Generator) -> Float32[np.ndarray, "64 64"]:
    """Return the share of each pixel that is covered by ink."""
    outline, centre, extent = distance_fields(glyph.font, glyph.character)
    styles = glyph.styles
    if "large" in styles:
        size = rng.uniform(54, 62)
    else:
        size = rng.uniform(22, 30) if "small" in styles else rng.uniform(36, 52)
    zoom = size / extent
    where = _warp(glyph, zoom, rng)
    far = 8.0
    outline = ndimage.map_coordinates(outline, where, order=1, cval=far)
    centre = ndimage.map_coordinates(centre, where, order=1, cval=far)
    return (_stroke(glyph, outline, centre, rng) * zoom + 0.5).clip(0, 1).astype(np.float32)


def _stroke(
    glyph: Glyph,
    outline: Float32[np.ndarray, "64 64"],
    centre: Float32[np.ndarray, "64 64"],
    rng: np.random.Generator,
) -> Float32[np.ndarray, "64 64"]:
    """Return how deep each point lies in the ink, in canvas pixels, negative outside."""
    styles, drawn_bold = glyph.styles, "bold" in FONTS[glyph.font]
    if "hand-drawn" in styles:
        low, high = (0.7, 1.3) if "thin" in styles else (1.5, 3.2)
        return rng.uniform(*((3.4, 4.8) if "bold" in styles else (low, high))) - centre
    offset = rng.uniform(-0.4, 0.4)
    if "outlined" in styles:
        return rng.uniform(0.6, 1.1) - np.abs(outline - 0.7)
    if "thin" in styles:
        return np.maximum(rng.uniform(-3.4, -2.4 if drawn_bold else -1.2) - outline, 0.8 - centre)
    if "bold" in styles and not drawn_bold:
        offset = rng.uniform(1.2, 2.2)
    return offset - outline


def _warp(glyph: Glyph, zoom: float, rng: np.random.Generator) -> Float32[np.ndarray, "2 64 64"]:
    """Return for every pixel the point of the glyph's own canvas that is seen there."""
    styles, font = glyph.styles, FONTS[glyph.font]
    by_hand = "hand-drawn" in styles
    turn = rng.uniform(-6, 6)
    if "rotated" in styles:
        turn = rng.uniform(12, 28) * rng.choice([-1, 1])
    shear = rng.uniform(-0.15, 0.25) if by_hand else rng.uniform(-0.06, 0.06)
    if "italic" in styles and "italic" not in font:
        shear += rng.uniform(0.2, 0.35)
    narrow = np.exp(rng.uniform(-0.25, 0.25))
    y, x = np.mgrid[:CANVAS, :CANVAS].astype(np.float32) + 0.5 - CANVAS / 2
    y, x = y + rng.uniform(-3, 3), x + rng.uniform(-3, 3)
    cos, sin = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    y, x = (cos * y - sin * x) / zoom, (sin * y + cos * x) / zoom * narrow
    x = x + shear * y
    wobble = rng.uniform(1.4, 3.0) if "wobbly" in styles else rng.uniform(0.0, 0.5)
    coarse = rng.normal(0.0, wobble, (2, 5, 5))
    bends = [ndimage.zoom(b, CANVAS / 5, order=3, grid_mode=True, mode="nearest") for b in coarse]
    return np.stack([y + bends[0], x + bends[1]]).astype(np.float32) + (CANVAS - 1) / 2


def _coarsen(
    coverage: Float32[np.ndarray, "64 64"], side: int, blocky: bool, rng: np.random.Generator
) -> Float32[np.ndarray, "32 32"]:
    smooth = Image.Resampling.BICUBIC if rng.random() < 0.5 else Image.Resampling.BILINEAR
    few = Image.fromarray(coverage).resize((side, side), Image.Resampling.BOX)
    return np.asarray(few.resize((SIDE, SIDE), Image.Resampling.NEAREST if blocky else smooth))


def _tones(styles: frozenset[str], rng: np.random.Generator) -> tuple[float, float]:
    """Return the brightness of ink and paper."""
    low, high = rng.uniform(0.0, 0.25), rng.uniform(0.75, 1.0)
    if "faint" in styles:
        low = rng.uniform(0.1, 0.6)
        high = low + rng.uniform(0.18, 0.32)
    elif "dark" in styles:
        low, high = low * 0.4, high * 0.5
    elif "bright" in styles:
        low, high = 0.45 + low * 0.4, 1.0
    return (high, low) if "inverted" in styles else (low, high)
