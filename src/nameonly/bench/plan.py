"""The plan of a benchmark: a TOML file, read strictly, so that a mistake shows before long work."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_type_hints

from nameonly.datasets.reading import describe
from nameonly.methods import build_recipe, check_type, offer
from nameonly.structured_files import read_structured

SettingName = Literal["UL", "SSL", "TRZSL"]
PUBLISHED_SEEDS = (500, 0, 200)
TUNED = "by the paper"
WRITTEN = {"methods": "method", "batches": "batch"}  # a table of the file says one of them
_T = TypeVar("_T")


@dataclass(frozen=True)
class DataPlan:
    """A data set.

    Attributes:
        name: One that ``nameonly.datasets`` describes.
        root: Its folder; none for those that come with the package.
        half: Of the digits: five random splits of this half in place of the data set's own split.
        adapt_on: Data set whose training images are adapted on, where this one is a test set alone.
        adapt_root: Its folder.
    """

    name: str
    root: str | None = None
    half: Literal["development", "final"] | None = None
    adapt_on: str | None = None
    adapt_root: str | None = None

    def __post_init__(self) -> None:
        describe(self.name)
        if self.half is not None and self.name != "digits":
            raise ValueError(f"half goes with digits alone, not with {self.name}")
        if self.adapt_on is not None:
            describe(self.adapt_on)
        elif self.adapt_root is not None:
            raise ValueError("adapt_root goes with adapt_on, the data set that lies there")

    @property
    def title(self) -> str:
        """How tables call it."""
        if self.half is not None:
            return f"{self.name}, {self.half} half"
        return self.name if self.adapt_on is None else f"{self.name}, adapted on {self.adapt_on}"


@dataclass(frozen=True)
class BatchPlan:
    """Batches for methods that adapt to the very images that they score.

    Attributes:
        size: Images; None takes all of the drawn classes.
        classes: How many classes the images are of; None for all.
        draws: Batches per seed.
        of: Whose images: the pool's or the test's.
    """

    size: int | None = None
    classes: int | None = None
    draws: int = 1
    of: Literal["pool", "test"] = "pool"

    def __post_init__(self) -> None:
        for name in ("size", "classes", "draws"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")

    @property
    def title(self) -> str:
        """How tables call it."""
        size = "all images" if self.size is None else f"batch of {self.size}"
        classes = "" if self.classes is None else f" from {self.classes} classes"
        return f"{size}{classes} of the {self.of}"


@dataclass(frozen=True)
class Only:
    """A part of the plan, for a method that is not run on the whole; None is all.

    Attributes:
        settings: Settings.
        imbalances: Pools.
        seeds: Seeds.
        data: Data sets.
        batches: Whether it is run on batches, and on pools.
    """

    settings: tuple[SettingName, ...] | None = None
    imbalances: tuple[float, ...] | None = None
    seeds: tuple[int, ...] | None = None
    data: tuple[str, ...] | None = None
    batches: Literal["too", "alone", "none"] = "too"


@dataclass(frozen=True)
class MethodPlan:
    """A method.

    Attributes:
        label: How tables call it.
        recipe: File name of its recipe.
        set: ``stage.field`` -> value and ``stage`` -> method, as ``nameonly label --set``.
        only: The part of the plan that it is run on.
        tuned_with_labels: ``"by the paper"`` where the settings were chosen with labels.
    """

    label: str
    recipe: str
    set: Mapping[str, Any]
    only: Only
    tuned_with_labels: str = ""


@dataclass(frozen=True)
class Plan:
    """What a benchmark runs.

    Attributes:
        title: Heading of its table.
        data: Data sets.
        methods: Methods.
        backbone: A hub id, a local folder, ``"tiny"``.
        dtype: Of the backbone.
        device: Of the backbone.
        batch_size: Images encoded at a time.
        threads: Of torch; None leaves them.
        templates: The data set's templates of the shared protocol, its customary ones, or those of
            each recipe.
        settings: Which labels are given: UL none, SSL a few, TRZSL all of some classes.
        imbalances: Pools: 1 is the whole one.
        seeds: Of methods and long tails; of the digits' splits.
        labels_per_class: Given labels in SSL.
        trzsl_seeds: Of the split into seen and unseen classes; one run each, the first with the
            first of ``seeds``, and so on.
        batches: Small batches, beside the pools.
    """

    title: str
    data: tuple[DataPlan, ...]
    methods: tuple[MethodPlan, ...]
    backbone: str = "openai/clip-vit-base-patch32"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    device: str = "auto"
    batch_size: int = 64
    threads: int | None = None
    templates: Literal["protocol", "customary", "recipe"] = "protocol"
    settings: tuple[SettingName, ...] = ("UL",)
    imbalances: tuple[float, ...] = (1.0,)
    seeds: tuple[int, ...] = (0,)
    labels_per_class: int = 2
    trzsl_seeds: tuple[int, ...] = PUBLISHED_SEEDS
    batches: tuple[BatchPlan, ...] = ()

    def __post_init__(self) -> None:
        for name in ("settings", "imbalances", "seeds", "trzsl_seeds", "data", "methods"):
            values = getattr(self, name)
            if not values and not (name == "settings" and self.batches):
                raise ValueError(f"{WRITTEN.get(name, name)} is empty; name at least one")
            if name not in ("data", "methods") and len(set(values)) < len(values):
                raise ValueError(f"{name} holds an entry twice: {list(values)}")
        for name in ("seeds", "trzsl_seeds"):
            bad = [seed for seed in getattr(self, name) if not 0 <= seed < 2**31]
            if bad:
                raise ValueError(f"{name} must lie in 0 to {2**31 - 1}, got {bad}")
        for name in ("batch_size", "labels_per_class", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if any(imbalance < 1 for imbalance in self.imbalances):
            raise ValueError(f"imbalances must be at least 1, got {list(self.imbalances)}")
        titles = [data.title for data in self.data]
        if len(set(titles)) < len(titles):
            raise ValueError(f"the same data set stands twice: {titles}")


def read_plan(path: Path) -> Plan:
    """Read a plan and check all that can be checked without opening data and backbone.

    Raises:
        ValueError: If the file is no TOML, or names what does not exist; the message says where.
    """
    if path.suffix.lower() != ".toml":
        raise ValueError(f"a plan is a .toml file, got {path}")
    try:
        return _plan(read_structured(path), path.parent)
    except ValueError as error:
        where = "" if str(error).startswith(str(path)) else f"{path}: "
        raise ValueError(f"{where}{error}") from None


def _plan(table: dict[str, Any], folder: Path) -> Plan:
    valid = [WRITTEN.get(f.name, f.name) for f in fields(Plan)]
    for key in table:
        if key not in valid:
            raise ValueError(f"plan has no key {key!r}; {offer(key, valid)}")
    table = dict(table)
    data = tuple(_made(DataPlan, t, where) for t, where in _tables(table, "data"))
    table["data"] = tuple(_rooted(entry, folder) for entry in data)
    local = folder.absolute() / Path(str(table.get("backbone", ""))).expanduser()
    if "backbone" in table and local.is_dir():
        table["backbone"] = str(local)
    table["batches"] = tuple(_made(BatchPlan, t, where) for t, where in _tables(table, "batch"))
    table["methods"] = tuple(_method(t, where) for t, where in _tables(table, "method"))
    plan = _made(Plan, table, "plan")
    for method in plan.methods:
        try:
            _check_method(plan, method)
        except ValueError as error:
            raise ValueError(f"method {method.label!r}: {error}") from None
    return plan


def _tables(table: dict[str, Any], key: str) -> list[tuple[dict[str, Any], str]]:
    """Take the tables ``[[key]]`` out, each with how messages call it."""
    found = table.pop(key, [])
    if not isinstance(found, list) or not all(isinstance(t, dict) for t in found):
        raise ValueError(f"{key} is a list of tables, each under [[{key}]]")
    return [(t, f"{key} {t.get('label') or t.get('name') or i + 1!r}") for i, t in enumerate(found)]


def _made(cls: type[_T], table: Mapping[str, Any], where: str) -> _T:
    """Make a dataclass from a table whose keys are its fields."""
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    hints = get_type_hints(cls)
    for key, value in table.items():
        if key not in known:
            raise ValueError(f"{where} has no key {key!r}; {offer(key, list(known))}")
        if key not in {"data", "methods", "batches", "set", "only"} or cls is Only:
            check_type(where, key, value, hints[key])
    needed = [k for k, f in known.items() if f.default is MISSING and k not in table]
    if needed:
        raise ValueError(f"{where} needs {', '.join(needed)}")
    # TOML tells 1 from 1.0, a reader does not
    whole = {k for k, hint in hints.items() if "float" in str(hint)}
    frozen = {
        k: tuple(map(float, v) if k in whole else v) if isinstance(v, list) else v
        for k, v in table.items()
    }
    try:
        return cls(**frozen)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _method(table: dict[str, Any], where: str) -> MethodPlan:
    for key in ("set", "only"):
        if not isinstance(table.get(key, {}), dict):
            raise ValueError(f"{where}: {key} is a table, got {table[key]!r}")
    only = _made(Only, table.get("only", {}), f"{where}, only")
    label = table.get("label", table.get("recipe", ""))
    return _made(MethodPlan, {"set": {}, **table, "label": label, "only": only}, where)


def _rooted(data: DataPlan, folder: Path) -> DataPlan:
    """Take folders from where the plan lies."""

    def placed(root: str | None) -> str | None:
        return None if root is None else str(folder.absolute() / Path(root).expanduser())

    return DataPlan(data.name, placed(data.root), data.half, data.adapt_on, placed(data.adapt_root))


def _check_method(plan: Plan, method: MethodPlan) -> None:
    build_recipe(method.recipe, method.set)
    names = [data.name for data in plan.data]
    only = method.only
    wanted: list[tuple[str, Sequence[Any] | None, Sequence[Any]]] = [
        ("settings", only.settings, plan.settings),
        ("imbalances", only.imbalances, plan.imbalances),
        ("seeds", only.seeds, plan.seeds),
        ("data", only.data, names),
    ]
    for key, chosen, there in wanted:
        strange = [value for value in chosen or () if value not in there]
        if strange:
            raise ValueError(f"only.{key} names {strange}, and the plan has {list(there)}")
    if method.tuned_with_labels not in ("", TUNED):
        raise ValueError(f"tuned_with_labels is {TUNED!r} or left out")
    if method.set and only.data and not method.tuned_with_labels:
        raise ValueError(
            "settings for some data sets alone are not one fixed setting for all; leave only.data "
            f"out, or say tuned_with_labels = {TUNED!r} where they are a paper's"
        )
    if "prompts.templates" in method.set and plan.templates != "recipe":
        raise ValueError(
            "prompts.templates has no effect while the data set's templates are used; "
            "say templates = 'recipe' in the plan"
        )
    for other in plan.methods:
        if (
            other is not method
            and other.label == method.label
            and all(
                set(getattr(only, key) or there) & set(getattr(other.only, key) or there)
                for key, there in (("data", names), ("settings", plan.settings))
            )
        ):
            raise ValueError("the label stands twice for the same runs; give each its own")
