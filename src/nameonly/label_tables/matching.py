"""Finds the row of a table of labels that belongs to an image: by path, by stem or by id.

Two paths are the same if one ends in the other. Where their folders contradict each other they are
not: ``test/1.jpg`` is another image than ``train/1.jpg``.
"""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

EXAMPLES = 3
CHOICES_SHOWN = 10


def find_labels(
    paths: Sequence[str], ids: Sequence[str], table: Mapping[str, str], by: str
) -> tuple[list[str | None], str]:
    """Return the label that the table has for every image, or None, and what they were found by.

    Raises:
        ValueError: If no image is found, or an image or a row of the table has several partners.
    """
    steps = ("path", "stem", "id") if by == "auto" else (by,)
    for step in steps:
        if step == "id":
            labels = [table.get(image_id) for image_id in ids]
        elif step == "path":
            labels = _by_path(paths, table)
        elif by == "auto" and any("/" in plain_path(key) for key in table):
            continue  # 1.jpg of another folder is another image
        else:
            labels = _by_stem(paths, table)
        if any(label is not None for label in labels):
            return labels, step
    raise ValueError(
        f"no image is found in the table of labels by {' or '.join(steps)}; the images are "
        f"{shown_items(paths)} with ids {shown_items(ids)}, the table has {shown_items(table)}; "
        f"by='stem' compares names without folders and endings"
    )


def _by_path(paths: Sequence[str], table: Mapping[str, str]) -> list[str | None]:
    names = [plain_path(path) for path in paths]
    keys: dict[str, set[str]] = {}
    for key, label in table.items():
        keys.setdefault(plain_path(key), set()).add(label)
    taken = set(names) & keys.keys()
    longer: dict[str, list[str]] = {}
    for key in keys.keys() - taken:
        for ending in _endings(key):
            longer.setdefault(ending, []).append(key)
    partners = []
    for name in names:
        if name in taken:
            partners.append([name])
            continue
        shorter = [e for e in _endings(name) if e in keys and e not in taken]
        partners.append(sorted(longer.get(name, [])) or shorter[:1])
    return _labels(paths, partners, keys)


def _by_stem(paths: Sequence[str], table: Mapping[str, str]) -> list[str | None]:
    keys = {key: {label} for key, label in table.items()}
    stems = [PurePosixPath(plain_path(path)).stem for path in paths]
    whole: dict[str, list[str]] = {stem: [] for stem in stems}
    cut: dict[str, list[str]] = {}
    for key in table:
        name = PurePosixPath(plain_path(key))
        # "scan.v2" in the table is rather the stem of scan.v2.jpg than a file that ends in ".v2".
        if name.name in whole:
            whole[name.name].append(key)
        else:
            cut.setdefault(name.stem, []).append(key)
    partners = [whole[stem] or cut.get(stem, []) for stem in stems]
    return _labels(paths, partners, keys)


def _labels(
    paths: Sequence[str], partners: Sequence[Sequence[str]], keys: Mapping[str, set[str]]
) -> list[str | None]:
    """Return the label of each image's one partner; images that share a partner are refused."""
    labels: list[str | None] = []
    owner: dict[str, str] = {}
    for path, found in zip(paths, partners, strict=True):
        choices = sorted({label for key in found for label in keys[key]})
        if len(choices) > 1:
            raise ValueError(
                f"{path!r} could be {shown_items(found)} of the table of labels, which differ "
                f"({', '.join(choices[:CHOICES_SHOWN])}); use path, with folders in the table"
            )
        for key in found:
            if owner.setdefault(key, path) != path:
                raise ValueError(
                    f"{owner[key]!r} and {path!r} both match {key!r} of the table of labels; "
                    f"use path, with folders in the table"
                )
        labels.append(choices[0] if choices else None)
    return labels


def plain_path(path: str) -> str:
    """Return a path with single forward slashes, in NFC: tables travel between systems."""
    parts = unicodedata.normalize("NFC", path).replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", "."))


def _endings(path: str) -> list[str]:
    """Return the path without its first folder, without its first two, ... down to the name."""
    endings = []
    while "/" in path:
        path = path.split("/", 1)[1]
        endings.append(path)
    return endings


def shown_items(items: Iterable[str], n: int = EXAMPLES) -> str:
    """Return the first ``n`` items as an error message lists them."""
    shown = list(items)
    return ", ".join(repr(item) for item in shown[:n]) + (", ..." if len(shown) > n else "")
