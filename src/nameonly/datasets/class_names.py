"""Readable class names: written in a description, read from the data set's files, or its folders.

A data set calls its classes by keys (a folder, a number, a WordNet id); the rule here turns every
key into a name, and fixes the order of the columns.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from nameonly.datasets.layouts import Folder
from nameonly.datasets.lists import CAMEL
from nameonly.datasets.mat import read_records, read_texts


@dataclass(frozen=True, kw_only=True)
class ClassNames:
    """The rule for one data set. Without ``names`` and ``files`` the keys that were found are used.

    Attributes:
        names: Names in order, or key -> name in order.
        files: Files that may hold them; the first that is there is read.
        pattern: Regular expression of a line that holds a name, with the group ``name`` and, where
            the key is another text, ``key``; other lines are passed over.
        variable: Variable of a .mat file: a cell array of names.
        fields: Where the variable is an array of records: the fields of key and name.
        first: Number of the first class where keys are positions in the order, else None.
        order: How keys are sorted: not at all, as they are, or without regard to case.
        words: How a name is made readable: underscores to spaces always; ``camel`` parts CamelCase;
            ``path`` reads a path backwards without its leading letter; ``synonym`` takes the first
            of several, separated by commas.
        renamed: Key -> name in place of what the rule gives.
        only_found: Leave out classes that have no image, for subsets of a longer list.
    """

    names: tuple[str, ...] | dict[str, str] = ()
    files: tuple[str, ...] = ()
    pattern: str = "(?P<name>.+)"
    variable: str = ""
    fields: tuple[str, ...] = ()
    first: int | None = None
    order: Literal["", "plain", "casefold"] = ""
    words: Literal["", "camel", "path", "synonym"] = ""
    renamed: dict[str, str] = field(default_factory=dict)
    only_found: bool = False

    def missing(self, folder: Folder) -> list[str]:
        """Return the files of names as one entry, where none of them is there."""
        if not self.files or any(folder.find(name) for name in self.files):
            return []
        return [" or ".join(self.files)]

    def resolve(self, folder: Folder, found: Iterable[str]) -> dict[str, str]:
        """Return key -> readable name, in column order.

        Args:
            folder: Where the files of names are.
            found: The keys that images have.

        Raises:
            ValueError: If the file of names is broken or holds none.
        """
        keys = set(found)
        pairs = self._pairs(folder) or [(key, key) for key in sorted(keys)]
        if self.order:
            fold = str.casefold if self.order == "casefold" else str
            pairs.sort(key=lambda pair: fold(pair[0]))
        if self.only_found:
            pairs = [(key, name) for key, name in pairs if key in keys]
        named = {key: self.renamed.get(key) or self._readable(name) for key, name in pairs}
        if self.first is None:
            return named
        return {str(i): name for i, name in enumerate(named.values(), self.first)}

    def _pairs(self, folder: Folder) -> list[tuple[str, str]]:
        if isinstance(self.names, dict):
            return list(self.names.items())
        if self.names:
            return [(name, name) for name in self.names]
        file = next((name for name in self.files if folder.find(name) is not None), None)
        if file is None:
            return []
        if file.endswith(".mat"):
            path = folder.file(file)
            if self.fields:
                return [(k, n) for k, n in read_records(path, self.variable, self.fields)]
            return [(name, name) for name in read_texts(path, self.variable)]
        matches = [re.fullmatch(self.pattern, line) for _, line in folder.lines(file)]
        pairs = [(m.groupdict().get("key") or m["name"], m["name"]) for m in matches if m]
        if not pairs:
            raise ValueError(f"{file} has no line of the form {self.pattern}")
        return pairs

    def _readable(self, name: str) -> str:
        if self.words == "synonym":
            name = name.split(",")[0]
        if self.words == "camel":
            name = " ".join(CAMEL.findall(name)) or name
        if self.words == "path":
            name = " ".join(reversed(name.strip("/").split("/")[1:]))
        return " ".join(name.replace("_", " ").split())
