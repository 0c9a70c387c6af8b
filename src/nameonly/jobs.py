"""The verbs of the library: ``label`` a pile of images, ``predict`` with a saved classifier."""

import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypedDict, Unpack, get_type_hints

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from nameonly import estimate, methods, outputs
from nameonly.backbones import Backbone
from nameonly.backbones._feature_file import is_feature_file
from nameonly.backbones._network import NetworkBackbone
from nameonly.backbones.precomputed import PrecomputedBackbone
from nameonly.card import classifier_card
from nameonly.classifier import Classifier, load, open_backbone, scorer_name
from nameonly.engines import Engine
from nameonly.export.onnx import some_images, write_onnx
from nameonly.extending import adapt_on_some
from nameonly.generating import recipe_drawing
from nameonly.images import Quarantined
from nameonly.images import load as load_image
from nameonly.journal import Journal, OnNote, OnProgress, OnStage
from nameonly.label_space import read_label_space
from nameonly.label_tables.reading import read_labels
from nameonly.ops.room import check_disk, check_room, free_memory
from nameonly.pipeline import ImageSpec, Inputs, Outcome, backbone_for, read_inputs, score
from nameonly.preparation import Setup
from nameonly.recipes import Recipe
from nameonly.report.html import ReportInput, write_report
from nameonly.report.outcome import made_images, trust_input
from nameonly.sources.remote import public
from nameonly.store import default_cache
from nameonly.types import LabelSpace

DEFAULT_BACKBONE = "openai/clip-vit-base-patch32"
DEFAULT_RECIPE = "up_adapter"
# arrays of images x classes that are held at once: scores, probabilities and what lies between
LABEL_ARRAYS = 5
PACKAGES = ("nameonly", "torch", "transformers", "numpy", "pyarrow", "pillow", "scikit-learn")


class Options(TypedDict, total=False):
    """What every run may be told besides its subject.

    Keys:
        out: Folder to write; nothing is written without it.
        overwrite: Replace a finished run in ``out``.
        limit: Take a random sample of this many sources.
        seed: Of the sample and of whatever trains.
        column: Column of images in a table.
        cache: Folder of the feature stores.
        engine: Reads, encodes and draws on other machines; this process does it all without one.
        on_stage: Called with the name of every stage that begins.
        on_progress: Called with done and total inside long stages.
        on_note: Called with a line for a person, such as how long something will take.
    """

    out: str | Path | None
    overwrite: bool
    limit: int | None
    seed: int
    column: str | None
    cache: str | Path | None
    engine: Engine | None
    on_stage: OnStage | None
    on_progress: OnProgress | None
    on_note: OnNote | None


class LabelOptions(Options, total=False):
    """What ``label`` may be told besides its subject.

    Keys:
        adapt_on: Learn from a random sample of this many distinct images, those with given labels
            among them, and label all with the classifier. It bounds memory; None learns from all.
    """

    adapt_on: int | None


@dataclass(frozen=True)
class Run:
    """What a run gave.

    Attributes:
        rows: Of the table.
        classifier: The product; ``classifier.predict([image, ...])``.
        quarantined: Sources that could not be read, with reasons.
        summary: Content of ``run.json``.
        out: The folder written, None if none was asked for.
    """

    rows: outputs.LabelRows = field(repr=False, compare=False)
    classifier: Classifier
    quarantined: tuple[Quarantined, ...]
    summary: dict[str, Any]
    out: Path | None

    @cached_property
    def table(self) -> pa.Table:
        """One row per source, the same as ``labels.parquet``; ``.to_pandas()`` if you have it."""
        return self.rows.table()


def label_space_for(
    images: ImageSpec, classes: str | Path | Sequence[str] | LabelSpace | None
) -> LabelSpace:
    """Read the classes; a file of features may name its own.

    Raises:
        ValueError: If there are none, or they are not well formed.
    """
    if isinstance(classes, LabelSpace):
        return classes
    if classes is not None:
        return read_label_space(classes)
    if is_feature_file(images):
        named = PrecomputedBackbone(str(images)).class_names
        if named is not None:
            return read_label_space(named)
    raise ValueError(
        "class names are missing: pass --classes cat,dog or a file of names"
        + (" (or put 'class_names' into the file of features)" if is_feature_file(images) else "")
    )


def label(
    images: ImageSpec,
    classes: str | Path | Sequence[str] | LabelSpace | None = None,
    *,
    recipe: str | Recipe = DEFAULT_RECIPE,
    backbone: str | Backbone = DEFAULT_BACKBONE,
    settings: Mapping[str, Any] | None = None,
    given: str | Path | Mapping[str, str] | None = None,
    ensemble: Sequence[str | Backbone] = (),
    **options: Unpack[LabelOptions],
) -> Run:
    """Label unlabelled images from class names alone.

    Args:
        images: A folder, files, a glob, a table, tar shards; or an npz or safetensors file of your
            own features, with text weights in it.
        classes: Names, ``"cat,dog"``, a file of names, or a ``LabelSpace``; may be left out where
            a file of features names its classes.
        recipe: Name of a recipe, or one put together by hand.
        backbone: A hub id, a local folder, ``"tiny"``, or a backbone.
        settings: ``"stage.field" -> value`` for a recipe given by name.
        given: Labels that are known already: a CSV or parquet table, or path, stem or id -> class.
        ensemble: Further backbones; the first pseudo-labels are made from the mean of their and
            the backbone's zero-shot probabilities.
        options: See ``LabelOptions`` and ``Options``.

    Raises:
        ValueError: If anything given is wrong; the message says what was expected.
    """
    _check(options, LabelOptions)
    if settings and not isinstance(recipe, str):
        raise ValueError("settings go with a recipe given by name; put them into the recipe itself")
    label_space = label_space_for(images, classes)
    if len(label_space) < 2:
        raise ValueError(f"labelling needs at least two classes, got {label_space.class_names}")
    seed = options.get("seed", 0)
    parts = methods.build_recipe(recipe, settings, seed) if isinstance(recipe, str) else recipe
    opened = open_backbone(backbone) if isinstance(backbone, str) else backbone
    opened = backbone_for(images, opened)
    table = read_labels(Path(given)) if isinstance(given, str | Path) else given
    others = tuple(open_backbone(b) if isinstance(b, str) else b for b in ensemble)
    engine = options.get("engine")
    setup = Setup(opened, label_space, parts, _cache(options), table, others, engine)

    card = methods.card("recipes", methods.name_of(parts))
    made = {
        "recipe": card.name,
        "title": card.title,
        "paper": card.paper,
        "settings": methods.describe_recipe(parts),
        "seed": seed,
        "nameonly": version("nameonly"),
    }
    if some := options.get("adapt_on"):
        made["adapt_on"] = some
    if others:
        made["ensemble"] = [other.reference() for other in others]
    facts = {"command": "label", **made, **_input_facts(images, options)}
    if isinstance(given, str | Path):
        facts["given"] = str(given)
    if label_space.seen is not None:
        facts["seen"] = list(label_space.seen)

    def check(n: int) -> None:
        learnt_from = n if some is None else min(n, some)
        check_room(learnt_from, len(label_space), LABEL_ARRAYS, free_memory())
        if learnt_from < n:
            check_disk(n, len(label_space), _cache(options), free_memory())

    with ExitStack() as kept:

        def work(journal: Journal) -> Outcome:
            inputs = _read(images, opened, journal, options, check)
            return adapt_on_some(
                inputs, some or len(inputs.features), seed, setup, journal, made, kept
            )

        return _execute(work, facts, options)


def predict(
    classifier: str | Path | Classifier, images: ImageSpec, **options: Unpack[Options]
) -> Run:
    """Label new images with a saved classifier; nothing is learnt from them.

    Args:
        classifier: A loaded classifier, its folder, or the output folder of ``label``.
        images: What ``label`` takes.
        options: See ``Options``.

    Raises:
        ValueError: If anything given is wrong, or the backbone's weights are not those that the
            classifier was made with.
    """
    _check(options, Options)
    loaded = classifier if isinstance(classifier, Classifier) else load(classifier)
    reader = backbone_for(images, loaded.backbone)

    def check(n: int) -> None:
        check_disk(n, len(loaded.label_space), _cache(options), free_memory())

    def work(journal: Journal) -> Outcome:
        if reader is loaded.backbone:
            loaded.check_weights()
        inputs = _read(images, reader, journal, options, check)
        return score(inputs, loaded, _cache(options), journal)

    facts = {"command": "predict", "recipe": scorer_name(loaded.scorer), **loaded.made}
    if not isinstance(classifier, Classifier):
        facts["classifier"] = str(classifier)
    return _execute(work, {**facts, **_input_facts(images, options)}, options)


def dry_run(
    images: ImageSpec,
    label_space: LabelSpace,
    backbone: Backbone,
    recipe: Recipe | None = None,
    **options: Unpack[Options],
) -> dict[str, Any]:
    """Say what ``label`` would read, skip and cost, and write nothing.

    What a recipe would have drawn is counted as if nothing of it were there; what it learns
    afterwards is not counted.

    Raises:
        ValueError: If nothing readable is found.
    """
    opened = {k: options[k] for k in ("column", "limit", "seed", "on_progress") if k in options}
    found = estimate.dry_run(images, label_space, backbone, _cache(options), **opened)  # type: ignore[arg-type]
    drawing = recipe_drawing(recipe, label_space, found["images"])
    return found if drawing is None else {**found, "drawing": drawing}


def _check(options: Mapping[str, Any], known: type[Any]) -> None:
    """Refuse options that do not exist: Python would take any."""
    valid = tuple(get_type_hints(known))
    for key in options:
        if key not in valid:
            raise ValueError(f"no option {key!r}; there are: {', '.join(valid)}")
    some = options.get("adapt_on")
    if some is not None and some < 1:
        raise ValueError(f"adapt_on must be at least 1 image, got {some}")
    if not 0 <= options.get("seed", 0) < 2**31:
        raise ValueError(f"seed must lie in 0 to {2**31 - 1}, got {options.get('seed')}")


def _cache(options: Options) -> Path:
    cache = options.get("cache")
    return Path(cache) if cache else default_cache()


def _read(
    images: ImageSpec,
    backbone: Backbone,
    journal: Journal,
    options: Options,
    check: Callable[[int], None],
) -> Inputs:
    told: Any = {k: options.get(k) for k in ("limit", "column", "engine")}
    seed, cache = options.get("seed", 0), _cache(options)
    return read_inputs(images, backbone, cache, journal, check=check, seed=seed, **told)


def _input_facts(images: ImageSpec, options: Options) -> dict[str, Any]:
    listed = [images] if isinstance(images, str | Path) else images
    named = [public(str(item)) for item in listed]
    if not named:
        raise ValueError("no images given; name a folder, files, a glob, a table or tar shards")
    shown = named[0] if len(named) == 1 else f"{named[0]} and {len(named) - 1} more"
    kept = {key: options.get(key) for key in ("limit", "column", "overwrite")}
    return {"input": shown, **kept, "seed": options.get("seed", 0), "cache": str(_cache(options))}


def _execute(work: Any, facts: dict[str, Any], options: Options) -> Run:
    out = options.get("out")
    hooks = options.get("on_stage"), options.get("on_progress"), options.get("on_note")
    if out is None:
        journal = Journal(None, *hooks)
        return _finish(work(journal), facts, journal, None)
    out = Path(out)
    with outputs.staging(out, options.get("overwrite", False)) as folder:
        journal = Journal(folder / "log.jsonl", *hooks)
        journal.write("run", **facts)
        run = _finish(work(journal), facts, journal, folder)
        journal.write("done")
    return replace(run, out=out)


def _finish(outcome: Outcome, facts: dict[str, Any], journal: Journal, folder: Path | None) -> Run:
    """Put the results together and write them where there is a folder."""
    classifier = outcome.classifier
    rows = outputs.LabelRows.of(outcome, facts["recipe"])
    summary: dict[str, Any] = {
        "nameonly": version("nameonly"),
        **facts,
        "classes": list(classifier.label_space.class_names),
        "backbone": {
            **classifier.backbone.reference(),
            "name": classifier.backbone.name,
            "device": str(getattr(classifier.backbone, "resolved_device", "none")),
            "batch_size": classifier.backbone.batch_size,
        },
        "threads": torch.get_num_threads(),
        "repairs": list(outcome.inputs.repairs),
        "counts": outputs.counts(outcome),
        "transductive": outcome.transductive,
        "timings": journal.timings,
        "versions": {name: version(name) for name in PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
    }
    if note := classifier.backbone.note:
        summary["backbone"]["note"] = note
    if outcome.assessment is not None:
        summary |= outputs.estimates(outcome.assessment, classifier.label_space.class_names)
    if outcome.candidates:
        summary["candidates"] = list(outcome.candidates)
    if outcome.support is not None:
        summary["synthetic"] = outputs.synthetic(outcome)
    if folder is not None:
        with journal.stage("write"):
            outputs.write_labels(folder, rows)
            outputs.write_quarantine(folder, outcome.inputs.quarantined)
            classifier.save(folder / "classifier", classifier_card(classifier))
        images = outcome.inputs.images if facts["command"] == "label" else None
        if images is not None and isinstance(classifier.backbone, NetworkBackbone):
            with journal.stage("export"):
                names = classifier.label_space.class_names
                _, shown = some_images(images, range(len(images)))
                try:
                    summary["onnx"] = write_onnx(
                        classifier.backbone, names, folder / "classifier", shown
                    )
                except ValueError as error:  # hours of training are not lost with it
                    summary["repairs"].append(f"model.onnx could not be written: {error}")
        with journal.stage("report"):
            write_report(folder / "report.html", _report_input(outcome, summary))
        outputs.write_run(folder, summary)
    return Run(rows, classifier, outcome.inputs.quarantined, summary, None)


def _report_input(outcome: Outcome, summary: dict[str, Any]) -> ReportInput:
    images = outcome.inputs.images
    none = np.full(len(outcome.predictions.ids), -1)

    def open_image(row: int) -> Image.Image:
        assert images is not None
        return load_image(images, row)

    return ReportInput(
        run=summary,
        class_names=outcome.classifier.label_space.class_names,
        sources=outcome.inputs.sources,
        probs=outcome.predictions.probs.numpy(),
        labels=outcome.predictions.labels.numpy(),
        zero_shot=none if outcome.zero_shot is None else outcome.zero_shot.numpy(),
        quarantine=tuple((q.source, q.reason) for q in outcome.inputs.quarantined),
        duplicates=outputs.duplicate_groups(outcome),
        open_image=None if images is None else open_image,
        made=made_images(outcome),
        trust=trust_input(outcome),
    )
