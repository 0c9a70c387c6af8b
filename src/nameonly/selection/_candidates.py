"""What a selection tries: a recipe with its settings, under prompts, on a backbone."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nameonly import methods
from nameonly.backbones import Backbone
from nameonly.classifier import open_backbone
from nameonly.encoding import build_text_classifier, features_in_order
from nameonly.methods import settings_from
from nameonly.prompts import Prompts
from nameonly.task import Task
from nameonly.types import Features

TEMPLATES = "prompts.templates"
# what a further backbone has in common with the task's own
SHARED = ("device", "dtype", "batch_size")


@dataclass(frozen=True)
class Candidate:
    """One way to label the images.

    Attributes:
        name: The recipe, and after it ``stage.field=value`` for each of its settings.
        templates: What the prompts are filled from; None leaves them to the run.
        backbone: Name of the backbone; None takes the run's own.
    """

    name: str
    templates: str | None = None
    backbone: str | None = None

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The recipe's settings, prompts included."""
        settings = settings_from(self.name.split()[1:])
        return settings if self.templates is None else {TEMPLATES: self.templates, **settings}

    def recipe(self, seed: int) -> Any:
        """Return the recipe.

        Raises:
            ValueError: If there is none of that name, or it has no such setting.
        """
        return methods.build_recipe(self.name.split()[0], self.settings, seed)

    def row(self) -> dict[str, Any]:
        """Return what a run's file says of it."""
        told = {"recipe": self.name, "prompts": self.templates, "backbone": self.backbone}
        return {key: value for key, value in told.items() if value is not None}


def every_candidate(
    recipes: tuple[str, ...], templates: tuple[str, ...], backbones: tuple[str, ...], seed: int
) -> list[Candidate]:
    """Return all combinations, the run's own backbone and prompts first.

    Raises:
        ValueError: If there is no recipe, one that chooses itself, or one that does not exist.
    """
    known = [name for name in methods.names("recipes") if name != "auto"]
    wrong = [name for name in recipes if (name.split() or [""])[0] not in known]
    if wrong or not recipes:
        raise ValueError(
            f"no recipe {', '.join(wrong) or '(none)'} to try; {methods.offer('', known)}"
        )
    found = [
        Candidate(name, *others)
        for others in product((None, *templates), (None, *backbones))
        for name in recipes
    ]
    for candidate in found:
        candidate.recipe(seed)
    return found


def open_backbones(task: Task, names: tuple[str, ...]) -> dict[str | None, Backbone | None]:
    """Return the run's own backbone, as None, and the further ones by name, on the same device.

    Raises:
        ValueError: If there are no images for them, or one cannot be had.
    """
    own = task.backbone
    if names and (task.images is None or own is None):
        raise ValueError(
            "other backbones are tried on images, and own features come without them; leave "
            "selection.backbones out"
        )
    options = {key: getattr(own, key) for key in SHARED if hasattr(own, key)}
    found: dict[str | None, Backbone | None] = {None: own}
    for name in names:
        backbone = open_backbone(name, **options)
        _ = backbone.dim, backbone.image_key  # one that cannot be had shows before work is done
        found[name] = backbone
    return found


def features_by_backbone(
    task: Task, backbones: Mapping[str | None, Backbone | None]
) -> dict[str | None, Features]:
    """Return the features of the task's images by every backbone.

    Raises:
        ValueError: If an image can no longer be read.
    """
    found: dict[str | None, Features] = {None: task.features}
    for name, backbone in backbones.items():
        if name is not None:
            assert backbone is not None and task.images is not None
            with TemporaryDirectory() as folder:
                cache = task.cache or Path(folder)
                found[name] = features_in_order(
                    task.images, backbone, cache, task.on_progress, task.engine
                )
    return found


def task_of(
    task: Task,
    candidate: Candidate,
    prompts: Prompts,
    backbone: Backbone | None,
    features: Features,
) -> Task:
    """Return the task as a candidate sees it.

    Args:
        task: As the run has it.
        candidate: To be tried.
        prompts: The run's own.
        backbone: The candidate's.
        features: Of that backbone.

    Raises:
        ValueError: If other prompts are asked for, and there is nothing that could read them.
    """
    if any(key.startswith("prompts") for key in candidate.settings):
        prompts = candidate.recipe(0).prompts
    elif candidate.backbone is None:
        return task
    if backbone is None:
        raise ValueError("own features come with texts of their own; leave other prompts out")
    with TemporaryDirectory() as folder:
        texts, space = prompts.texts(task.label_space), task.label_space
        text = build_text_classifier(texts, space, backbone, task.cache or Path(folder))
    return replace(task, features=features, text=text, backbone=backbone)
