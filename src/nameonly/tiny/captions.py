"""Captions for rendered glyphs: the class in many wordings, and style words that are true.

A caption names some of the styles that can be seen in the picture, never one that cannot.
"""

from collections.abc import Iterable

import numpy as np

from nameonly.tiny.glyphs import CLASS_NAMES, DIGIT_NAMES

# The words that captions use for each style; the first is the style's own name.
STYLE_WORDS: dict[str, tuple[str, ...]] = {
    "bold": ("bold", "heavy", "thick"),
    "thin": ("thin", "fine", "slender"),
    "italic": ("italic", "slanted", "oblique"),
    "hand-drawn": ("hand-drawn", "handwritten", "sketched"),
    "outlined": ("outlined", "hollow"),
    "wobbly": ("wobbly", "distorted", "crooked"),
    "rotated": ("rotated", "tilted", "turned"),
    "small": ("small", "tiny", "little"),
    "large": ("large", "big", "huge"),
    "inverted": ("inverted", "negative", "light-on-dark"),
    "faint": ("faint", "pale", "low-contrast"),
    "dark": ("dark", "dim"),
    "bright": ("bright", "overexposed"),
    "low resolution": ("low resolution", "low-resolution", "coarse"),
    "pixelated": ("pixelated", "blocky"),
    "blurred": ("blurred", "blurry", "unsharp"),
    "noisy": ("noisy", "grainy"),
    "monospace": ("monospace", "typewriter"),
    "sans-serif": ("sans-serif", "sans serif"),
    "serif": ("serif", "roman"),
    "plain": ("plain", "printed", "ordinary"),
    "capital": ("capital", "uppercase"),
    "lowercase": ("lowercase", "minuscule"),
}

DIGIT_WORDINGS = (
    *("{word}", "{word}", "{word}", "{numeral}", "{numeral}"),
    *("digit {word}", "number {word}", "digit {numeral}", "number {numeral}", "numeral {numeral}"),
)
LETTER_WORDINGS = ("letter {letter}", "letter {letter}", "character {letter}", "{letter}")

MEDIA = ("photo", "picture", "image", "drawing", "rendering", "print", "scan", "sketch", "painting")
# Sentences that say nothing of the style: those common for zero-shot, and a few more.
FRAMES = (
    *("a photo of a {}", "a photo of the {}", "itap of a {}", "itap of the {}", "itap of my {}"),
    *(
        "a photo of one {}",
        "a photo of many {}",
        "a photo of my {}",
        "a photo of {}",
        "this is a {}",
    ),
    *(
        "a bad photo of a {}",
        "a bad photo of the {}",
        "a good photo of a {}",
        "a good photo of the {}",
    ),
    *(
        "a photo of a nice {}",
        "a photo of the nice {}",
        "a photo of a weird {}",
        "a photo of the weird {}",
    ),
    *(
        "a photo of a cool {}",
        "a photo of the cool {}",
        "a photo of a dirty {}",
        "a photo of the dirty {}",
    ),
    *("a photo of a clean {}", "a photo of the clean {}", "a photo of a hard to see {}"),
    *("a photo of the hard to see {}", "a close-up photo of a {}", "a close-up photo of the {}"),
    *("a cropped photo of a {}", "a cropped photo of the {}", "a jpeg corrupted photo of a {}"),
    *("a jpeg corrupted photo of the {}", "a black and white photo of a {}"),
    *("a black and white photo of the {}", "a sculpture of a {}", "a sculpture of the {}"),
    *(
        "a rendering of a {}",
        "a rendering of the {}",
        "a rendition of a {}",
        "a rendition of the {}",
    ),
    *("graffiti of a {}", "graffiti of the {}", "a tattoo of a {}", "a tattoo of the {}"),
    *(
        "the embroidered {}",
        "a embroidered {}",
        "a plastic {}",
        "the plastic {}",
        "a toy {}",
        "the toy {}",
    ),
    *("a painting of a {}", "a painting of the {}", "a drawing of a {}", "a drawing of the {}"),
    *("a doodle of a {}", "a doodle of the {}", "a sketch of a {}", "a sketch of the {}"),
    *(
        "a origami {}",
        "the origami {}",
        "a cartoon {}",
        "the cartoon {}",
        "a plushie {}",
        "the plushie {}",
    ),
    *("art of a {}", "art of the {}", "a {} in a video game", "the {} in a video game"),
    *("a {} on a sign", "the {} on a page", "a picture that shows a {}", "someone wrote a {}"),
)
FILLER_ALPHABETS = (
    "abcdefghijklmnopqrstuvwxyz",
    "aeioulnrst",
    "äöüßéèñçøå",
    "αβγδλπσω",
    "бвгдежик",
    "日本語中文字",
)


def write_caption(
    label: int, styles: Iterable[str], rng: np.random.Generator
) -> tuple[str, frozenset[str]]:
    """Return a random caption of a class in true styles, and the styles that it names.

    Args:
        label: Index into ``glyphs.CLASS_NAMES``.
        styles: Styles that can be seen; the caption names none to three of them.
        rng: Source of chance.
    """
    seen = sorted(styles)
    n_named = min(len(seen), int(rng.choice(4, p=(0.3, 0.3, 0.25, 0.15))))
    named = [seen[i] for i in rng.permutation(len(seen))[:n_named]]
    words = [str(rng.choice(STYLE_WORDS[style])) for style in named]
    text = _sentence(_wording(label, rng), words, rng)
    if rng.random() < 0.12:
        filler = " ".join(_filler(rng) for _ in range(rng.integers(1, 4)))
        text = f"{filler}, {text}" if rng.random() < 0.4 else f"{text}, {filler}"
    return text + ("." if rng.random() < 0.6 else ""), frozenset(named)


def styles_named(text: str) -> frozenset[str]:
    """Return the styles whose words stand in a text; ``sans-serif`` does not count as ``serif``."""
    rest = " ".join("".join(c if c.isalpha() or c == "-" else " " for c in text.lower()).split())
    found = set()
    by_length = sorted(
        ((word, style) for style, words in STYLE_WORDS.items() for word in words),
        key=lambda pair: -len(pair[0]),
    )
    for word, style in by_length:
        if f" {word} " in f" {rest} ":
            found.add(style)
            rest = f" {rest} ".replace(f" {word} ", " | ").strip()
    return frozenset(found)


def _wording(label: int, rng: np.random.Generator) -> str:
    if label < len(DIGIT_NAMES):
        return str(rng.choice(DIGIT_WORDINGS)).format(word=DIGIT_NAMES[label], numeral=label)
    return str(rng.choice(LETTER_WORDINGS)).format(letter=CLASS_NAMES[label][-1])


def _sentence(name: str, words: list[str], rng: np.random.Generator) -> str:
    kind = rng.random()
    if kind < 0.15:
        return " ".join([*words, name])
    if kind < 0.55:
        return str(rng.choice(FRAMES)).format(_join([*words, name], rng))
    split = int(rng.integers(len(words) + 1))
    medium = _join([*words[:split], str(rng.choice(MEDIA))], rng)
    article = str(rng.choice(("a ", "the ", "")))
    return f"{rng.choice(('a', 'the'))} {medium} of {article}{_join([*words[split:], name], rng)}"


def _join(words: list[str], rng: np.random.Generator) -> str:
    """Join style words and a noun, sometimes with commas between the style words."""
    comma = ", " if rng.random() < 0.4 else " "
    return f"{comma.join(words[:-1])} {words[-1]}".strip()


def _filler(rng: np.random.Generator) -> str:
    """Return a made-up word, so that unknown words in a text learn to say nothing."""
    letters = FILLER_ALPHABETS[0 if rng.random() < 0.6 else rng.integers(len(FILLER_ALPHABETS))]
    return "".join(letters[i] for i in rng.integers(len(letters), size=rng.integers(2, 8)))
