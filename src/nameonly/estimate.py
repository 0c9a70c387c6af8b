"""A dry run: counts, bad files, time and disk of a run, with nothing written."""

import time
from pathlib import Path
from typing import Any, TypedDict, Unpack

import torch

from nameonly.backbones import Backbone
from nameonly.backbones.precomputed import PrecomputedBackbone
from nameonly.encoding import decoded_images, open_store
from nameonly.images import Quarantined, open_images
from nameonly.journal import OnProgress
from nameonly.pipeline import ImageSpec
from nameonly.types import ImageSet, LabelSpace


class OpenOptions(TypedDict, total=False):
    """What ``open_images`` takes besides its source."""

    column: str | None
    limit: int | None
    seed: int
    on_progress: OnProgress | None


SAMPLE = 64
BYTES_PER_ROW = 400


def dry_run(
    source: ImageSpec,
    label_space: LabelSpace,
    backbone: Backbone,
    cache: Path,
    **options: Unpack[OpenOptions],
) -> dict[str, Any]:
    """Decode every image that would be encoded, time a sample through the model, write nothing.

    Returns:
        Counts, quarantined sources with reasons, seconds and bytes to expect.

    Raises:
        ValueError: If nothing readable is found.
    """
    if isinstance(backbone, PrecomputedBackbone):
        backbone.text_classifier(label_space)
        n = min(len(backbone.features), options.get("limit") or len(backbone.features))
        return _answer((n, n, 0), [], 0.0, 0, len(label_space))
    images, bad = open_images(source, **options)
    store = open_store(cache, "images", backbone, create=False)
    missing = store.missing(images.first_rows())
    decoded, unreadable, seconds = _try(images, missing, backbone, options.get("on_progress"))
    bad = sorted([*bad, *unreadable], key=lambda q: q.source)
    n_images = len(set(images.ids)) - len(missing) + decoded
    n_sources = len(images) - len(unreadable)
    if not n_images:
        raise ValueError(f"none of the {len(images)} images could be read, first: {bad[0].reason}")
    new_bytes = decoded * backbone.dim * 4
    return _answer((n_sources, n_images, decoded), bad, seconds, new_bytes, len(label_space))


def _try(
    images: ImageSet, missing: list[str], backbone: Backbone, on_progress: OnProgress | None
) -> tuple[int, list[Quarantined], float]:
    """Decode all, encode a sample; return how many decoded, the bad ones, and seconds for all."""
    reasons: dict[str, str] = {}
    sample: list[torch.Tensor] = []
    decoded = 0
    begun = time.perf_counter()
    for _, pixels in decoded_images(images, missing, backbone, reasons):
        decoded += 1
        if len(sample) < SAMPLE:
            sample.append(pixels)
        if on_progress is not None:
            on_progress(decoded + len(reasons), len(missing))
    decoding = time.perf_counter() - begun
    encoding = 0.0
    if sample:
        batch = torch.stack(sample[: backbone.batch_size])
        backbone.encode_pixels(batch)  # the first pass also warms up
        begun = time.perf_counter()
        backbone.encode_pixels(batch)
        encoding = (time.perf_counter() - begun) / len(batch) * decoded
    bad = [
        Quarantined(source, reasons[image_id])
        for source, image_id in zip(images.sources, images.ids, strict=True)
        if image_id in reasons
    ]
    return decoded, bad, decoding + encoding


def _answer(
    amounts: tuple[int, int, int],
    bad: list[Quarantined],
    seconds: float,
    store_bytes: int,
    n_classes: int,
) -> dict[str, Any]:
    n_sources, n_images, to_encode = amounts
    columns = n_classes if n_classes <= 100 else 10
    return {
        "sources": n_sources,
        "images": n_images,
        "duplicates": n_sources - n_images,
        "in_store": n_images - to_encode,
        "to_encode": to_encode,
        "quarantined": [{"path": q.source, "reason": q.reason} for q in bad],
        "classes": n_classes,
        "seconds_expected": round(seconds, 1),
        "bytes_expected": store_bytes + n_sources * (BYTES_PER_ROW + 4 * columns),
    }
