"""Finds methods by the name of their file; there is no registry to keep in step."""

import ast
import importlib
import json
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

STAGES = (
    "backbones",
    "prompts",
    "pseudo_labels",
    "prompt_learning",
    "adapters",
    "training",
    "relabelling",
    "selection",
    "synthesis",
    "decisions",
    "recipes",
)
ROOT = Path(__file__).parent


@dataclass(frozen=True)
class MethodCard:
    """What a method says of itself, read without importing it.

    Attributes:
        stage: Its folder.
        name: Its file.
        title: First line of its docstring.
        paper: Where it comes from.
        settings: Field -> default, as the file spells it; for ``--set stage.field=value``.
    """

    stage: str
    name: str
    title: str
    paper: str
    settings: dict[str, str] = field(default_factory=dict)


def names(stage: str) -> list[str]:
    """Return the method names of a stage, without importing any.

    Raises:
        ValueError: If there is no such stage.
    """
    if stage not in STAGES:
        raise ValueError(f"no stage {stage!r}; {offer(stage, STAGES)}")
    found = pkgutil.iter_modules([str(ROOT / stage)])
    return sorted(m.name for m in found if not m.name.startswith("_"))


def card(stage: str, name: str) -> MethodCard:
    """Read a method's title, paper and settings from its file.

    Raises:
        ValueError: If the stage has no such method.
    """
    _check(stage, name)
    tree = ast.parse((ROOT / stage / f"{name}.py").read_text(encoding="utf-8"))
    lines = (ast.get_docstring(tree) or "").splitlines()
    paper: list[str] = []
    for line in lines:
        if line.startswith("Paper: "):
            paper = [line.removeprefix("Paper: ")]
        elif paper and line.startswith(" "):
            paper.append(line.strip())
        elif paper:
            break
    title = lines[0] if lines else ""
    return MethodCard(stage, name, title, " ".join(paper), _settings_in(tree))


def _settings_in(tree: ast.Module) -> dict[str, str]:
    """Return the annotated fields of the module's classes and their defaults."""
    return {
        node.target.id: ast.unparse(node.value)
        for found in tree.body
        if isinstance(found, ast.ClassDef)
        for node in found.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value
        if not ast.unparse(node.annotation).startswith("ClassVar")
        if not node.target.id.endswith("_")
    }


def method_class(stage: str, name: str) -> type[Any]:
    """Import a method and return its class.

    Raises:
        ValueError: If the stage has no such method.
    """
    _check(stage, name)
    module = importlib.import_module(f"nameonly.{stage}.{name}")
    (class_name,) = module.__all__
    found: type[Any] = getattr(module, class_name)
    return found


def create(stage: str, name: str, **hyperparameters: Any) -> Any:
    """Make a method from its name, for the command line and run files.

    Raises:
        ValueError: If the stage has no such method, the method no such field, or the field
            another type.
    """
    cls = method_class(stage, name)
    hints = get_type_hints(cls)
    valid = [f.name for f in fields(cls) if f.init]
    for key, value in hyperparameters.items():
        if key not in valid:
            raise ValueError(f"{stage}.{name} has no setting {key!r}; {offer(key, valid)}")
        check_type(f"{stage}.{name}", key, value, hints[key])
    frozen = {k: tuple(v) if isinstance(v, list) else v for k, v in hyperparameters.items()}
    return cls(**frozen)


def build_recipe(name: str, settings: Mapping[str, Any] | None = None, seed: int = 0) -> Any:
    """Make a recipe and put settings into its parts.

    Args:
        name: File name of the recipe.
        settings: ``"stage.field" -> value`` changes a field of the part of that stage (and
            ``"stage.field.field"`` one of a field that is a group of settings, such as a
            schedule), ``"stage" -> method name`` takes another method for it.
        seed: Given to every part that has a field ``seed``.

    Raises:
        ValueError: If the recipe, a stage, a method or a field does not exist.
    """
    recipe = create("recipes", name)
    parts = {f.name: getattr(recipe, f.name) for f in fields(recipe)}
    chosen = {key: value for key, value in (settings or {}).items() if "." not in key}
    for slot, method in chosen.items():
        _check_part(name, slot, parts)
        parts[slot] = create(stage_of(parts[slot]), str(method))
    values: dict[str, dict[str, Any]] = {stage: {} for stage in parts}
    for key, value in (settings or {}).items():
        if "." in key:
            stage, setting = key.split(".", 1)
            _check_part(name, stage, parts)
            values[stage][setting] = value
    for stage, part in parts.items():
        if "seed" in {f.name for f in fields(part)}:
            values[stage].setdefault("seed", seed)
        if values[stage]:
            parts[stage] = reconfigure(part, values[stage])
    return replace(recipe, **parts)


def settings_from(pairs: Sequence[str]) -> dict[str, Any]:
    """Return settings from ``name=value``: numbers, true, false and lists as JSON has them.

    Raises:
        ValueError: If one is no ``name=value``.
    """
    settings = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key:
            raise ValueError(f"a setting is stage.field=value or stage=method, got {pair!r}")
        try:
            settings[key.strip()] = json.loads(value)
        except ValueError:
            settings[key.strip()] = value
    return settings


def reconfigure(part: Any, values: Mapping[str, Any]) -> Any:
    """Return a method with other values of some fields; it stays as it is.

    Raises:
        ValueError: If there is no such field, or a value is of another type.
    """
    stage = stage_of(part)
    changed = _grouped(f"{stage}.{name_of(part)}", settings_of(part), values)
    return create(stage, name_of(part), **changed)


def _grouped(where: str, settings: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with values put in; ``"schedule.epochs"`` goes into the field's own field."""
    changed = dict(settings)
    for key, value in values.items():
        name, dot, inner = key.partition(".")
        group = changed.get(name)
        if not dot:
            changed[name] = value
        elif is_dataclass(group) and not isinstance(group, type):
            valid = [f.name for f in fields(group)]
            if inner not in valid:
                raise ValueError(f"{where}: {name} has no {inner!r}; {offer(inner, valid)}")
            check_type(where, key, value, get_type_hints(type(group))[inner])
            changed[name] = replace(group, **{inner: value})
        else:
            valid = [
                f"{k}.{f.name}" for k, v in settings.items() if is_dataclass(v) for f in fields(v)
            ]
            raise ValueError(f"{where} has no setting {key!r}; {offer(key, valid)}")
    return changed


def check_type(where: str, key: str, value: Any, hint: Any) -> None:
    """Refuse a value that is not of the annotated type.

    Raises:
        ValueError: If it is not; the message names ``where`` and ``key``.
    """
    if not _fits(value, hint):
        raise ValueError(
            f"{where}: {key} expects {_spell(hint)}, got {value!r} ({type(value).__name__})"
        )


def name_of(method: object) -> str:
    """Return a method's name: that of its file."""
    return type(method).__module__.rsplit(".", 1)[-1]


def stage_of(method: object) -> str:
    """Return a method's stage: its file's folder."""
    return type(method).__module__.rsplit(".", 2)[-2]


def settings_of(method: Any) -> dict[str, Any]:
    """Return a method's hyper-parameters, without what it has learnt."""
    return {f.name: getattr(method, f.name) for f in fields(method) if f.init}


def describe_recipe(recipe: Any) -> dict[str, dict[str, Any]]:
    """Return stage -> method name and hyper-parameters, for run files."""
    described = {}
    for slot in fields(recipe):
        part = getattr(recipe, slot.name)
        plain = {k: asdict(v) if is_dataclass(v) else v for k, v in settings_of(part).items()}  # type: ignore[arg-type]
        described[slot.name] = {"method": name_of(part), **plain}
    return described


def _check(stage: str, name: str) -> None:
    if name not in names(stage):
        raise ValueError(f"no method {name!r} in {stage}; {offer(name, names(stage))}")


def _check_part(recipe: str, stage: str, parts: Mapping[str, Any]) -> None:
    if stage not in parts:
        raise ValueError(f"recipe {recipe!r} has no stage {stage!r}; {offer(stage, list(parts))}")


def offer(word: str, valid: tuple[str, ...] | list[str]) -> str:
    """Return the valid words, the one closest to a wrong one first: the end of an error message."""
    close = get_close_matches(str(word), valid, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}there are: {', '.join(valid)}" if valid else "there are none"


def _fits(value: Any, hint: Any) -> bool:
    options = get_args(hint)
    if get_origin(hint) is Literal:
        return value in options
    if get_origin(hint) is tuple:
        return isinstance(value, list | tuple) and all(_fits(v, options[0]) for v in value)
    if options:
        return any(_fits(value, option) for option in options)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return hint is Any or isinstance(value, hint)


def _spell(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(repr(option) for option in get_args(hint))
    if get_origin(hint) is tuple:
        return f"a list of {_spell(get_args(hint)[0])}"
    options = [option for option in get_args(hint) if option is not type(None)]
    return " or ".join(map(_spell, options)) or getattr(hint, "__name__", str(hint))
