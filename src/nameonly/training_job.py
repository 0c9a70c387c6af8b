"""Trains a network of its own on folders that ``generate`` and ``label`` wrote."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from nameonly import methods, outputs
from nameonly.backbones._network import NetworkBackbone
from nameonly.card import classifier_card
from nameonly.classifier import Classifier
from nameonly.decisions.argmax import Argmax
from nameonly.export.labelled import find_images, read_run
from nameonly.export.onnx import some_images, write_onnx
from nameonly.extras import import_extra
from nameonly.images import Quarantined
from nameonly.journal import Journal, OnProgress
from nameonly.ops.labelling import hard_candidates
from nameonly.pipeline import ImageSpec
from nameonly.preparation import kept_folder
from nameonly.store import default_cache
from nameonly.synthetic import TABLE, asked_rows, read_synthetic, read_table
from nameonly.training.image_classifier import ImageClassifier
from nameonly.types import ImageSet, LabelSpace, PseudoLabels, class_key


@dataclass(frozen=True)
class Lesson:
    """Images, and the labels that a network learns them under.

    Attributes:
        images: What is learnt from.
        labels: In the same order.
        class_names: Of the columns.
        n_synthetic: How many of them a model drew.
        unreadable: What could not be read.
    """

    images: ImageSet
    labels: PseudoLabels
    class_names: tuple[str, ...]
    n_synthetic: int
    unreadable: tuple[Quarantined, ...] = ()


@dataclass(frozen=True)
class Training:
    """What a training was asked for.

    Attributes:
        folders: Of ``generate`` (synthetic images) and of ``label`` (pseudo-labelled ones).
        trainer: Learns.
        images: Where the images of ``label`` lie now; None for where they lay.
        int8: Also write an int8 copy of the ONNX file.
        overwrite: Replace a finished run in the output folder.
        cache: Folder in which training leaves its state.
    """

    folders: Sequence[Path]
    trainer: ImageClassifier
    images: ImageSpec | None = None
    int8: bool = False
    overwrite: bool = False
    cache: Path = field(default_factory=default_cache)


def read_lesson(
    folder: Path, images: ImageSpec | None = None, on_progress: OnProgress | None = None
) -> Lesson:
    """Return what a folder has to teach.

    Args:
        folder: Of ``generate`` or ``label``.
        images: Where the images of ``label`` lie now; None for where they lay.
        on_progress: Called with the images read so far and in all.

    Raises:
        ValueError: If it is neither, is damaged, or its images are not to be found.
    """
    if (folder / TABLE).is_file():
        return _synthetic(folder, on_progress)
    if (folder / outputs.LABELS).is_file() and (folder / outputs.RUN).is_file():
        return _pseudo_labelled(folder, images, on_progress)
    raise ValueError(
        f"{folder} holds nothing to train on: expected {TABLE}, as `nameonly generate` writes it, "
        f"or {outputs.LABELS} and {outputs.RUN}, as `nameonly label` does"
    )


def _synthetic(folder: Path, on_progress: OnProgress | None) -> Lesson:
    names = tuple(dict.fromkeys(str(row["class_name"]) for row in asked_rows(read_table(folder))))
    made, unreadable = read_synthetic(folder, on_progress=on_progress)
    candidates = hard_candidates(made.labels(LabelSpace(names)), len(names))
    labels = PseudoLabels(made.images.ids, candidates.float(), candidates, torch.ones(len(made)))
    return Lesson(made.images, labels, names, len(made), tuple(unreadable))


def _pseudo_labelled(
    folder: Path, spec: ImageSpec | None, on_progress: OnProgress | None
) -> Lesson:
    run = read_run(folder)
    found, unreadable = find_images(run, spec, run.facts.get("column"), on_progress)
    row = {image_id: i for i, image_id in enumerate(run.table["id"].to_pylist())}
    first = [i for image_id, i in found.first_rows().items() if image_id in row]
    images = found.subset(first)
    table = run.table.take([row[i] for i in images.ids])
    labels = _labels(table, images.ids, run.class_names)
    return Lesson(images, labels, run.class_names, 0, tuple(unreadable))


def _labels(table: Any, ids: tuple[str, ...], names: tuple[str, ...]) -> PseudoLabels:
    """Return a run's labels; rows that it left without one are left out."""
    index = {name: i for i, name in enumerate(names)}
    columns = torch.tensor([index.get(name, -1) for name in table["label"].to_pylist()])
    candidates = hard_candidates(columns, len(names))
    probs = candidates.float()
    if all(f"p_{name}" in table.column_names for name in names):
        of_class = [torch.tensor(table[f"p_{name}"].to_pylist()) for name in names]
        probs = torch.stack(of_class, dim=1).float()
    return PseudoLabels(ids, probs, candidates, probs.amax(dim=1))


def joined(lessons: Sequence[Lesson]) -> Lesson:
    """Return all lessons as one, in the columns of the first.

    Raises:
        ValueError: If there are none, they are of other classes, or a class has no image in any.
    """
    if not lessons:
        raise ValueError("nothing to train on; name folders that generate and label wrote")
    names = lessons[0].class_names
    keys = [class_key(name) for name in names]
    labels: list[PseudoLabels] = []
    for lesson in lessons:
        place = {class_key(name): i for i, name in enumerate(lesson.class_names)}
        if set(place) != set(keys):
            raise ValueError(
                f"folders of other classes cannot be joined: {list(names)} and "
                f"{list(lesson.class_names)}"
            )
        columns, one = [place[key] for key in keys], lesson.labels
        labels.append(
            replace(one, probs=one.probs[:, columns], candidates=one.candidates[:, columns])
        )
    every = [lesson.images for lesson in lessons]
    images = ImageSet(
        tuple(
            f"{n}: {source}" if len(every) > 1 else source
            for n, one in enumerate(every)
            for source in one.sources
        ),
        tuple(i for one in every for i in one.ids),
        tuple(location for one in every for location in one.locations),
    )
    together = PseudoLabels(
        images.ids,
        torch.cat([one.probs for one in labels]),
        torch.cat([one.candidates for one in labels]),
        torch.cat([one.confidence for one in labels]),
    )
    empty = [
        n for n, k in zip(names, together.candidates.any(dim=0).tolist(), strict=True) if not k
    ]
    if empty:
        raise ValueError(
            f"no image of {', '.join(map(repr, empty))} to train on: the network could never "
            "answer it; add synthetic images of it, or label without it"
        )
    unreadable = tuple(bad for lesson in lessons for bad in lesson.unreadable)
    return Lesson(images, together, names, sum(one.n_synthetic for one in lessons), unreadable)


def train(wanted: Training, out: Path, journal: Journal | None = None) -> dict[str, Any]:
    """Train a network and write it: ``classifier/`` with ``model.onnx``, and ``run.json``.

    The same call goes on from the last whole epoch of one that was stopped.

    Returns:
        Content of ``run.json``, and the folder.

    Raises:
        ValueError: If a folder, its images or a setting is bad.
        FloatingPointError: If the loss is not finite.
        OSError: If the folder cannot be written.
    """
    journal = journal or Journal()
    outputs.check_free(out, wanted.overwrite)
    for package in ("timm", "onnx", "onnxscript", "onnxruntime"):  # before hours of training
        import_extra(package, package, "train")
    hear = journal.on_progress
    with journal.stage("ingest"):
        folders = map(Path, wanted.folders)
        lesson = joined([read_lesson(folder, wanted.images, hear) for folder in folders])
    trainer = replace(wanted.trainer)
    if trainer.schedule.epochs < 1:
        raise ValueError("training.schedule.epochs must be at least 1, got 0")
    epochs = trainer.schedule.epochs
    state = wanted.cache / "training" / _digest(lesson, trainer)
    with kept_folder(state) as kept, outputs.staging(out, wanted.overwrite) as place:
        with journal.stage("train"):
            trainer.fit(
                lesson.images,
                lesson.labels,
                lesson.class_names,
                checkpoint=kept and kept / "network.safetensors",
                on_epoch=lambda epoch, _: hear(epoch, epochs),
                on_decode=hear,
            )
        facts = _facts(wanted, lesson, trainer)
        with journal.stage("write"):
            product = _product(lesson, trainer, facts)
            product.save(place / "classifier", classifier_card(product))
        with journal.stage("export"):
            assert isinstance(product.backbone, NetworkBackbone)
            rows, shown = some_images(
                lesson.images, lesson.labels.selected.nonzero()[:, 0].tolist()
            )
            said = product.backbone.encode_images(shown).argmax(dim=1).cpu()
            taught = lesson.labels.labels[list(rows)].cpu()
            facts["learnt"] = {
                "images": len(rows),
                "share": (said == taught).double().mean().item(),
            }
            facts["onnx"] = write_onnx(
                product.backbone,
                lesson.class_names,
                place / "classifier",
                shown,
                wanted.int8,
            )
        facts["timings"] = journal.timings
        outputs.write_run(place, facts)
    return {**facts, "out": str(out)}


def _digest(lesson: Lesson, trainer: ImageClassifier) -> str:
    """Return a hash of all that a training depends on."""
    facts = [methods.settings_of(trainer), lesson.class_names, lesson.images.ids]
    found = hashlib.sha256(repr(facts).encode())
    for tensor in (lesson.labels.probs, lesson.labels.candidates):
        found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()[:24]


def _facts(wanted: Training, lesson: Lesson, trainer: ImageClassifier) -> dict[str, Any]:
    """Return what the run says of itself."""
    card = methods.card("training", methods.name_of(trainer))
    unreadable = [*lesson.unreadable, *trainer.unreadable_]
    bad = {q.source for q in trainer.unreadable_}
    read = torch.tensor([source not in bad for source in lesson.images.sources])
    counts = lesson.labels.candidates[read].sum(dim=0).tolist()
    settings = methods.settings_of(trainer)
    return {
        "command": "train",
        "nameonly": version("nameonly"),
        "recipe": card.name,
        "title": card.title,
        "paper": card.paper,
        "settings": settings | {"schedule": asdict(trainer.schedule)},
        "seed": trainer.seed,
        "folders": [str(folder) for folder in wanted.folders],
        "classes": list(lesson.class_names),
        "images": int(lesson.labels.selected.sum()) - len(trainer.unreadable_),
        "per_class": dict(zip(lesson.class_names, counts, strict=True)),
        "unreadable": [{"path": q.source, "reason": q.reason} for q in unreadable],
        "losses": trainer.losses_,
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("torch", "timm", "onnx", "onnxruntime")},
    }


def _learnt_from(lesson: Lesson, n: int) -> str:
    if lesson.n_synthetic == len(lesson.images):
        return f"{n:,} synthetic images of these classes"
    if not lesson.n_synthetic:
        return f"{n:,} pseudo-labelled images of these classes"
    return f"{n:,} images of these classes, {lesson.n_synthetic:,} of them synthetic"


def _product(lesson: Lesson, trainer: ImageClassifier, facts: dict[str, Any]) -> Classifier:
    kept = ("recipe", "title", "paper", "settings", "seed", "nameonly", "images")
    made = {key: facts[key] for key in kept}
    made["learnt_from"] = _learnt_from(lesson, facts["images"])
    space, backbone = LabelSpace(lesson.class_names), trainer.backbone_
    fingerprint = str(backbone.reference()["fingerprint"])
    return Classifier(backbone, trainer.scorer_, Argmax(), space, fingerprint, made)
