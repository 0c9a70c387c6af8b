"""Images and texts -> features, through the store: what is there already is never encoded again."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from nameonly.backbones import Backbone
from nameonly.engines import Engine
from nameonly.images import BadImageError, Quarantined, Transform, load
from nameonly.ops.views import VERSION, ViewKind, make_view, view_generator
from nameonly.store import FeatureStore, store_folder
from nameonly.types import Features, ImageSet, LabelSpace, TextClassifier

ROWS_PER_SHARD = 4096
SECONDS_PER_SHARD = 30.0
CLASSES_AT_ONCE = 256
LOADERS = 4

Progress = Callable[[int, int], None]
_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True)
class Encoded:
    """Features of the readable images.

    Attributes:
        features: One row per distinct image, in order of id.
        quarantined: One row per source that could not be decoded.
        n_encoded: Images that went through the model now; the others were in the store.
        repairs: What the store found damaged and made again, in words.
    """

    features: Features
    quarantined: list[Quarantined]
    n_encoded: int
    repairs: list[str]


def open_store(cache: Path, kind: str, backbone: Backbone, *, create: bool = True) -> FeatureStore:
    """Open the store of a backbone's image or text features (``kind`` is "images" or "texts")."""
    key = backbone.image_key if kind == "images" else backbone.text_key
    return FeatureStore(store_folder(cache, kind, key), key, create=create)


def encode_image_set(
    images: ImageSet,
    backbone: Backbone,
    cache: Path,
    on_progress: Progress | None = None,
    engine: Engine | None = None,
) -> Encoded:
    """Return the features of every readable image, encoding those that the store lacks.

    Images are taken in order of id, so that no file name can change a batch, and decoded by threads
    while the model works on the batch before. Features reach the disk every half minute.

    Args:
        images: To be encoded.
        backbone: Encodes them.
        cache: Folder of the stores.
        on_progress: Called with done and total.
        engine: Encodes first what it can; None leaves all to this process.

    Raises:
        ValueError: If not one image could be decoded, or the engine cannot work.
    """
    store = open_store(cache, "images", backbone)
    return _encode(images, backbone, store, on_progress, engine=engine)


def features_in_order(
    images: ImageSet,
    backbone: Backbone,
    cache: Path,
    on_progress: Progress | None = None,
    engine: Engine | None = None,
) -> Features:
    """Return features in the order of images that all are readable; see ``encode_image_set``.

    Raises:
        ValueError: If an image cannot be read, or the engine cannot work.
    """
    encoded = encode_image_set(images, backbone, cache, on_progress, engine)
    return _in_order(encoded, images.ids, "leave them out, or put them right")


def _in_order(encoded: Encoded, ids: Iterable[str], advice: str) -> Features:
    """Return rows in the order of ``ids``; an image that could not be decoded is an error."""
    if encoded.quarantined:
        first = encoded.quarantined[0]
        raise ValueError(
            f"{len(encoded.quarantined)} images cannot be read, first {first.source}: "
            f"{first.reason}; {advice}"
        )
    row = {image_id: i for i, image_id in enumerate(encoded.features.ids)}
    return encoded.features.subset(torch.tensor([row[i] for i in ids], dtype=torch.long))


@dataclass(frozen=True)
class Views:
    """Augmented views of every image.

    Attributes:
        n: How many.
        kind: See ``ops/views.py``.
        seed: Decides them.
    """

    n: int
    kind: ViewKind
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"expected at least one view, got {self.n}")


def encode_views(
    images: ImageSet,
    backbone: Backbone,
    views: Views,
    cache: Path | None,
    on_progress: Progress | None = None,
    engine: Engine | None = None,
) -> Float[Tensor, "v n d"]:
    """Return features of augmented views, encoding those that the store lacks.

    A view is a function of the image, the kind, the view's number and the seed, and each number has
    a store of its own: more views later encode the new ones alone, and a run that was broken off
    goes on where it stood.

    Args:
        images: Readable images.
        backbone: Encodes them.
        views: Which views of every image.
        cache: Folder of the stores; None keeps nothing.
        on_progress: Called with done and total over all views.
        engine: Makes and encodes first what it can; None leaves all to this process.

    Returns:
        Unit rows in the order of ``images.ids``, each id once.

    Raises:
        ValueError: If an image cannot be decoded, or the engine cannot work.
    """
    with TemporaryDirectory() if cache is None else nullcontext(cache) as folder:
        rows = []
        for number in range(views.n):
            progress = _part_of(on_progress, number, views.n)
            view = _View(views.kind, number, views.seed)
            store = _view_store(backbone, Path(folder), view)
            encoded = _encode(images, backbone, store, progress, view, engine)
            advice = "encode the images first and take views of the readable ones"
            rows.append(_in_order(encoded, dict.fromkeys(images.ids), advice).values)
    return torch.stack(rows)


def _part_of(on_progress: Progress | None, number: int, n_views: int) -> Progress | None:
    if on_progress is None:
        return None
    return lambda done, total: on_progress(number * total + done, n_views * total)


@dataclass(frozen=True)
class _View:
    kind: ViewKind
    number: int
    seed: int

    def __call__(self, image_id: str, image: Image.Image) -> Image.Image:
        generator = view_generator(image_id, self.kind, self.number, self.seed)
        return make_view(image, self.kind, generator)


def _view_store(backbone: Backbone, cache: Path, view: _View) -> FeatureStore:
    key = {
        **backbone.image_key,
        "view": f"{view.kind} {view.number}, seed {view.seed}, version {VERSION}",
    }
    return FeatureStore(store_folder(cache, "views", key), key)


def _encode(
    images: ImageSet,
    backbone: Backbone,
    store: FeatureStore,
    on_progress: Progress | None,
    transform: Transform | None = None,
    engine: Engine | None = None,
) -> Encoded:
    ahead = 0
    if engine is not None:
        ahead = engine.encode(images, backbone, store, on_progress, transform)
    first = images.first_rows()
    missing = store.missing(first)
    repairs = list(store.repairs)
    bad: dict[str, str] = {}
    good = decoded_images(images, missing, backbone, bad, transform)
    done = len(first) - len(missing)
    pending: list[tuple[list[str], Float[Tensor, "n d"]]] = []
    flushed = time.monotonic()
    try:
        for ids, pixels in _batches(good, backbone.batch_size):
            pending.append((ids, backbone.encode_pixels(pixels)))
            rows = sum(len(i) for i, _ in pending)
            if rows >= ROWS_PER_SHARD or time.monotonic() - flushed > SECONDS_PER_SHARD:
                _flush(store, pending)
                flushed = time.monotonic()
            done += len(ids)
            if on_progress is not None:
                on_progress(done + len(bad), len(first))
    finally:  # a Ctrl-C keeps all that was encoded
        _flush(store, pending)
    quarantined = [
        Quarantined(source, bad[image_id])
        for source, image_id in zip(images.sources, images.ids, strict=True)
        if image_id in bad
    ]
    kept = tuple(i for i in first if i not in bad)
    if not kept:
        reasons = "; ".join(f"{q.source}: {q.reason}" for q in quarantined[:3])
        raise ValueError(f"none of the {len(images)} images could be read ({reasons})")
    features = Features(store.get(kept), kept, backbone.name)
    return Encoded(features, quarantined, ahead + len(missing) - len(bad), repairs)


def _flush(store: FeatureStore, pending: list[tuple[list[str], Float[Tensor, "n d"]]]) -> None:
    if pending:
        store.add([i for ids, _ in pending for i in ids], torch.cat([v for _, v in pending]))
        pending.clear()


def decoded_images(
    images: ImageSet,
    ids: Sequence[str],
    backbone: Backbone,
    bad: dict[str, str],
    transform: Transform | None = None,
) -> Iterator[tuple[str, Float[Tensor, "3 h w"]]]:
    """Yield decoded and preprocessed images in the order of ``ids``, decoded ahead by threads.

    Args:
        images: Where the ids lie.
        ids: The images wanted.
        backbone: Preprocesses them.
        bad: Receives id -> reason for the images that cannot be decoded.
        transform: Makes of an id and its RGB image the one that is preprocessed in its place.
    """
    rows: dict[str, list[int]] = {i: [] for i in ids}
    for row, image_id in enumerate(images.ids):
        if image_id in rows:
            rows[image_id].append(row)

    def one(image_id: str) -> tuple[str, Float[Tensor, "3 h w"] | str]:
        reason = ""
        for row in rows[image_id]:  # a duplicate may still be there where the first has vanished
            try:
                image = load(images, row)
            except BadImageError as error:
                reason = reason or str(error)
                continue
            if transform is not None:
                image = transform(image_id, image)
            return image_id, backbone.preprocess(image)
        return image_id, reason

    for image_id, result in _ahead(one, ids, backbone.batch_size * 2):
        if isinstance(result, str):
            bad[image_id] = result
        else:
            yield image_id, result


def _ahead(function: Callable[[_T], _R], items: Iterable[_T], ahead: int) -> Iterator[_R]:
    """Map in threads, in order, with at most ``ahead`` results waiting."""
    with ThreadPoolExecutor(LOADERS) as pool:
        source = iter(items)
        queue = [pool.submit(function, item) for item in islice(source, ahead)]
        try:
            while queue:
                yield queue.pop(0).result()
                queue.extend(pool.submit(function, item) for item in islice(source, 1))
        finally:
            for future in queue:
                future.cancel()


def _batches(
    pairs: Iterator[tuple[str, Float[Tensor, "3 h w"]]], size: int
) -> Iterator[tuple[list[str], Float[Tensor, "n 3 h w"]]]:
    while chunk := list(islice(pairs, size)):
        yield [i for i, _ in chunk], torch.stack([p for _, p in chunk])


def encode_texts(texts: Sequence[str], backbone: Backbone, store: FeatureStore) -> list[str]:
    """Encode the texts that the store lacks, and return the ids of all, in their order."""
    ids = [hashlib.blake2b(t.encode(), digest_size=16).hexdigest() for t in texts]
    by_id = dict(zip(ids, texts, strict=True))
    missing = sorted(store.missing(by_id))
    for start in range(0, len(missing), ROWS_PER_SHARD):
        chunk = missing[start : start + ROWS_PER_SHARD]
        store.add(chunk, backbone.encode_texts([by_id[i] for i in chunk]))
    return ids


def build_text_classifier(
    texts: Sequence[Sequence[str]], label_space: LabelSpace, backbone: Backbone, cache: Path
) -> TextClassifier:
    """Average the unit features of each class's texts into its unit weight.

    Memory: the texts, O(c d), and the features of the texts of 256 classes.

    Args:
        texts: One or more sentences per class, in the order of ``label_space``.
        label_space: The classes.
        backbone: Encodes the sentences.
        cache: Folder of the stores.
    """
    store = open_store(cache, "texts", backbone)
    flat = [text for sentences in texts for text in sentences]
    ids = iter(encode_texts(flat, backbone, store))
    means = []
    for start in range(0, len(texts), CLASSES_AT_ONCE):
        sizes = [len(sentences) for sentences in texts[start : start + CLASSES_AT_ONCE]]
        features = store.get(list(islice(ids, sum(sizes))))
        means += [part.mean(dim=0) for part in torch.split(features, sizes)]
    return TextClassifier(
        normalize(torch.stack(means), dim=1), backbone.logit_scale, label_space.class_names
    )
