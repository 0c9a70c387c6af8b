"""Generates a folder of synthetic images: adapt the model, write requests, draw, filter."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from nameonly import methods
from nameonly.backbones import Backbone
from nameonly.encoding import build_text_classifier, features_in_order
from nameonly.engines import Engine
from nameonly.generating import (
    Adaptation,
    Captions,
    adapt_generator,
    check_adaptable,
    drawn,
    expected,
    foretell,
)
from nameonly.images import open_images
from nameonly.journal import Journal
from nameonly.label_tables.reading import read_labels
from nameonly.pipeline import ImageSpec, read_inputs
from nameonly.preparation import given_labels
from nameonly.prompts.templates import Templates
from nameonly.pseudo_labels import PseudoLabeller
from nameonly.pseudo_labels.top_k_per_class import TopKPerClass
from nameonly.report.synthetic import BeforeAfter, MadeImages, write_synthetic_report
from nameonly.store import default_cache
from nameonly.synthesis._drawing import LOCK
from nameonly.synthesis._locks import held
from nameonly.synthesis.domain_lora import DomainLora
from nameonly.synthesis.filter import Filter
from nameonly.synthesis.prompt_tricks import PromptTricks
from nameonly.synthesis.text_to_image import TextToImage
from nameonly.synthetic import (
    TABLE,
    ImageRequest,
    SyntheticImages,
    asked_rows,
    read_facts,
    read_synthetic,
    read_table,
    record_decisions,
    summary,
)
from nameonly.trust.synthetic import Measured, measure
from nameonly.types import Features, LabelSpace, TextClassifier

# what the model makes before it is adapted
UNADAPTED = "unadapted"


@dataclass(frozen=True)
class Generation:
    """What makes the images, part by part.

    Attributes:
        prompt_tricks: Writes the requests.
        text_to_image: Makes the images.
        domain_lora: Adapts the model to unlabelled images, where there are some.
        pseudo_labels: Chooses the images that it is adapted to, and their captions.
        filter: Says which of the images made to keep; None keeps all.
    """

    prompt_tricks: PromptTricks = field(default_factory=PromptTricks)
    text_to_image: TextToImage = field(default_factory=TextToImage)
    domain_lora: DomainLora = field(default_factory=DomainLora)
    pseudo_labels: PseudoLabeller = field(default_factory=TopKPerClass)
    filter: Filter | None = None


def configured(parts: Generation, settings: Mapping[str, Any]) -> Generation:
    """Return the parts with ``"part.field" -> value`` put in; a filter's field brings the filter.

    Raises:
        ValueError: If there is no such part or field, or a value is of another type.
    """
    names = [f.name for f in fields(parts)]
    for key, value in settings.items():
        name, dot, setting = key.partition(".")
        if name not in names or not dot:
            raise ValueError(f"generation has no setting {key!r}; {methods.offer(name, names)}")
        part = getattr(parts, name) or Filter()
        parts = replace(parts, **{name: methods.reconfigure(part, {setting: value})})
    return parts


@dataclass(frozen=True)
class Wanted:
    """What a generation was asked for.

    Attributes:
        label_space: The classes.
        images_per_class: How many images of each.
        adapt_to: Unlabelled images that the model learns the look of; None leaves it as it is.
        given: Labels of some of them that are known already.
        backbone: Labels the images to adapt to, and filters; needed for these two alone.
        cache: Folder of the feature stores.
        unadapted: How many images of each class are also made before the model is adapted, of the
            same requests, so that the page can tell what the adaptation changed; 0 for none.
        engine: Reads and encodes the images to adapt to, and draws, on other machines; this process
            does it all without one.
    """

    label_space: LabelSpace
    images_per_class: int
    adapt_to: ImageSpec | None = None
    given: Path | Mapping[str, str] | None = None
    backbone: Backbone | None = None
    cache: Path = field(default_factory=default_cache)
    unadapted: int = 20
    engine: Engine | None = None

    def __post_init__(self) -> None:
        if self.given is not None and self.adapt_to is None:
            raise ValueError("given labels are of the images to adapt to; name those too")
        if self.adapt_to is not None and self.backbone is None:
            raise ValueError("a backbone is needed to label the images that the model adapts to")
        if self.unadapted < 0:
            raise ValueError(f"unadapted must be at least 0, got {self.unadapted}")

    def compared(self, requests: Sequence[ImageRequest]) -> list[ImageRequest]:
        """Return the requests that the model also answers before it is adapted."""
        wanted = self.unadapted if self.adapt_to is not None else 0
        return [request for request in requests if request.number < wanted]

    @cached_property
    def text(self) -> TextClassifier:
        """The zero-shot classifier that labels and filters.

        Raises:
            ValueError: If there is no backbone.
        """
        if self.backbone is None:
            raise ValueError("a backbone is needed to filter the images made")
        texts = Templates().texts(self.label_space)
        return build_text_classifier(texts, self.label_space, self.backbone, self.cache)


def generate(
    wanted: Wanted, parts: Generation, out: Path, journal: Journal | None = None
) -> SyntheticImages:
    """Make a folder of synthetic images; the same call goes on where one was stopped.

    Args:
        wanted: Classes, numbers, and images to adapt to.
        parts: What makes the images.
        out: Folder: ``images/``, ``synthetic.parquet``, and ``lora/`` and ``unadapted/`` where the
            model was adapted.
        journal: Times the stages.

    Returns:
        The images kept.

    Raises:
        ValueError: If classes, settings or images are bad, another run writes the folder, or no
            image is kept of a class.
        FloatingPointError: If training or images are not finite.
        OSError: If the folder cannot be written.
    """
    journal = journal or Journal()
    requests = _requests(wanted, parts, out)
    with journal.stage("load"):
        _ = parts.text_to_image.folder
        if parts.filter is not None:
            _ = wanted.text
    with held(out / LOCK):  # from here on, not only for drawing: two would train into one folder
        return _made(wanted, parts, requests, out, journal)


def _requests(wanted: Wanted, parts: Generation, out: Path) -> tuple[ImageRequest, ...]:
    """Return the requests of a generation, where its folder can take their images."""
    check_place(out)
    requests = parts.prompt_tricks.requests(wanted.label_space, wanted.images_per_class)
    if wanted.adapt_to is not None:
        check_adaptable(parts.text_to_image)
        paths = (out / request.path(parts.text_to_image.image_format) for request in requests)
        first = next(filter(None, (read_facts(path, whole=False) for path in paths)), {})
        # else it would be told after hours of training
        if first.get("lora") == "":
            raise ValueError(
                f"the images in {out} were made by the model as it is, and now it is to be adapted "
                "first; choose a new folder"
            )
    return requests


def _made(
    wanted: Wanted,
    parts: Generation,
    requests: Sequence[ImageRequest],
    out: Path,
    journal: Journal,
) -> SyntheticImages:
    """Adapt, draw, filter and report, in a folder that no other run writes."""
    real, captions, adaptation = None, None, None
    compared = wanted.compared(requests)
    if wanted.adapt_to is not None:
        captions, real = captioned(wanted, parts.pseudo_labels, journal)
        n = int((captions.labels.labels >= 0).sum())
        adaptation = _adaptation(wanted, parts, requests, out, n)
    if wanted.engine is None:  # what is tried here says nothing of other machines
        with journal.stage("estimate"):
            foretell(journal.listener, parts.text_to_image, requests, out, adaptation)
    if compared:
        with journal.stage("draw unadapted"):
            plain = replace(parts.text_to_image, lora="")  # not kept beside the weights in training
            drawn(plain, compared, out / UNADAPTED, journal.on_progress, wanted.engine)
            del plain
    if captions is not None:
        with journal.stage("adapt"):
            generator = adapt_generator(
                parts.text_to_image, parts.domain_lora, captions, out / "lora", journal.on_progress
            )
        parts = replace(parts, text_to_image=generator)
    with journal.stage("generate"):
        made = drawn(parts.text_to_image, requests, out, journal.on_progress, wanted.engine)
    if parts.filter is not None:
        with journal.stage("filter"):
            made = _filter(wanted, parts.filter, out)
    with journal.stage("report"):
        _report(wanted, made, real, out)
    made.labels(wanted.label_space)  # no class may be empty
    return made


def _adaptation(
    wanted: Wanted, parts: Generation, requests: Sequence[ImageRequest], out: Path, n: int
) -> Adaptation:
    """Return the LoRA that is wanted, of n images."""
    compared = wanted.compared(requests)
    return Adaptation(parts.domain_lora, n, out / "lora", compared, out / UNADAPTED)


def check_place(out: Path) -> None:
    """Refuse a folder that holds other things than a generation's.

    Raises:
        ValueError: If it does, or is a file.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"the output folder {out} is a file; choose another with --out")
    ours = {"images", "lora", UNADAPTED, "report.html", "worth.json", TABLE, LOCK}
    there = sorted(p.name for p in out.iterdir()) if out.exists() else []
    others = [name for name in there if name not in ours and not name.endswith(".partial")]
    if others:
        raise ValueError(
            f"the output folder {out} holds other files than synthetic images ({others[0]!r} "
            "first); choose a new one with --out"
        )


def captioned(
    wanted: Wanted, labeller: PseudoLabeller, journal: Journal
) -> tuple[Captions, Features]:
    """Return the images to adapt to with what the model learns them under, and their features.

    Raises:
        ValueError: If there is no image, or given labels fit none.
    """
    assert wanted.backbone is not None and wanted.adapt_to is not None
    engine = wanted.engine
    inputs = read_inputs(wanted.adapt_to, wanted.backbone, wanted.cache, journal, engine=engine)
    images, features, known = inputs.distinct_images(), inputs.features, None
    if images is None:
        raise ValueError("the model is adapted to images, not to a file of features")
    if wanted.given is not None:
        table = wanted.given if isinstance(wanted.given, Mapping) else read_labels(wanted.given)
        known = given_labels(table, features, images, wanted.label_space)
    logits = wanted.text.predict_logits(features)
    labels = labeller.label(features, logits, wanted.label_space, known)
    return Captions(images, labels, wanted.label_space), features


def _filter(wanted: Wanted, sieve: Filter, out: Path) -> SyntheticImages:
    """Judge all images that were made, write it down, and return those that stay."""
    text, backbone = wanted.text, wanted.backbone
    assert backbone is not None
    made, _ = read_synthetic(out, with_dropped=True)
    features = features_in_order(made.images, backbone, wanted.cache, engine=wanted.engine)
    found = sieve.keep(features, made.labels(wanted.label_space), text)
    record_decisions(out, made.images.sources, found.agreement.tolist(), found.reasons)
    return read_synthetic(out)[0]


def look(wanted: Wanted, parts: Generation, out: Path) -> dict[str, Any]:
    """Return what a generation would ask for: counts, the first prompts of every trick, the time.

    Raises:
        ValueError: If there is no image to adapt to, or the folder holds other things.
    """
    requests = _requests(wanted, parts, out)
    tricks: dict[str, list[str]] = {}
    for request in requests:
        shown = f"{request.prompt!r} at guidance {request.guidance_scale:g}"
        seen = tricks.setdefault(request.trick, [])
        if len(seen) < 3 and shown not in seen:
            seen.append(shown)
    return {
        "asked_for": len(requests),
        "classes": dict.fromkeys(wanted.label_space.class_names, wanted.images_per_class),
        "tricks": tricks,
        "unadapted": len(wanted.compared(requests)),
        "model": parts.text_to_image.model,
        **_seconds(wanted, parts, requests, out),
    }


def _seconds(
    wanted: Wanted, parts: Generation, requests: Sequence[ImageRequest], out: Path
) -> dict[str, float | None]:
    """Return about how long a generation takes; None where the model is not on this machine.

    The images to adapt to are counted, not looked at: as many are trained on as there may be.
    """
    adaptation = None
    if wanted.adapt_to is not None:
        n = len(set(open_images(wanted.adapt_to)[0].ids))
        most = getattr(parts.pseudo_labels, "images_per_class", n) * len(wanted.label_space)
        adaptation = _adaptation(wanted, parts, requests, out, min(n, most))
    return expected(parts.text_to_image, requests, out, adaptation)


def _report(wanted: Wanted, made: SyntheticImages, real: Features | None, out: Path) -> None:
    """Write the page; figures stand on it where there is a backbone to tell them."""
    measured, before_after = None, None
    if wanted.backbone is not None:
        measured = _measured(wanted, made, real)
        worth = asdict(measured)
        if real is not None and wanted.unadapted:
            before_after = _before_and_after(wanted, real, out)
        if before_after is not None:
            worth |= {"before": asdict(before_after.before), "after": asdict(before_after.after)}
        written = json.dumps(worth, indent=1) + "\n"
        (out / "worth.json").write_text(written, encoding="utf-8")
    else:
        (out / "worth.json").unlink(missing_ok=True)  # of an earlier call, and of other images

    def opened(path: str) -> Image.Image:
        return Image.open(out / path)

    dropped = summary(out)["dropped"]
    shown = MadeImages(asked_rows(read_table(out)), measured, opened)
    write_synthetic_report(out / "report.html", shown, dropped, before_after)


def _measured(wanted: Wanted, made: SyntheticImages, real: Features | None) -> Measured:
    """Return what images are worth to the backbone."""
    assert wanted.backbone is not None
    features = features_in_order(made.images, wanted.backbone, wanted.cache, engine=wanted.engine)
    tricks = [str(row["trick"]) for row in made.rows]
    return measure(features, made.class_rows(wanted.label_space), wanted.text, real, tricks)


def _before_and_after(wanted: Wanted, real: Features, out: Path) -> BeforeAfter | None:
    """Measure the same requests without and with the LoRA, whatever a filter says of them."""
    folders = (out / UNADAPTED, out)
    made = [read_synthetic(folder, with_dropped=True)[0] for folder in folders]
    both = set(made[0].images.sources) & set(made[1].images.sources)
    if not both:
        return None
    before, after = (_measured(wanted, images.only(both), real) for images in made)
    rows = [row for row in made[0].rows if row["path"] in both]
    return BeforeAfter(before, after, rows, UNADAPTED)
