"""Makes a recipe's task out of what a run was asked: texts, given labels, further backbones."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from jaxtyping import Float, Int
from torch import Tensor

from nameonly import methods
from nameonly.backbones import Backbone
from nameonly.backbones.precomputed import PrecomputedBackbone
from nameonly.encoding import build_text_classifier, encode_image_set
from nameonly.engines import Engine
from nameonly.label_tables.reading import match_labels
from nameonly.recipes import Recipe
from nameonly.task import OnProgress, Task
from nameonly.types import Features, ImageSet, LabelSpace, TextClassifier


@dataclass(frozen=True)
class Setup:
    """What a labelling run was asked for.

    Attributes:
        backbone: Made the features.
        label_space: The classes.
        recipe: What to do.
        cache: Folder of the stores.
        given: Known labels: path, stem or id -> class name; see ``label_tables``.
        ensemble: Further backbones whose zero-shot probabilities are averaged with those of
            ``backbone`` for the first pseudo-labels (UPL*).
        engine: Encodes and draws on other machines what the recipe asks for.
    """

    backbone: Backbone
    label_space: LabelSpace
    recipe: Recipe
    cache: Path
    given: Mapping[str, str] | None = None
    ensemble: tuple[Backbone, ...] = ()
    engine: Engine | None = None

    def __post_init__(self) -> None:
        unused = not any(hasattr(self.recipe, part) for part in ("pseudo_labels", "selection"))
        if self.ensemble and unused:
            raise ValueError(
                f"recipe {methods.name_of(self.recipe)!r} makes no pseudo-labels, so that an "
                "ensemble of backbones would change nothing; leave it out or choose another recipe"
            )
        labeller = getattr(self.recipe, "pseudo_labels", None)
        if self.ensemble and getattr(labeller, "reads_cosines", False):
            raise ValueError(
                f"pseudo_labels.{methods.name_of(labeller)} reads the cosines of one backbone, an "
                "ensemble gives probabilities; leave the ensemble out or choose another recipe"
            )
        if self.given is not None and unused:
            raise ValueError(
                f"recipe {methods.name_of(self.recipe)!r} learns from no labels; leave the given "
                "ones out or choose another recipe"
            )
        if self.label_space.seen is not None and self.given is None:
            raise ValueError("seen classes are those with given labels; pass the labels too")


def text_classifier(setup: Setup) -> TextClassifier:
    """Return the zero-shot classifier: of the class texts, or of the file of features.

    Raises:
        ValueError: If a file of features has no text weights that fit the classes.
    """
    if isinstance(setup.backbone, PrecomputedBackbone):
        return setup.backbone.text_classifier(setup.label_space)
    texts = setup.recipe.prompts.texts(setup.label_space)
    return build_text_classifier(texts, setup.label_space, setup.backbone, setup.cache)


def given_labels(
    table: Mapping[str, str], features: Features, images: ImageSet | None, classes: LabelSpace
) -> Int[Tensor, " n"]:
    """Return the known label of every image, -1 = none.

    Raises:
        ValueError: If no image or no class is found, or copies of an image have two labels.
    """
    sources, ids = (features.ids, features.ids) if images is None else (images.sources, images.ids)
    try:
        found = match_labels(sources, ids, table, classes.class_names).labels.tolist()
    except ValueError as error:
        raise ValueError(f"given labels: {error}") from error
    known: dict[str, tuple[int, str]] = {}
    for source, image_id, label in zip(sources, ids, found, strict=True):
        if label < 0:
            continue
        before, first = known.setdefault(image_id, (label, source))
        if before != label:
            names = classes.class_names
            raise ValueError(
                f"given labels: {first!r} is {names[before]!r} and {source!r}, a copy of the same "
                f"image, is {names[label]!r}"
            )
    return torch.tensor([known.get(i, (-1, ""))[0] for i in features.ids], dtype=torch.long)


def ensemble_logits(
    setup: Setup, task: Task, on_progress: OnProgress | None = None
) -> Float[Tensor, "n c"]:
    """Return the logarithm of the mean zero-shot probability over all backbones.

    Raises:
        ValueError: If there are no images to encode with the further backbones.
    """
    if task.images is None:
        raise ValueError("an ensemble of backbones needs images; own features are of one backbone")
    found = [task.text.predict_logits(task.features).log_softmax(dim=1)]
    for backbone in setup.ensemble:
        encoded = encode_image_set(
            task.images, backbone, setup.cache, on_progress, setup.engine
        ).features
        if encoded.ids != task.features.ids:
            raise ValueError(f"backbone {backbone.name!r} could not read the same images")
        text = text_classifier(replace(setup, backbone=backbone))
        found.append(text.predict_logits(encoded).log_softmax(dim=1))
    return torch.stack(found).logsumexp(dim=0) - torch.tensor(float(len(found))).log()


@contextmanager
def training_folder(setup: Setup, task: Task) -> Iterator[Path | None]:
    """Give the folder in which this very training leaves its state, and remove it at the end.

    It is found again by whatever the training depends on, see ``kept_folder``.
    """
    digest = hashlib.sha256()
    facts = [
        methods.describe_recipe(setup.recipe),
        dict(setup.backbone.image_key),
        list(task.label_space.class_names),
        task.label_space.seen,
        version("nameonly"),
    ]
    digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
    digest.update("\n".join(task.features.ids).encode())
    for tensor in (task.text.weights, task.given, task.start):
        digest.update(b"none" if tensor is None else tensor.contiguous().numpy().tobytes())
    with kept_folder(setup.cache / "training" / digest.hexdigest()[:24]) as folder:
        yield folder


@contextmanager
def kept_folder(folder: Path) -> Iterator[Path | None]:
    """Give a folder and remove it at the end; who fails or is killed leaves it.

    A second one who asks for it at the same time gets None and keeps nothing.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield None
        return
    try:
        yield folder
        shutil.rmtree(folder, ignore_errors=True)
        # removed while it is held, so that nobody takes it in between; Windows refuses that, and
        # there the release removes it
        with suppress(OSError):
            folder.with_suffix(".lock").unlink()
    finally:
        lock.release()
