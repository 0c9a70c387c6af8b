"""Fits whatever learns from pseudo-labels: adapters on features, prompts, whole networks."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from jaxtyping import Float
from torch import Tensor

from nameonly.adapters import Adapter
from nameonly.backbones import Backbone
from nameonly.encoding import Views, encode_views, features_in_order
from nameonly.prompt_learning import PromptLearner
from nameonly.pseudo_labels import PseudoLabeller
from nameonly.synthesis.support_set import join_features, join_images
from nameonly.task import Adapted, Task
from nameonly.training import Trainer
from nameonly.types import Features, ImageSet, PseudoLabels

Learner = Adapter | PromptLearner | Trainer


def learn(task: Task, learner: Learner, labels: PseudoLabels, part: str = "prompt") -> Adapted:
    """Fit a copy of a learner and score the task's own images where they need it.

    Args:
        task: What to learn from.
        learner: An adapter, a prompt learner or a trainer; it stays as it is.
        labels: One row per image of the task.
        part: Name of this training among the task's checkpoints.

    Raises:
        ValueError: If the learner needs images or a backbone, and there are none.
    """
    fresh, task = deepcopy(learner), with_views(task, learner)
    if isinstance(fresh, Adapter):
        scorer = fresh.fit(task.features, task.text, labels)
        return Adapted(scorer, labels, getattr(scorer, "logits_", None))
    features, images, shown = with_support(task, labels)
    checkpoint = task.checkpoints and task.checkpoints / f"{part}.safetensors"
    hear = _progress(task, fresh)
    taught = None if task.support is not None and task.support.settings.alone else labels
    if not isinstance(fresh, PromptLearner):
        if images is None or task.images is None:
            raise ValueError("a network is trained on the images themselves, not on features")
        names = task.label_space.class_names
        fresh.fit(
            images,
            shown,
            names,
            checkpoint=checkpoint,
            on_epoch=hear,
            on_decode=task.on_progress,
        )
        logits = fresh.scorer_.predict_logits(encoded_anew(task.images, fresh.backbone_))
        return Adapted(fresh.scorer_, taught, logits, fresh.backbone_)
    backbone = _backbone(task)
    if fresh.reads == "features":
        fresh.fit(features, task.text, shown, backbone, checkpoint=checkpoint, on_epoch=hear)
        return Adapted(fresh.text_, taught)
    if images is None or task.images is None:
        raise ValueError(
            "learned tokens in the image tower need the images themselves, not their features; "
            "choose prompt_learning=text_context or a recipe with adapters"
        )
    fresh.fit(images, task.text, shown, backbone, checkpoint=checkpoint, on_epoch=hear)
    logits = fresh.text_.predict_logits(encoded_anew(task.images, fresh.backbone_))
    return Adapted(fresh.text_, taught, logits, fresh.backbone_)


def encoded_anew(images: ImageSet, backbone: Backbone) -> Features:
    """Return features of a backbone that was made just now, and that no store knows."""
    with TemporaryDirectory() as folder:
        return features_in_order(images, backbone, Path(folder))


def with_views(task: Task, learner: Learner) -> Task:
    """Return the task with as many augmented views of its images as the learner trains on.

    Raises:
        ValueError: If there are no images to make views of.
    """
    n_views = getattr(learner, "views", 0)
    if not n_views or task.features.views is not None:
        return task
    if task.images is None or task.backbone is None:
        stage = "adapters" if isinstance(learner, Adapter) else "prompt_learning"
        raise ValueError(
            f"{type(learner).__name__} trains on {n_views} augmented views of every image, and own "
            f"features come without images; train on the features themselves: {stage}.views=0"
        )
    wanted = Views(n_views, getattr(learner, "view_kind", "weak"), getattr(learner, "seed", 0))
    views = encode_views(
        task.images, task.backbone, wanted, task.cache, task.on_progress, task.engine
    )
    return replace(task, features=replace(task.features, views=views))


def with_support(
    task: Task, labels: PseudoLabels
) -> tuple[Features, ImageSet | None, PseudoLabels]:
    """Return what prompts learn from: the task's images, and after them the synthetic ones.

    Raises:
        ValueError: If the two cannot be joined.
    """
    support = task.support
    if support is None:
        return task.features, task.images, labels
    images = None if task.images is None else join_images(task.images, support.images)
    said = task.text.predict_logits(support.features).softmax(dim=1)
    joined = support.settings.join_labels(labels, support.features.ids, support.labels, said)
    return join_features(task.features, support.features), images, joined


def label_and_learn(task: Task, labeller: PseudoLabeller, learner: Learner) -> Adapted:
    """Label once with the task's first scores, and learn from that.

    Raises:
        ValueError: See ``learn``.
    """
    labels = labeller.label(task.features, task.start_logits(), task.label_space, task.given)
    return learn(task, learner, labels)


def scores(task: Task, adapted: Adapted) -> Float[Tensor, "n c"]:
    """Return the logits of the task's own images."""
    if adapted.logits is not None:
        return adapted.logits
    return adapted.scorer.predict_logits(task.features)


def _backbone(task: Task) -> Backbone:
    if task.backbone is None:
        raise ValueError(
            "learned prompts need a backbone to train through, and own features come without one; "
            "choose a recipe with adapters, such as up_adapter"
        )
    return task.backbone


def _progress(task: Task, learner: PromptLearner | Trainer) -> Callable[[int, float], None] | None:
    hear, done = task.on_progress, 0
    if hear is None:
        return None
    schedule = getattr(learner, "schedule", None)
    total = getattr(schedule, "epochs", 1) * getattr(learner, "n_prompts", 1)

    def on_epoch(_epoch: int, _loss: float) -> None:
        nonlocal done
        done += 1
        hear(done, total)

    return on_epoch
