"""The product: backbone + scorer + decision + label space, saved without pickle."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from nameonly import methods
from nameonly.adapters._mixed import MixedScorer
from nameonly.backbones import Backbone
from nameonly.backbones._network import NetworkBackbone, NetworkScorer, load_network
from nameonly.backbones._onnx_network import open_onnx
from nameonly.backbones._open_clip_source import PREFIX as OPEN_CLIP
from nameonly.backbones._prompted import PromptedBackbone
from nameonly.decisions import Decision
from nameonly.images import upright_rgb
from nameonly.structured_files import read_text, shown
from nameonly.types import Features, LabelSpace, Predictions, Scorer, TextClassifier

FORMAT = 1
CONFIG = "classifier.json"
WEIGHTS = "classifier.safetensors"
CARD = "README.md"
TOKENS = "backbone.tokens"


def open_backbone(name: str, **options: Any) -> Backbone:
    """Return the backbone that a name stands for, without loading its weights yet.

    Args:
        name: ``"tiny"``, a hub id or a local folder; or ``open_clip:`` and what
            ``backbones.open_clip`` takes.
        options: Fields of the backbone: device, dtype, revision, batch_size.

    Raises:
        ValueError: If an option does not exist.
    """
    kind = "open_clip" if name.startswith(OPEN_CLIP) else "clip"
    model = name.removeprefix(OPEN_CLIP)
    backbone: Backbone = methods.create("backbones", kind, model=model, **options)
    return backbone


@dataclass(frozen=True)
class Classifier:
    """Scores images or features and decides.

    Attributes:
        backbone: Makes features of images.
        scorer: A text classifier, a fitted adapter, or both mixed.
        decision: Turns logits into labels.
        label_space: The classes, in the order of the columns.
        fingerprint: Of the weights that the scorer was fitted to; empty where there are none.
        made: How: recipe, title, paper, settings, seed, number of images, version.
        temperature: Scores are divided by it before anything is decided by them; see
            ``trust/calibration.py``.
    """

    backbone: Backbone
    scorer: Scorer
    decision: Decision
    label_space: LabelSpace
    fingerprint: str = ""
    made: Mapping[str, Any] = field(default_factory=dict)
    temperature: float = 1.0

    def predict(self, images: Features | Sequence[Image.Image]) -> Predictions:
        """Classify features, or Pillow images (their ids are then "0", "1", ...).

        Images are turned and made RGB as files are.

        Raises:
            ValueError: If the features were made by another backbone, or scores are not finite.
        """
        features = images if isinstance(images, Features) else self._encode(images)
        if features.backbone != self.backbone.name:
            raise ValueError(
                f"this classifier reads features of {self.backbone.name!r}, "
                f"got features of {features.backbone!r}"
            )
        return self.decide(self.scorer.predict_logits(features), features)

    def decide(self, logits: Float[Tensor, "n c"], features: Features) -> Predictions:
        """Turn scores of features into predictions.

        Raises:
            ValueError: If scores are not finite.
        """
        if not torch.isfinite(logits).all():
            raise ValueError(
                f"the scorer {scorer_name(self.scorer)!r} gave values that are not finite; "
                "look at its settings"
            )
        labels = self.decision.decide(logits / self.temperature, features)
        return Predictions(logits.softmax(dim=1), labels, features.ids)

    def predict_names(self, images: Features | Sequence[Image.Image]) -> list[str | None]:
        """Return the class name of every image, None where the decision abstains.

        Raises:
            ValueError: See ``predict``.
        """
        names = self.label_space.class_names
        return [None if i < 0 else names[i] for i in self.predict(images).labels.tolist()]

    def predict_proba(self, images: Features | Sequence[Image.Image]) -> Float[Tensor, "n c"]:
        """Return class probabilities, the model's own and uncalibrated; rows sum to one."""
        return self.predict(images).probs

    def calibrated(self, probs: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
        """Return probabilities at the classifier's temperature; rows sum to one."""
        # where a probability is zero its logarithm is not: that of the smallest number there is
        return (probs.clamp(min=torch.finfo(probs.dtype).tiny).log() / self.temperature).softmax(1)

    def check_weights(self) -> None:
        """Refuse a backbone whose weights are not those the scorer was fitted to.

        Raises:
            ValueError: If the fingerprints differ.
        """
        found = self.backbone.reference().get("fingerprint", "")
        if self.fingerprint and found != self.fingerprint:
            raise ValueError(
                f"backbone {self.backbone.name!r} has fingerprint {found}, the classifier was made "
                f"with {self.fingerprint}: the weights have changed; pass the right ones "
                "with --backbone"
            )

    def _encode(self, images: Sequence[Image.Image]) -> Features:
        for image in images:
            if not isinstance(image, Image.Image):
                raise ValueError(
                    f"expected Pillow images, got a {type(image).__name__}; for paths and folders "
                    "there is nameonly.predict(classifier, 'photos/')"
                )
        self.check_weights()
        values = self.backbone.encode_images([upright_rgb(image) for image in images])
        return Features(values, tuple(map(str, range(len(images)))), self.backbone.name)

    def save(self, folder: Path | str, card: str = "") -> None:
        """Write ``classifier.json``, ``classifier.safetensors`` and, if given, a card.

        Raises:
            OSError: If the folder cannot be written.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        scorer, tensors = _scorer_state(self.scorer)
        if isinstance(self.backbone, PromptedBackbone):
            tensors[TOKENS] = self.backbone.tokens.contiguous()
        if isinstance(self.backbone, NetworkBackbone):
            tensors |= self.backbone.tensors()
        config = {
            "format": FORMAT,
            "backbone": dict(self.backbone.reference()),
            "label_space": {k: v for k, v in asdict(self.label_space).items() if v is not None},
            "decision": {
                "method": methods.name_of(self.decision),
                "fields": methods.settings_of(self.decision),
                "learnt": _learnt(self.decision),
            },
            "temperature": self.temperature,
            "scorer": scorer,
            "made": dict(self.made),
        }
        save_file(tensors, folder / WEIGHTS)
        text = json.dumps(config, indent=2, ensure_ascii=False, sort_keys=True)
        (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
        if card:
            (folder / CARD).write_text(card, encoding="utf-8")


def load(folder: Path | str, **options: Any) -> Classifier:
    """Load a saved classifier; nothing of how it was trained is needed.

    Args:
        folder: What ``Classifier.save`` wrote, or an output folder that holds ``classifier/``; or a
            ``model.onnx`` of ours.
        options: Fields of the backbone that may differ here: model, device, dtype, batch_size.

    Raises:
        ValueError: If the folder is not a whole classifier of this format.
    """
    folder = Path(folder)
    if folder.suffix == ".onnx":
        return _of_onnx(folder, options)
    if not (folder / CONFIG).is_file() and (folder / "classifier" / CONFIG).is_file():
        folder = folder / "classifier"
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        raise ValueError(
            f"{folder} is not a classifier: expected {CONFIG} and {WEIGHTS} in it, as "
            "`nameonly label` writes them into DIR/classifier"
        )
    try:
        config = json.loads(read_text(folder / CONFIG))
        if config["format"] != FORMAT:
            raise ValueError(f"format {config['format']}, this version reads {FORMAT}")
        tensors = _read_tensors(folder / WEIGHTS)
        label_space = _label_space(config["label_space"])
        scorer = _load_scorer(config["scorer"], tensors, label_space)
        _try_out(scorer, label_space)
        decision = _load_decision(config["decision"])
        temperature = _positive(config.get("temperature", 1.0))
        backbone = _load_backbone(config["backbone"], options, tensors)
        fingerprint, made = str(config["backbone"].get("fingerprint", "")), config.get("made", {})
        if not isinstance(made, dict):
            raise ValueError(f"'made' is expected to hold names and values, got {shown(made)}")
    except Exception as error:  # JSON, safetensors and missing keys each raise their own
        raise ValueError(f"cannot load the classifier in {folder}: {error}") from error
    return Classifier(backbone, scorer, decision, label_space, fingerprint, made, temperature)


def _learnt(decision: Decision) -> dict[str, float]:
    """Return the bounds that a decision learnt; JSON has no infinity, which is no bound."""
    found = {name: getattr(decision, name) for name in _saved_fields(decision)}
    return {name: value for name, value in found.items() if isfinite(value)}


def _load_decision(state: dict[str, Any]) -> Decision:
    decision: Decision = methods.create("decisions", state["method"], **state["fields"])
    learnt = state.get("learnt", {})
    for name in _saved_fields(decision):
        if name in learnt:
            setattr(decision, name, float(learnt[name]))
    return decision


def _positive(value: Any) -> float:
    if not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ValueError(f"a temperature is above 0, got {value!r}")
    return float(value)


def _of_onnx(path: Path, options: Mapping[str, Any]) -> Classifier:
    """Return the classifier that a file of ``export/onnx.py`` is."""
    backbone = open_onnx(path, options)
    names = backbone.class_names
    decision = methods.create("decisions", "argmax")
    made = {"recipe": "network", "title": "A network in an ONNX file.", "paper": ""}
    scorer, space = NetworkScorer(names), LabelSpace(names)
    return Classifier(backbone, scorer, decision, space, backbone.digest, made)


def scorer_name(scorer: Scorer) -> str:
    """Return the method that a scorer belongs to; "text" for the zero-shot classifier."""
    if isinstance(scorer, NetworkScorer):
        return "network"
    if isinstance(scorer, MixedScorer):
        return f"{scorer_name(scorer.first)} and {scorer_name(scorer.second)}"
    return "text" if isinstance(scorer, TextClassifier) else methods.name_of(scorer)


def _scorer_state(scorer: Scorer) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what a scorer has learnt: JSON values, and tensors by dotted name.

    A field whose metadata say ``saved: False`` is of the images it was fitted on, and stays behind.

    Raises:
        TypeError: If something learnt is of a kind that the files cannot hold.
    """
    if isinstance(scorer, NetworkScorer):
        return {"method": "network"}, {}
    if isinstance(scorer, MixedScorer):
        parts = [_scorer_state(part) for part in (scorer.first, scorer.second)]
        named = {f"{i}.{k}": v for i, (_, found) in enumerate(parts) for k, v in found.items()}
        states = [found for found, _ in parts]
        return {"method": "mixed", "weight": scorer.weight, "parts": states}, named
    if isinstance(scorer, TextClassifier):
        return {"method": "text", "logit_scale": scorer.logit_scale}, {
            "weights": scorer.weights.contiguous()
        }
    learnt = {name: getattr(scorer, name) for name in _saved_fields(scorer)}
    for name, value in learnt.items():
        if not isinstance(value, Tensor | TextClassifier | int | float | str):
            raise TypeError(
                f"{methods.name_of(scorer)}.{name} is a {type(value).__name__}; a classifier's "
                "files hold tensors, text classifiers, numbers and words"
            )
    tensors = {k: v.contiguous() for k, v in learnt.items() if isinstance(v, Tensor)}
    state: dict[str, Any] = {
        "method": methods.name_of(scorer),
        "fields": methods.settings_of(scorer),
        "learnt": {k: v for k, v in learnt.items() if isinstance(v, int | float | str)},
    }
    for name, value in learnt.items():
        if isinstance(value, TextClassifier):
            state[name] = {"logit_scale": value.logit_scale}
            tensors[f"{name}.weights"] = value.weights.contiguous()
    return state, tensors


def _load_scorer(
    state: dict[str, Any], tensors: dict[str, Tensor], label_space: LabelSpace
) -> Scorer:
    names = label_space.class_names
    if state["method"] == "network":
        return NetworkScorer(names)
    if state["method"] == "mixed":
        first, second = (
            _load_scorer(part, _within(tensors, f"{i}."), label_space)
            for i, part in enumerate(state["parts"])
        )
        return MixedScorer(first, second, float(state["weight"]))
    if state["method"] == "text":
        return TextClassifier(tensors["weights"], state["logit_scale"], names)
    scorer: Scorer = methods.create("adapters", state["method"], **state["fields"])
    for name in _saved_fields(scorer):
        if f"{name}.weights" in tensors:
            scale = state[name]["logit_scale"]
            value: Any = TextClassifier(tensors[f"{name}.weights"], scale, names)
        else:
            value = tensors[name] if name in tensors else state["learnt"][name]
        setattr(scorer, name, value)
    return scorer


def _within(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _saved_fields(scorer: Any) -> list[str]:
    return [f.name for f in fields(scorer) if not f.init and f.metadata.get("saved", True)]


def _try_out(scorer: Scorer, label_space: LabelSpace) -> None:
    """Score one made-up row, so that arrays which do not fit each other show at once."""
    first = scorer.first if isinstance(scorer, MixedScorer) else scorer
    text = first if isinstance(first, TextClassifier) else getattr(first, "text_", None)
    if text is not None:
        probe = Features(torch.zeros(1, text.weights.shape[1]), ("probe",), "")
        shape = tuple(scorer.predict_logits(probe).shape)
        if shape != (1, len(label_space)):
            raise ValueError(f"its scores are {shape} for {len(label_space)} classes")


def _read_tensors(path: Path) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def _label_space(config: dict[str, Any]) -> LabelSpace:
    def frozen(value: Any) -> Any:
        return tuple(frozen(v) for v in value) if isinstance(value, list) else value

    return LabelSpace(**{k: frozen(v) for k, v in config.items()})


def _load_backbone(
    reference: dict[str, Any], options: dict[str, Any], tensors: Mapping[str, Tensor]
) -> Backbone:
    if "tokens" in reference:
        plain = {k: v for k, v in reference.items() if k != "tokens"}
        base = _load_backbone(plain, options, tensors)
        prompted = PromptedBackbone(base, tensors[TOKENS])
        if prompted.digest != reference["tokens"]:
            raise ValueError("the learned tokens are not those that were saved")
        return prompted
    if reference["method"] == "network":
        return load_network(reference, options, tensors)
    if reference["method"] == "onnx":
        return open_onnx(Path(reference["model"]), options)
    if reference["method"] == "precomputed":
        backbone: Backbone = methods.create("backbones", "precomputed", width=reference["width"])
        return backbone
    chosen = {"model": reference["model"], "dtype": reference["dtype"], **options}
    return open_backbone(chosen.pop("model"), revision=reference["revision"], **chosen)
