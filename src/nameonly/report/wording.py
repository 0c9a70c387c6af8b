"""How counts, probabilities, durations and settings read on the page."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

# Control characters and lone surrogates (undecodable bytes of a file name) cannot stand in HTML.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_ELLIPSIS = "\u2026"


def clean(value: Any) -> Any:
    """Return text without characters that HTML forbids; other values and markup are unchanged."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return _UNPRINTABLE.sub("\ufffd", value)
    return value


def shortened(text: str, limit: int) -> str:
    """Return the text in at most ``limit`` characters; what is too long loses its middle."""
    if len(text) <= limit:
        return text
    tail = limit // 2
    return text[: limit - tail - 1] + _ELLIPSIS + text[len(text) - tail :]


def candidate_words(row: Mapping[str, Any]) -> str:
    """Return what a selection tried, from its row in ``run.json``."""
    prompts, backbone = row.get("prompts"), row.get("backbone")
    words = [str(row["recipe"])]
    words += [f"prompts {prompts}"] if prompts else []
    return ", ".join(words + ([f"on {backbone}"] if backbone else []))


def file_name(source: str) -> str:
    """Return the last part of a source, the one that tells neighbours apart.

    A table's row comes before the table's name, which all its neighbours share.
    """
    last = source.rstrip("/\\").replace("\\", "/").rpartition("/")[2] or source
    table, mark, row = last.rpartition("#")
    return f"#{row} of {table}" if mark and table and row.isdecimal() else last


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return ``1 image`` or ``1,200 images``; ``many`` is for plurals that do not end in s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def short_count(number: int) -> str:
    """Return a number in at most four characters, such as 87, 1.2k or 34k, up to a million."""
    if number < 1000:
        return str(number)
    return f"{number / 1000:.1f}k" if number < 9950 else f"{number / 1000:.0f}k"


def share_text(part: int, whole: int) -> str:
    """Return a share in per cent that is 0 or 100 only when it is exactly that."""
    if whole == 0:
        return "0 %"
    percent = 100 * part / whole
    if 0 < percent < 1:
        return "under 1 %"
    if 99 < percent < 100:
        return "over 99 %"
    return f"{percent:.0f} %"


def probability_text(probability: float) -> str:
    """Return a probability to two places that is 0 or 1 only when it is exactly that."""
    if 0 < probability < 0.005:
        return "<0.01"
    if 0.995 <= probability < 1:
        return ">0.99"
    return f"{probability:.2f}"


def duration_text(seconds: float) -> str:
    """Return a duration in the units that fit it."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


def setting_text(value: Any) -> str:
    """Return one setting of ``run.json`` as readable text."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(setting_text(entry) for entry in value) or "none"
    return str(value)


def flat_settings(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield every setting as a dotted name and its text, in the order given."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat_settings(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", setting_text(value)
