"""JSON, YAML and TOML files as plain data, with one kind of error.

A key that is there twice is an error: the parsers would silently let one of the two win.
"""

import json
import tomllib
from pathlib import Path
from typing import Any

import yaml

# no list of classes is as large; a larger file would fill the memory before it is found wrong
MAX_BYTES = 1 << 28
FORMATS = {".json": "JSON", ".yaml": "YAML", ".yml": "YAML", ".toml": "TOML"}


def read_structured(path: Path) -> Any:
    """Return the content of a JSON, YAML or TOML file, told apart by its ending.

    Raises:
        ValueError: If the file cannot be read, is empty or is broken; the message gives the line
            and column where the parser knows them.
    """
    kind = FORMATS[path.suffix.lower()]
    text = read_text(path)
    try:
        if kind == "JSON":
            return json.loads(text, object_pairs_hook=_unique_keys)
        if kind == "TOML":
            return tomllib.loads(text)
        _check_yaml_keys(text)
        return yaml.safe_load(text)
    except json.JSONDecodeError as error:
        reason = f"line {error.lineno}, column {error.colno}: {error.msg}"
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        reason = f"{place}{error.problem or error.context}"
    except RecursionError:
        reason = "it is nested too deeply"
    # PyYAML's own converters of odd tags and dates raise these.
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError) as error:
        reason = " ".join(str(error).split())
    raise ValueError(f"{path} is not valid {kind}: {reason}")


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file, with or without byte order mark.

    Raises:
        ValueError: If the file cannot be read, is empty or too large, or is not UTF-8.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ValueError(f"{path} has {size:,} bytes; at most {MAX_BYTES:,} are read")
        raw = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        byte = f"byte {raw[error.start]:#04x} is not UTF-8"
        raise ValueError(f"{path}, line {line}: {byte}; save the file as UTF-8") from None
    if not text.strip():
        raise ValueError(f"{path} is empty")
    return text


def shown(value: Any) -> str:
    """Return a value as an error message shows it: quoted, and cut where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {shown(key)} is there twice; keep one")
        result[key] = value
    return result


def _check_yaml_keys(text: str) -> None:
    """Refuse a key that is there twice, which ``safe_load`` would let win silently."""
    todo, done = [yaml.compose(text, Loader=yaml.SafeLoader)], set()
    while todo:
        node = todo.pop()
        if id(node) in done:
            continue
        done.add(id(node))
        if isinstance(node, yaml.MappingNode):
            keys = set()
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode) and key.value in keys:
                    line = key.start_mark.line + 1
                    raise ValueError(
                        f"line {line}: the key {shown(key.value)} is there twice; keep one"
                    )
                keys.add(key.value if isinstance(key, yaml.ScalarNode) else None)
                todo.append(value)
        elif isinstance(node, yaml.SequenceNode):
            todo.extend(node.value)
