"""Synthetic images for a task: the model adapts to its images, makes others, and these are encoded.

What was made lies in the cache and is found again by whatever it depends on.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nameonly import methods
from nameonly.adapters import Adapter
from nameonly.adapters._mixed import MixedScorer
from nameonly.encoding import features_in_order
from nameonly.engines import Engine
from nameonly.learning import encoded_anew
from nameonly.ops.labelling import hard_candidates
from nameonly.pseudo_labels import PseudoLabeller
from nameonly.synthesis._adaptation import forget_training, trained_for
from nameonly.synthesis._drawing import LOCK
from nameonly.synthesis._locks import held
from nameonly.synthesis._pipelines import find_model, fingerprint
from nameonly.synthesis._timing import in_words
from nameonly.synthesis.domain_lora import DomainLora
from nameonly.synthesis.prompt_tricks import PromptTricks
from nameonly.synthesis.support_set import SupportSet
from nameonly.synthesis.text_to_image import TextToImage
from nameonly.synthetic import ImageRequest, SyntheticImages
from nameonly.task import Adapted, Support, Task
from nameonly.types import ImageSet, LabelSpace, PseudoLabels, TextClassifier

# trying a few steps out would take a good part of the time that fewer steps on an image take
WORTH_TRYING = 500
WAITING = "another run makes the same synthetic images now: waiting for it"


@dataclass(frozen=True)
class Captions:
    """Unlabelled images and what a text-to-image model learns them under.

    Attributes:
        images: To adapt to.
        labels: In the same order; images without one are left out.
        label_space: Names the captions.
    """

    images: ImageSet
    labels: PseudoLabels
    label_space: LabelSpace


def digest_of(facts: Any) -> str:
    """Return a short hash of plain data."""
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def adaptation_key(generator: TextToImage, learner: DomainLora, captions: Captions) -> str:
    """Return a hash of all that a LoRA depends on."""
    labels = captions.labels.labels.tolist()
    pairs = sorted((i, n) for i, n in zip(captions.labels.ids, labels, strict=True) if n >= 0)
    names = captions.label_space.class_names
    model = fingerprint(generator.folder)
    return digest_of([methods.settings_of(learner), model, names, pairs])


def check_adaptable(generator: TextToImage) -> None:
    """Refuse a generator with a LoRA, whose place the adaptation's own would take.

    Raises:
        ValueError: If it has one.
    """
    if generator.lora:
        raise ValueError(
            f"text_to_image.lora names {generator.lora}, and adapting the model trains a LoRA in "
            "its place; leave one of the two out"
        )


def adapt_generator(
    generator: TextToImage,
    learner: DomainLora,
    captions: Captions,
    folder: Path,
    hear: Callable[[int, int], None] | None = None,
) -> TextToImage:
    """Return the generator with a LoRA, trained unless the very same one lies in the folder.

    Args:
        generator: It stays as it is.
        learner: Trains the LoRA.
        captions: What it is trained on.
        folder: Of the LoRA.
        hear: Called with the epochs done and in all.

    Raises:
        ValueError: If the folder holds another LoRA, or see ``DomainLora.adapt``.
    """
    key, there = adaptation_key(generator, learner, captions), trained_for(folder)
    if there not in ("", key):
        raise ValueError(
            f"{folder} was trained on other images or with other settings; choose a new folder"
        )
    if there:
        forget_training(folder)  # a run that was stopped at its very end leaves it behind
    else:
        learner.adapt(
            captions.images,
            captions.labels,
            captions.label_space,
            generator.folder,
            folder,
            key=key,
            on_epoch=lambda epoch, _: hear and hear(epoch, learner.schedule.epochs),
        )
    return replace(generator, lora=str(folder))


@dataclass(frozen=True)
class Adaptation:
    """A LoRA that is wanted.

    Attributes:
        learner: Trains it.
        n: How many images it is trained on.
        folder: Of the LoRA.
        compared: What is also drawn by the model as it is.
        compared_folder: Of those images.
    """

    learner: DomainLora
    n: int
    folder: Path
    compared: Sequence[ImageRequest] = ()
    compared_folder: Path | None = None


def effort(
    generator: TextToImage,
    requests: Sequence[ImageRequest],
    folder: Path,
    adaptation: Adaptation | None = None,
) -> tuple[float, float]:
    """Return about how many seconds training and drawing take: what is there takes none.

    A few steps of each are tried, which changes nothing.

    Args:
        generator: It stays as it is.
        requests: What to draw.
        folder: Of the images.
        adaptation: The LoRA that is to draw them, which may be there.

    Raises:
        ValueError: If the model cannot be had, or the folder holds other images.
    """
    if adaptation is None:
        return 0.0, generator.seconds(requests, folder)
    # generators of its own, so that no weights of theirs are kept beside those in training
    plain, drawing = replace(generator, lora=""), 0.0
    if adaptation.compared:
        drawing = plain.seconds(adaptation.compared, adaptation.compared_folder)
    if trained_for(adaptation.folder):
        adapted = replace(generator, lora=str(adaptation.folder))
        return 0.0, drawing + adapted.seconds(requests, folder)
    adapting = adaptation.learner.seconds(adaptation.n, generator.folder, adaptation.folder)
    return adapting, drawing + plain.seconds(requests, None)


def expected(
    generator: TextToImage,
    requests: Sequence[ImageRequest],
    folder: Path,
    adaptation: Adaptation | None = None,
) -> dict[str, float | None]:
    """Return about how many seconds making images takes; None where the model is not here.

    Args:
        generator: See ``effort``, as the others.
        requests: What to draw.
        folder: Of the images.
        adaptation: The LoRA that is to draw them.
    """
    try:
        find_model(generator.model, generator.revision, download=False)
    except ValueError:
        return dict.fromkeys(("seconds_adapting", "seconds_drawing", "seconds_expected"))
    adapting, drawing = effort(generator, requests, folder, adaptation)
    return {
        "seconds_adapting": round(adapting, 2),
        "seconds_drawing": round(drawing, 2),
        "seconds_expected": round(adapting + drawing, 2),
    }


def recipe_drawing(recipe: Any, label_space: LabelSpace, n_images: int) -> dict[str, Any] | None:
    """Return what a recipe would have a text-to-image model draw, as if nothing were there yet.

    Args:
        recipe: Any; None is returned for those that draw nothing.
        label_space: The classes.
        n_images: How many images it would label.
    """
    generator, tricks = (getattr(recipe, name, None) for name in ("text_to_image", "prompt_tricks"))
    if not isinstance(generator, TextToImage) or not isinstance(tricks, PromptTricks):
        return None
    requests = tricks.requests(label_space, recipe.support_set.images_per_class)
    learner, adaptation = getattr(recipe, "domain_lora", None), None
    with TemporaryDirectory() as nowhere:
        if learner is not None and learner.schedule.epochs:
            most = getattr(recipe.captions, "images_per_class", n_images) * len(label_space)
            adaptation = Adaptation(learner, min(n_images, most), Path(nowhere))
        seconds = expected(generator, requests, Path(nowhere), adaptation)
    return {"synthetic_images": len(requests), "model": generator.model, **seconds}


def foretell(
    note: Callable[[str], None] | None,
    generator: TextToImage,
    requests: Sequence[ImageRequest],
    folder: Path,
    adaptation: Adaptation | None = None,
) -> None:
    """Tell a person about how long training and drawing take, where that is long.

    Args:
        note: Called with a line; where nobody listens nothing is tried.
        generator: See ``effort``, as the others.
        requests: What to draw.
        folder: Of the images.
        adaptation: The LoRA that is to draw them.
    """
    steps = len(requests) * generator.steps
    if adaptation is not None:
        steps += adaptation.n * adaptation.learner.schedule.epochs
        steps += len(adaptation.compared) * generator.steps
    if note is None or steps < WORTH_TRYING:
        return
    adapting, drawing = effort(generator, requests, folder, adaptation)
    told = [f"{in_words(adapting)} of training the LoRA"] if adapting else []
    told += [f"{in_words(drawing)} of drawing"] if drawing else []
    if told:
        note(f"still to come, as a few steps tell: about {', about '.join(told)}")


def drawn(
    generator: TextToImage,
    requests: Sequence[ImageRequest],
    folder: Path,
    hear: Callable[[int, int], None] | None,
    engine: Engine | None,
) -> SyntheticImages:
    """Draw here, or on other machines where there is an engine; see ``TextToImage.generate``.

    Raises:
        ValueError: If that fails, or the engine cannot work.
    """
    elsewhere = None if engine is None else partial(engine.draw, generator)
    return generator.generate(requests, folder, hear, elsewhere)


def adapted_to_task(
    task: Task,
    generator: TextToImage,
    learner: DomainLora,
    labeller: PseudoLabeller,
    requests: Sequence[ImageRequest] = (),
) -> TextToImage:
    """Return the generator adapted to a task's images, captioned by its first scores.

    A learner of no epochs leaves it as it is. Where another run trains the very same LoRA, it is
    waited for and its LoRA taken.

    Args:
        task: Has the images.
        generator: It stays as it is.
        learner: Trains the LoRA.
        labeller: Chooses the images that it is trained on.
        requests: What will be drawn then; a person is told how long both take.

    Raises:
        ValueError: If the task has no images or no cache, or the generator has a LoRA already.
    """
    if learner.schedule.epochs == 0:
        return generator
    check_adaptable(generator)
    images, cache = _images(task), _cache(task)
    labels = labeller.label(task.features, task.start_logits(), task.label_space, task.given)
    captions = Captions(images, labels, task.label_space)
    folder = cache / "lora" / adaptation_key(generator, learner, captions)
    with held(folder.with_suffix(".lock"), partial(task.note, WAITING)):
        if not trained_for(folder):
            n = int((labels.labels >= 0).sum())
            # what is tried here says nothing of how long other machines draw
            wanted = requests if task.engine is None else ()
            foretell(task.on_note, generator, wanted, folder, Adaptation(learner, n, folder))
        return adapt_generator(generator, learner, captions, folder, task.on_progress)


def made_support(
    task: Task, tricks: PromptTricks, generator: TextToImage, settings: SupportSet
) -> Support:
    """Return synthetic images of a task's classes, made once and kept in the cache.

    Where another run makes the very same ones, it is waited for and its images taken.

    Args:
        task: Names the classes and the backbone.
        tricks: Writes the requests.
        generator: Makes the images: more of them later leave the first ones as they are.
        settings: How many.

    Raises:
        ValueError: If the task has no backbone or no cache, or no image was made of a class.
    """
    if task.backbone is None:
        raise ValueError("synthetic images need a backbone, and own features come without one")
    requests = tricks.requests(task.label_space, settings.images_per_class)
    facts = [methods.settings_of(tricks), generator.facts, generator.batch_size]
    if tricks.describes:  # other sentences are other images in the same places
        facts.append(task.label_space.descriptions)
    folder = _cache(task) / "synthetic" / digest_of(facts)
    engine = task.engine
    with held(folder / LOCK, partial(task.note, WAITING)):
        if engine is None:  # what is tried here says nothing of other machines
            foretell(task.on_note, generator, requests, folder)
        made = drawn(generator, requests, folder, task.on_progress, engine)
    features = features_in_order(made.images, task.backbone, _cache(task), task.on_progress, engine)
    labels = made.labels(task.label_space)
    return Support(features, made.images, labels, settings, made.rows, folder)


def fit_to_support(adapter: Adapter, support: Support, text: TextClassifier) -> Adapter:
    """Return a copy of an adapter, fitted to synthetic images alone."""
    candidates = hard_candidates(support.labels, len(text.class_names))
    probs = candidates.to(support.features.values)
    known = PseudoLabels(support.features.ids, probs, candidates, probs.amax(dim=1))
    return deepcopy(adapter).fit(support.features, text, known)


def enriched(task: Task, support: Support, adapter: Adapter) -> Task:
    """Return the task with synthetic images and what a classifier of them says of the real ones."""
    fitted = fit_to_support(adapter, support, task.text)
    return replace(
        task,
        auxiliary=fitted.predict_logits(task.features).softmax(dim=1),
        auxiliary_weight=support.settings.auxiliary_weight,
        support=support,
    )


def fused(adapted: Adapted, task: Task, adapter: Adapter) -> Adapted:
    """Return what was learnt with the task's synthetic images, and with their own classifier.

    The latter is mixed in where the images' settings say ``at_test``.

    Args:
        adapted: Its scorer reads the features of its backbone, or of the task's.
        task: Has the synthetic images.
        adapter: Classifies by them; it stays as it is.

    Raises:
        ValueError: If the task has no synthetic images.
    """
    support = task.support
    if support is None:
        raise ValueError("there are no synthetic images to mix a classifier of in")
    adapted = replace(adapted, support=support)
    if not support.settings.at_test:
        return adapted
    real = task.features
    if adapted.backbone is not None:
        real = encoded_anew(_images(task), adapted.backbone)
        support = replace(support, features=encoded_anew(support.images, adapted.backbone))
    fitted = fit_to_support(adapter, support, task.text)
    scorer = MixedScorer(adapted.scorer, fitted, support.settings.auxiliary_weight)
    return replace(adapted, scorer=scorer, logits=scorer.predict_logits(real))


def _images(task: Task) -> ImageSet:
    if task.images is None:
        raise ValueError(
            "the text-to-image model is adapted to images, and there are features only"
        )
    return task.images


def _cache(task: Task) -> Path:
    if task.cache is None:
        raise ValueError("synthetic images are kept in a cache folder; give the task one")
    return task.cache
