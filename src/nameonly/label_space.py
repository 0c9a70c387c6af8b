"""Class names from whatever a person has: a list, a line, a text file, JSON, YAML or TOML."""

import csv
import difflib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nameonly.structured_files import FORMATS, read_structured, read_text, shown
from nameonly.types import LabelSpace, class_key

TABLES = (".csv", ".tsv", ".parquet", ".xlsx")
TOP_KEYS = ("classes", "templates")
CLASS_KEYS = ("name", "prompts", "descriptions", "parent")
STRUCTURE = "a list of class names, or of mappings with name, prompts, descriptions, parent"
# Control characters, lone surrogates, line and paragraph separators: no encoder can read them, and
# a tab tells that a table was given.
UNREADABLE = ("Cc", "Cs", "Zl", "Zp")
PROBLEMS_SHOWN = 10


@dataclass(frozen=True)
class Origin:
    """Where class names came from, to say in an error."""

    name: str
    unit: str = "item"

    def at(self, position: int) -> str:
        """Return the place of one name, counted from one."""
        separator = ":" if self.unit == "line" else f", {self.unit} "
        return f"{self.name}{separator}{position}"


@dataclass(frozen=True)
class Entry:
    """One class as it was written."""

    position: int
    text: str
    prompts: tuple[str, ...] = ()
    descriptions: tuple[str, ...] = ()
    parent: str | None = None

    @property
    def name(self) -> str:
        """The readable name: NFC, underscores as spaces, no outer blanks."""
        return unicodedata.normalize("NFC", self.text).replace("_", " ").strip()


def read_label_space(spec: str | Path | Sequence[str]) -> LabelSpace:
    r"""Return the classes that ``spec`` names, in its order.

    A string is a file where such a file exists, else names separated by commas (quotes around a
    name keep a comma in it). Files by their ending: JSON (a list; ``{prompt: class}``; ``{class:
    [descriptions]}``), YAML and TOML (``classes``: names, or mappings with name, prompts,
    descriptions, parent; optional ``templates``), anything else text with one name per line. In
    text files ``#`` starts a comment at the start of a line or after a blank, so ``C#`` is a name.

    Names keep their spelling in Unicode's NFC form; underscores become spaces.

    Raises:
        ValueError: If the file is missing, cannot be read or has another structure; if a name is
            empty, unreadable or repeats another one (case and spacing ignored); if there are
            fewer than two classes. The message shows the lines or items at fault.
    """
    if not isinstance(spec, str | Path):
        origin = Origin("class names")
        return _build([_entry(item, i, origin) for i, item in enumerate(spec, 1)], origin)
    path = Path(spec)
    if str(spec).strip() and _exists(path):
        return _read_file(path)
    if isinstance(spec, Path) or _looks_like_path(spec):
        raise ValueError(
            f"there is no file {str(spec)!r}; give a file that exists, or the class names "
            f"themselves, separated by commas"
        )
    return _build(_split_names(spec), Origin("class names"))


def with_seen(label_space: LabelSpace, spec: str | Sequence[str]) -> LabelSpace:
    """Return the classes with those marked of which every image has a given label already.

    An image without a given label then belongs to one of the others.

    Args:
        label_space: All classes.
        spec: Names, separated by commas or in a text file with one a line.

    Raises:
        ValueError: If a name is no class, or all of them are named.
    """
    if isinstance(spec, str):
        is_file = spec.strip() != "" and _exists(Path(spec))
        lines = read_text(Path(spec)).splitlines() if is_file else None
        listed = [e.name for e in _split_names(spec)] if lines is None else lines
    else:
        listed = list(spec)
    wanted = {class_key(name) for name in listed if name.strip()}
    unknown = wanted - {class_key(name) for name in label_space.class_names}
    if unknown or not wanted:
        raise ValueError(
            f"seen classes {sorted(unknown) or listed} are no class names; there are: "
            f"{', '.join(label_space.class_names)}"
        )
    seen = tuple(class_key(name) in wanted for name in label_space.class_names)
    if all(seen):
        raise ValueError(
            "all classes are said to be seen, so that an unlabelled image could have none; leave "
            "the seen classes out to let it have any"
        )
    return replace(label_space, seen=seen)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a long list of names is no possible file name
        return False


def _looks_like_path(spec: str) -> bool:
    if Path(spec).suffix.lower() in (".txt", *FORMATS, *TABLES):
        return True
    # "AC/DC,Queen" is a list of names, "data/classes" is not.
    return spec.startswith(("/", "./", "../", "~/")) or (
        "," not in spec and ("/" in spec or "\\" in spec)
    )


def _split_names(spec: str) -> list[Entry]:
    try:
        rows = list(csv.reader(spec.splitlines(), skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise ValueError(
            f"class names {shown(spec)} cannot be split at the commas ({error}); "
            f'write them as cat,dog or "cat, grey",dog'
        ) from None
    return [Entry(i, text) for i, text in enumerate((t for row in rows for t in row), 1)]


def _read_file(path: Path) -> LabelSpace:
    if path.is_dir():
        raise ValueError(f"{path} is a folder; class names come from a file or a list of names")
    suffix = path.suffix.lower()
    if suffix in TABLES:
        raise ValueError(
            f"{path} is a table; class names come from a text file with one name per line, or "
            f"from JSON, YAML or TOML"
        )
    if suffix in FORMATS:
        return _from_data(read_structured(path), path, FORMATS[suffix])
    entries = []
    for number, line in enumerate(re.split(r"\r\n|\r|\n", read_text(path)), 1):
        name = re.sub(r"(^|\s)#.*", "", line).strip()
        if name:
            entries.append(Entry(number, name))
    return _build(entries, Origin(path.name, "line"))


def _from_data(data: Any, path: Path, kind: str) -> LabelSpace:
    origin, templates = Origin(path.name), None
    if isinstance(data, dict):
        if kind == "JSON" and not any(key in data for key in TOP_KEYS):
            return _build(_from_object(data, origin), origin)
        _check_keys(data, TOP_KEYS, path.name)
        templates = _templates(data.get("templates"), path.name)
        data = data.get("classes")
    if not isinstance(data, list):
        raise ValueError(f"{path}: classes should be {STRUCTURE}, got {_kind(data)}")
    entries = [_entry(item, i, origin) for i, item in enumerate(data, 1)]
    return _build(entries, origin, templates)


def _from_object(data: dict[str, Any], origin: Origin) -> list[Entry]:
    """Read ``{prompt: class}`` or ``{class: [descriptions]}``, told apart by the values."""
    if all(isinstance(value, str) for value in data.values()):
        classes: dict[str, tuple[Entry, list[str]]] = {}
        for i, (prompt, text) in enumerate(data.items(), 1):
            entry = Entry(i, text)
            prompts = classes.setdefault(entry.name, (entry, []))[1]
            prompts.extend(_texts([prompt], "the prompt", origin.at(i)))
        return [Entry(e.position, e.text, tuple(prompts)) for e, prompts in classes.values()]
    for i, (key, value) in enumerate(data.items(), 1):
        if not isinstance(value, list):
            raise ValueError(
                f"{origin.at(i)}: {shown(key)} holds {_kind(value)}; an object of class names is "
                f"{{prompt: class}} with texts or {{class: [descriptions]}} with lists throughout"
            )
    return [
        Entry(i, key, descriptions=_texts(value, "descriptions", origin.at(i)))
        for i, (key, value) in enumerate(data.items(), 1)
    ]


def _entry(item: Any, position: int, origin: Origin) -> Entry:
    where = origin.at(position)
    if not isinstance(item, Mapping):
        return Entry(position, _text(item, "the class name", where))
    _check_keys(item, CLASS_KEYS, where)
    if "name" not in item:
        raise ValueError(f"{where}: the key 'name' is missing; valid keys: {', '.join(CLASS_KEYS)}")
    parent = item.get("parent")
    return Entry(
        position,
        _text(item["name"], "the class name", where),
        _texts(item.get("prompts"), "prompts", where),
        _texts(item.get("descriptions"), "descriptions", where),
        Entry(position, _texts([parent], "parent", where)[0]).name if parent is not None else None,
    )


def _templates(value: Any, where: str) -> tuple[str, ...] | None:
    templates = _texts(value, "templates", where)
    for template in templates:
        if template.count("{}") != 1:
            raise ValueError(
                f"{where}: a template has exactly one {{}} for the class name, "
                f"got {shown(template)}"
            )
    return templates or None


def _texts(value: Any, what: str, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, str | list):
        raise ValueError(f"{where}: {what} should be a list of texts, got {_kind(value)}")
    texts = [value] if isinstance(value, str) else value
    clean = [unicodedata.normalize("NFC", _text(t, f"one of {what}", where)).strip() for t in texts]
    if not all(clean):
        raise ValueError(f"{where}: {what} holds an empty text; write one or leave it out")
    return tuple(clean)


def _text(value: Any, what: str, where: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list | dict) or value is None:
        raise ValueError(f"{where}: {what} should be text, got {_kind(value)}")
    raise ValueError(
        f"{where}: {what} was read as {shown(value)} ({_kind(value)}), not as text; "
        f"put it in quotes"
    )


def _check_keys(mapping: Mapping[Any, Any], valid: Iterable[str], where: str) -> None:
    unknown = [str(key) for key in mapping if key not in valid]
    if not unknown:
        return
    parts = []
    for key in unknown[:PROBLEMS_SHOWN]:
        close = difflib.get_close_matches(key, list(valid), 1)
        parts.append(shown(key) + (f" (did you mean {close[0]!r}?)" if close else ""))
    raise ValueError(f"{where}: unknown keys {', '.join(parts)}; valid keys: {', '.join(valid)}")


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def _build(
    entries: Sequence[Entry], origin: Origin, templates: tuple[str, ...] | None = None
) -> LabelSpace:
    if not entries:
        raise ValueError(f"{origin.name}: no class names there; at least two are needed")
    problems = _problems(entries, origin)
    if not problems and len(entries) == 1:
        hint = "; in a text file every name has its own line" if "," in entries[0].text else ""
        problems = [
            f"{origin.at(entries[0].position)}: {shown(entries[0].text)} is the only class; "
            f"at least two are needed{hint}"
        ]
    if problems:
        more = len(problems) - PROBLEMS_SHOWN
        rest = [f"and {more} more"] if more > 0 else []
        raise ValueError("\n".join(problems[:PROBLEMS_SHOWN] + rest))
    return LabelSpace(
        class_names=tuple(entry.name for entry in entries),
        templates=templates,
        prompts=tuple(e.prompts for e in entries) if any(e.prompts for e in entries) else None,
        descriptions=tuple(e.descriptions for e in entries)
        if any(e.descriptions for e in entries)
        else None,
        parents=tuple(e.parent for e in entries) if any(e.parent for e in entries) else None,
    )


def _problems(entries: Sequence[Entry], origin: Origin) -> list[str]:
    problems = []
    first: dict[str, Entry] = {}
    for entry in entries:
        where, text = origin.at(entry.position), shown(entry.text)
        other = first.setdefault(class_key(entry.name), entry)
        if not entry.name:
            problems.append(f"{where}: {text} is an empty class name")
        elif any(unicodedata.category(letter) in UNREADABLE for letter in entry.name):
            problems.append(f"{where}: {text} holds a tab or another unreadable character")
        elif other is not entry:
            problems.append(
                f"{where}: {text} repeats {shown(other.text)} of {origin.unit} {other.position}"
            )
    return problems
