"""What each data set is and where a user gets it, read from the TOML files beside this module.

A file describes one collection of images; each of its ``splits`` is a data set of its own name.
"""

import itertools
import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from nameonly.datasets.class_names import ClassNames
from nameonly.datasets.layouts import ClassFolders, DrawnSplit, Layout
from nameonly.datasets.lists import CoOpSplit, ElevaterSplit, Lists, NumberedLists
from nameonly.datasets.mat import MatNumbers, MatRecords
from nameonly.datasets.packed import BundledDigits, CifarBinary, Idx, Parquet
from nameonly.prompts.templates import template_set

ROOT = Path(__file__).parent
PROTOCOL = ("a photo of a {}",)
KINDS: dict[str, type[Layout]] = {
    "folders": ClassFolders,
    "drawn": DrawnSplit,
    "lists": Lists,
    "numbered_lists": NumberedLists,
    "coop": CoOpSplit,
    "elevater": ElevaterSplit,
    "mat_numbers": MatNumbers,
    "mat_records": MatRecords,
    "idx": Idx,
    "cifar_binary": CifarBinary,
    "parquet": Parquet,
    "bundled": BundledDigits,
}


@dataclass(frozen=True)
class Description:
    """A data set as its files are published.

    Attributes:
        name: What ``open_dataset`` is given.
        title: What the data set is called.
        paper: Citation.
        home: Page where a user gets it.
        licence: As its makers state it.
        rule: Who made the split, and how.
        n_classes: Number of classes.
        n_train: Number of images to adapt on.
        n_test: Number of images to score.
        classes: How classes are named.
        layout: Where the images lie.
        customary: Templates that CLIP's users customarily take for it, or the name of a set.
        inside: Folders that the archive may unpack into, tried below the root before the root.
        protocol: Templates of the shared protocol.
        notes: What a reader of a result should know.
    """

    name: str
    title: str
    paper: str
    home: str
    licence: str
    rule: str
    n_classes: int
    n_train: int
    n_test: int
    classes: ClassNames
    layout: Layout
    customary: tuple[str, ...]
    inside: tuple[str, ...] = ()
    protocol: tuple[str, ...] = PROTOCOL
    notes: str = ""

    @property
    def templates(self) -> dict[str, tuple[str, ...]]:
        """The sets of templates by name: ``protocol`` and ``customary``."""
        customary = itertools.chain.from_iterable(template_set(t) for t in self.customary)
        return {"protocol": self.protocol, "customary": tuple(customary)}

    @property
    def files(self) -> tuple[str, ...]:
        """What must be in the folder: patterns of images, lists, files of class names."""
        named = " or ".join(() if self.layout.brings_names else self.classes.files)
        return (*self.layout.files(), named) if named else self.layout.files()


def names() -> list[str]:
    """Return the names of all data sets; none of their folders is looked at."""
    return sorted(_tables())


def describe(name: str) -> Description:
    """Return the description of a data set.

    Raises:
        ValueError: If there is none of that name.
    """
    tables = _tables()
    if name not in tables:
        close = get_close_matches(name, tables, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"no data set {name!r}; {hint}there are: {', '.join(sorted(tables))}")
    fields = dict(tables[name])
    layout = dict(fields.pop("layout"))
    kind = KINDS[layout.pop("kind")]
    classes = ClassNames(**fields.pop("classes"))
    return Description(name=name, classes=classes, layout=kind(**layout), **fields)


@cache
def _tables() -> dict[str, dict[str, Any]]:
    """Map every data set to the fields of its split over those of its file."""
    tables: dict[str, dict[str, Any]] = {}
    for path in sorted(ROOT.glob("*.toml")):
        shared = tomllib.loads(path.read_text(encoding="utf-8"))
        splits = shared.pop("splits")
        for name, split in splits.items():
            classes = {**shared.get("classes", {}), **split.get("classes", {})}
            tables[name] = _frozen({**shared, **split, "classes": classes})
    return tables


def _frozen(value: Any) -> Any:
    """Turn lists into tuples, all the way down."""
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    return tuple(value) if isinstance(value, list) else value
