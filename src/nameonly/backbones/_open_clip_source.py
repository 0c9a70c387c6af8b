"""Where an open_clip model's files lie and what belongs to its weights, before any is read."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from nameonly.backbones._hub import hub_folder
from nameonly.extras import import_extra

PREFIX = "open_clip:"
CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"
TOKENIZER = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "config.json",
)
CHECKPOINTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".npz")


@dataclass(frozen=True)
class Source:
    """An open_clip model, found.

    Attributes:
        name: The name that it was found by, with whole paths.
        model: What open_clip calls it: a model's name, or ``local-dir:`` and a folder.
        config: Its architecture, as ``model_cfg`` of open_clip_config.json has it.
        preprocessing: Mean, standard deviation, interpolation and resize mode of the weights.
        weights: Its safetensors file.
        tokenizer: Folder of a Hugging Face tokenizer's files; None for open_clip's own.
    """

    name: str
    model: str
    config: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    weights: Path
    tokenizer: Path | None


def import_open_clip() -> Any:
    """Return the package open_clip.

    Raises:
        ValueError: If it is not installed, or does not work here.
    """
    return import_extra("open_clip", "open_clip_torch", "open-clip")


def find(name: str, revision: str) -> Source:
    """Find a model by its name, without the prefix; from the hub at a revision.

    Raises:
        ValueError: If it cannot be had, is a pickle, or its preprocessing is not known.
    """
    package = import_open_clip()
    if name.startswith("hf-hub:"):
        folder = hub_folder(name.removeprefix("hf-hub:"), revision, (CONFIG, WEIGHTS, *TOKENIZER))
        return _in_folder(folder, name, name)
    folder = Path(name.removeprefix("local-dir:")).expanduser().resolve()
    if folder.is_dir() or name.startswith("local-dir:"):
        return _in_folder(folder, str(folder), f"local-dir:{folder}")
    model, _, rest = name.partition("/")
    config = package.get_model_config(model)
    if config is None:
        raise ValueError(_unknown_model(package, name, model))
    return _named(package, model, config, rest, revision)


def _named(package: Any, model: str, config: Mapping[str, Any], rest: str, revision: str) -> Source:
    """Find the weights of a model that open_clip knows: TAG, TAG@FILE or FILE."""
    tag, _, file = rest.partition("@")
    trained = package.get_pretrained_cfg(model, tag) if tag else {}
    if trained:
        _check_activation(package, model, tag, config, trained)
        settings = package.transform.merge_preprocess_dict({}, trained)
    else:
        tag, file = "", rest
    path = Path(file).expanduser().resolve()
    if file or not trained:
        _check_file(package, model, path, file)
        if not trained:
            settings = _beside(package, model, path)
    else:
        path = _hub_weights(trained, f"{model}/{tag}", revision)
    hosted = config["text_cfg"].get("hf_tokenizer_name")
    tokenizer = None
    if hosted:
        same = str(trained.get("hf_hub", "")).rpartition("/")[0] == hosted
        try:
            tokenizer = hub_folder(hosted, revision if same else "main", TOKENIZER)
        except ValueError as error:
            raise ValueError(f"{PREFIX}{model} needs the tokenizer {hosted!r}: {error}") from error
        _check_tokenizer(tokenizer, model)
    spelt = f"{tag}@{path}" if tag and file else tag or str(path)
    return Source(f"{model}/{spelt}", model, config, settings, path, tokenizer)


def _in_folder(folder: Path, name: str, called: str) -> Source:
    """Read a folder as open_clip's ``push_to_hf_hub`` lays it out."""
    file = folder / CONFIG
    if not file.is_file():
        raise ValueError(f"{folder} is no open_clip model: it needs {CONFIG} and {WEIGHTS}")
    if not (folder / WEIGHTS).is_file():
        others = sorted(p.name for p in folder.iterdir() if p.suffix in CHECKPOINTS)
        found = f", only {', '.join(others)}" if others else ""
        raise ValueError(f"{folder} has no {WEIGHTS}{found}. {_conversion(called)}")
    config, settings = _read_config(file)
    hosted = config["text_cfg"].get("hf_tokenizer_name")
    if hosted:
        _check_tokenizer(folder, name)
    tokenizer = folder if hosted else None
    return Source(name, f"local-dir:{folder}", config, settings, folder / WEIGHTS, tokenizer)


def _read_config(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return architecture and preprocessing of an open_clip_config.json."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        config, settings = dict(content["model_cfg"]), dict(content.get("preprocess_cfg") or {})
        dict(config["text_cfg"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is damaged ({type(error).__name__}: {error}): expected model_cfg with a "
            "text_cfg, and preprocess_cfg"
        ) from error
    absent = [key for key in ("mean", "std") if key not in settings]
    if absent:
        raise ValueError(
            f"{file} does not say the {' and '.join(absent)} that the weights were trained with; "
            'give them under preprocess_cfg, as {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], '
            '"interpolation": "bicubic", "resize_mode": "shortest"}'
        )
    return config, settings


def _beside(package: Any, model: str, path: Path) -> dict[str, Any]:
    """Return the preprocessing that a file beside a checkpoint states."""
    if (path.parent / CONFIG).is_file():
        return _read_config(path.parent / CONFIG)[1]
    raise ValueError(
        f"{path.name} does not say how its images were preprocessed. If it was trained like "
        f"pretrained weights, name them too: {PREFIX}{model}/TAG@{path}; {_tags(package, model)}. "
        f"Otherwise put an {CONFIG} with model_cfg and preprocess_cfg beside it, as open_clip's "
        "push_to_hf_hub writes it"
    )


def tokenizer_files(folder: Path) -> list[Path]:
    """Return a Hugging Face tokenizer's files, in the order of their names."""
    found = {path for pattern in TOKENIZER for path in folder.glob(pattern) if path.is_file()}
    return sorted(found)


def _check_tokenizer(folder: Path, name: str) -> None:
    # without these transformers makes an empty tokenizer, to which all texts are equal
    vocabularies = ("tokenizer.json", "vocab.json", "vocab.txt")
    if not any((folder / n).is_file() for n in vocabularies) and not any(folder.glob("*.model")):
        raise ValueError(
            f"{PREFIX}{name} has no tokenizer: expected {', '.join(vocabularies)} or a file "
            f"*.model in {folder}"
        )


def _hub_weights(trained: Mapping[str, Any], name: str, revision: str) -> Path:
    """Return the safetensors file of a pretrained tag."""
    repository, _, file = str(trained.get("hf_hub", "")).rpartition("/")
    if not repository:
        raise ValueError(
            f"the weights {name!r} are no safetensors on the hub. {_conversion(name)}; "
            f"then {PREFIX}{name}@FILE"
        )
    file = Path(file).with_suffix(".safetensors").name if file else WEIGHTS
    path = hub_folder(repository, revision, (file,)) / file
    if not path.is_file():
        raise ValueError(
            f"the hub's {repository!r} (its copy here is {path.parent}) has no {file}, which "
            f"{PREFIX}{name} needs. {_conversion(name)}; then {PREFIX}{name}@FILE"
        )
    return path


def _check_file(package: Any, model: str, path: Path, given: str) -> None:
    if path.suffix not in CHECKPOINTS and not path.is_file():
        owners = package.list_pretrained_models_by_tag(given)
        raise ValueError(
            f"{PREFIX}{model}/TAG expects the tag of pretrained weights or a file, got {given!r}; "
            + _tags(package, model)
            + (f"; {given!r} belongs to {', '.join(owners)}" if owners else "")
        )
    if path.suffix != ".safetensors":
        raise ValueError(
            f"{path.name} is not safetensors, and other checkpoints are pickles, which run what "
            f"code is in them. {_conversion(f'{model}/{path}')}"
        )
    if not path.is_file():
        raise ValueError(f"there is no file {path}")


def _tags(package: Any, model: str) -> str:
    tags: Sequence[str] = package.list_pretrained_tags_by_model(model)
    return f"open_clip knows for {model!r}: {', '.join(tags) or 'none'}"


def _conversion(name: str) -> str:
    model, _, rest = name.partition("/")
    given = f"{name!r}" if ":" in model else f"{model!r}, pretrained={rest!r}"
    return (
        f"If you trust what there is, convert it: model = open_clip.create_model({given}); "
        f"safetensors.torch.save_file(model.state_dict(), {WEIGHTS!r})"
    )


def _check_activation(
    package: Any, model: str, tag: str, config: Mapping[str, Any], trained: Mapping[str, Any]
) -> None:
    """Refuse GELU for weights trained with QuickGELU, and the reverse; open_clip only warns."""
    kinds = {True: "QuickGELU", False: "GELU"}
    has, needs = bool(config.get("quick_gelu")), bool(trained.get("quick_gelu"))
    if has == needs:
        return
    right = f"{model}-quickgelu"
    if package.get_pretrained_cfg(right, tag) and package.get_model_config(right):
        advice = f"write {PREFIX}{right}/{tag}"
    else:
        repository = str(trained.get("hf_hub", "")).rpartition("/")[0]
        advice = f"read the model with its own configuration: {PREFIX}hf-hub:{repository}"
    raise ValueError(
        f"the weights {tag!r} were trained with {kinds[needs]} and the model {model!r} has "
        f"{kinds[has]}, so its features would be wrong; {advice}"
    )


def _unknown_model(package: Any, name: str, model: str) -> str:
    close = get_close_matches(model, package.list_models(), n=3, cutoff=0.5)
    return (
        f"open_clip has no model {model!r} and {name!r} is no folder"
        + (f"; did you mean {' or '.join(map(repr, close))}?" if close else "")
        + f" Expected {PREFIX}MODEL/TAG, {PREFIX}MODEL/TAG@FILE, {PREFIX}hf-hub:OWNER/NAME, or a "
        f"folder with {CONFIG} and {WEIGHTS}"
    )
