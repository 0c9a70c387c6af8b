"""Reading, encoding and drawing with Ray Data, on this machine or more; needs the extra ``ray``.

Batches are made as on one machine: the readable images that the store lacks, in order of id, in
pieces of the backbone's batch size. Features come to this process, which alone writes the store.
"""

import logging
import math
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from PIL import Image

from nameonly.backbones import Backbone
from nameonly.encoding import LOADERS, ROWS_PER_SHARD, SECONDS_PER_SHARD
from nameonly.extras import import_extra
from nameonly.images import ROWS_AT_ONCE, BadImageError, Transform, hash_locations, load_as
from nameonly.journal import OnProgress
from nameonly.store import FeatureStore
from nameonly.synthesis._drawing import Drawn, Piece
from nameonly.synthesis.text_to_image import TextToImage
from nameonly.types import ImageSet, Location

SECONDS_TO_ANSWER = 10.0

_ERROR = re.compile(r"[\w.]+(Error|Exception): ")


@dataclass(frozen=True)
class RayEngine:
    """Spreads reading, encoding and drawing over the workers of Ray.

    ``RAY_ADDRESS`` names the cluster ("auto" for this machine's); without it, one is started that
    ends with the process and is reached from this machine alone.

    Attributes:
        workers: Processes that decode, and as many that encode; or that draw.
        gpus_per_worker: Of each that encodes or draws; may be a fraction.
    """

    workers: int = 2
    gpus_per_worker: float = 0.0

    def __post_init__(self) -> None:
        if self.workers < 1 or self.gpus_per_worker < 0:
            raise ValueError(
                f"expected at least one worker and no negative share of a GPU, got {self.workers} "
                f"and {self.gpus_per_worker}"
            )

    def hash_locations(
        self, locations: Sequence[Location], on_progress: OnProgress | None
    ) -> Iterator[tuple[str, str | None]]:
        """Yield for each location its content id and None, or an empty id and the reason.

        Raises:
            ValueError: If Ray is not installed or cannot work, or a store answers no more.
        """
        items = [
            {"places": list(locations[start : start + ROWS_AT_ONCE])}
            for start in range(0, len(locations), ROWS_AT_ONCE)
        ]
        done = 0
        with _cluster() as ray:
            work = ray.data.from_items(items, override_num_blocks=max(1, len(items))).map_batches(
                _hash,
                batch_size=1,
                num_cpus=1,
                compute=ray.data.TaskPoolStrategy(min(self.workers, max(1, len(items)))),
            )
            for batch in work.iter_batches(batch_size=None, batch_format="numpy"):
                for image_id, problem in zip(batch["id"], batch["problem"], strict=True):
                    yield str(image_id), str(problem) or None
                done += len(batch["id"])
                if on_progress is not None:
                    on_progress(done, len(locations))

    def encode(
        self,
        images: ImageSet,
        backbone: Backbone,
        store: FeatureStore,
        on_progress: OnProgress | None,
        transform: Transform | None = None,
    ) -> int:
        """Put the features that the store lacks there, and return how many these were.

        The transform is sent to the workers, and so must be a function or an object by its name.

        Raises:
            ValueError: If Ray is not installed or cannot work, a worker has another model, or a
                store answers no more.
        """
        first = images.first_rows()
        missing = store.missing(first)
        if not missing:
            return 0
        known, done = len(first) - len(missing), 0
        with _cluster() as ray, _Writer(store) as writer:
            for batch in self._encoded(ray, _items(images, missing), backbone, transform):
                writer.add(batch["id"].tolist(), batch["values"])
                done += len(batch["id"])
                if on_progress is not None:
                    on_progress(known + done, len(first))
        return done

    def _encoded(
        self,
        ray: Any,
        items: list[dict[str, Any]],
        backbone: Backbone,
        transform: Transform | None,
    ) -> Iterator[dict[str, np.ndarray]]:
        n_blocks = -(-len(items) // backbone.batch_size)
        size = self._size(ray, n_blocks)
        pool, cpus = ray.data.ActorPoolStrategy(size=size), cpus_each(_total(ray, "CPU"), 2 * size)
        portable, key = _portable(backbone, self.gpus_per_worker), dict(backbone.image_key)
        decoded = ray.data.from_items(items, override_num_blocks=n_blocks).map_batches(
            _Decoder,
            fn_constructor_args=(portable, transform, Path.cwd()),
            batch_size=backbone.batch_size,
            num_cpus=cpus,
            compute=pool,
        )
        # images that cannot be decoded are gone now, so that whole batches can be cut
        cut = decoded.repartition(target_num_rows_per_block=backbone.batch_size, strict=True)
        encoded = cut.map_batches(
            _Encoder,
            fn_constructor_args=(portable, key, Path.cwd()),
            batch_size=None,
            num_cpus=cpus,
            num_gpus=self.gpus_per_worker,
            compute=pool,
        )
        batches = encoded.iter_batches(batch_size=None, batch_format="numpy")
        yield from (batch for batch in batches if len(batch.get("id", ())))

    def draw(self, generator: TextToImage, pieces: Sequence[Piece]) -> Iterator[Drawn]:
        """Yield for each piece, in their order, what ``generator.drawn`` returns here.

        Raises:
            ValueError: If Ray is not installed or cannot work, a worker has another model, or
                images are not finite.
        """
        if not pieces:
            return
        facts = generator.facts
        fields = {"dtype": facts["dtype"], "device": "cuda" if self.gpus_per_worker else "cpu"}
        items = [{"piece": piece} for piece in pieces]
        with _cluster() as ray:
            size = self._size(ray, len(items))
            work = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
                _Drawer,
                fn_constructor_args=(replace(generator, **fields), facts, Path.cwd()),
                batch_size=1,
                num_cpus=cpus_each(_total(ray, "CPU"), size),
                num_gpus=self.gpus_per_worker,
                compute=ray.data.ActorPoolStrategy(size=size),
            )
            for batch in work.iter_batches(batch_size=None, batch_format="numpy"):
                yield from batch["drawn"]

    def _size(self, ray: Any, n_pieces: int) -> int:
        """Return how many processes to start: no more than have work and a GPU.

        Raises:
            ValueError: If there is no GPU for one.
        """
        size = min(self.workers, n_pieces)
        if not self.gpus_per_worker:
            return size
        there = _total(ray, "GPU")
        if there < self.gpus_per_worker:
            raise ValueError(
                f"Ray: a worker shall have {self.gpus_per_worker:g} GPUs, and the cluster has "
                f"{there:g}; start machines with GPUs first, or leave --gpus-per-worker out"
            )
        return min(size, int(there / self.gpus_per_worker))


def _total(ray: Any, kind: str) -> float:
    return float(ray.cluster_resources().get(kind, 0.0))


def cpus_each(there: float, processes: int) -> float:
    """Return the share of a CPU for each of so many processes that must run at once."""
    # asked for whole ones that are not there, Ray would start the processes that encode, and those
    # that decode for them would wait for ever
    return min(1.0, math.floor(100 * there / processes) / 100) or 1.0


def _items(images: ImageSet, wanted: Sequence[str]) -> list[dict[str, Any]]:
    """Return an id and all the places of its bytes for each image that is wanted."""
    places: dict[str, list[Location]] = {image_id: [] for image_id in wanted}
    for image_id, location in zip(images.ids, images.locations, strict=True):
        if image_id in places:
            places[image_id].append(location)
    return [{"id": image_id, "places": found} for image_id, found in places.items()]


def _portable(backbone: Backbone, gpus: float) -> Any:
    """Return the backbone without its weights, with this machine's dtype and a worker's device."""
    fields: dict[str, Any] = {"dtype": str(dict(backbone.image_key)["dtype"]).split(".")[-1]}
    if gpus:
        fields["device"] = "cuda"
    return replace(backbone, **fields)  # type: ignore[type-var]


def _stand_in(folder: Path) -> None:
    """Let relative paths, of a model or a LoRA, mean what they mean to the process that asked."""
    with suppress(OSError):  # a machine that lacks the folder finds models in its own cache
        os.chdir(folder)


def _hash(batch: dict[str, Any]) -> dict[str, Any]:
    places = [place for block in batch["places"] for place in block]
    ids, problems = zip(*hash_locations(places, None), strict=True)
    return {"id": list(ids), "problem": [problem or "" for problem in problems]}


class _Decoder:
    """Reads, decodes, transforms and preprocesses; leaves out what cannot be decoded."""

    def __init__(self, backbone: Backbone, transform: Transform | None, folder: Path) -> None:
        _stand_in(folder)
        self._backbone, self._transform = backbone, transform
        # gives a batch without images the shape of the others
        self._none = backbone.preprocess(Image.new("RGB", (32, 32))).numpy()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        ids = [str(image_id) for image_id in batch["id"]]
        with ThreadPoolExecutor(LOADERS) as pool:
            found = zip(ids, pool.map(self._one, ids, batch["places"]), strict=True)
            good = [(image_id, pixels) for image_id, pixels in found if pixels is not None]
        return {
            "id": np.array([image_id for image_id, _ in good], dtype=str),
            "pixels": np.stack([self._none, *(pixels for _, pixels in good)])[1:],
        }

    def _one(
        self, image_id: str, places: Sequence[Location]
    ) -> Float32[np.ndarray, "3 h w"] | None:
        for place in places:
            try:
                image = load_as(place, image_id)
            except BadImageError:
                continue
            if self._transform is not None:
                image = self._transform(image_id, image)
            pixels: np.ndarray = self._backbone.preprocess(image).numpy()
            return pixels
        return None


class _Encoder:
    """Encodes a batch, once the worker's model is known to be the run's."""

    def __init__(self, backbone: Backbone, key: Mapping[str, str], folder: Path) -> None:
        _stand_in(folder)
        self._backbone, self._wanted = backbone, dict(key)
        self._made = dict(backbone.image_key)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        if self._made != self._wanted:
            raise ValueError(
                f"a worker would make features of {self._made}, this machine asks for "
                f"{self._wanted}; install the same versions and put the same model everywhere"
            )
        pixels = torch.from_numpy(np.array(batch["pixels"]))
        return {"id": batch["id"], "values": self._backbone.encode_pixels(pixels).numpy()}


class _Drawer:
    """Draws batches, once the worker's model is known to be the run's."""

    def __init__(self, generator: TextToImage, facts: Mapping[str, Any], folder: Path) -> None:
        _stand_in(folder)
        self._generator, self._wanted = generator, dict(facts)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        made = self._generator.facts
        if made != self._wanted:
            raise ValueError(
                f"a worker would make images by {made}, this machine asks for {self._wanted}; put "
                "the same model everywhere"
            )
        found = np.empty(len(batch["piece"]), dtype=object)
        for i, (requests, lacking) in enumerate(batch["piece"]):
            found[i] = self._generator.drawn(requests, lacking)
        return {"drawn": found}


class _Writer:
    """Writes features in large pieces, and at the end whatever that is."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._ids: list[str] = []
        self._values: list[np.ndarray] = []
        self._written = time.monotonic()

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self._write()

    def add(self, ids: list[str], values: Float32[np.ndarray, "n d"]) -> None:
        self._ids += ids
        self._values.append(values)
        late = time.monotonic() - self._written > SECONDS_PER_SHARD
        if late or len(self._ids) >= ROWS_PER_SHARD:
            self._write()

    def _write(self) -> None:
        if self._ids:
            self._store.add(self._ids, torch.from_numpy(np.concatenate(self._values)))
        self._ids, self._values, self._written = [], [], time.monotonic()


def _first_error(text: str) -> str:
    """Return what went wrong first, of the text in which Ray puts a worker's tracebacks."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = (line.partition(": ")[2] for line in lines if _ERROR.match(line))
    return next(errors, lines[-1] if lines else "")


def import_ray() -> Any:
    """Return Ray, told beforehand to keep to itself: it reads its settings when it is imported.

    Raises:
        ValueError: If it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # under `uv run` Ray would send the working folder, photographs and all, to every worker
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    if not os.environ.get("RAY_ADDRESS"):
        # Ray would otherwise listen on this machine's outer address
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import_extra("ray.data", "ray[data]", "ray")
    return import_extra("ray", "ray[data]", "ray")


def _reach(address: str) -> None:
    """Look whether somebody listens: Ray itself would try for many minutes.

    Raises:
        ConnectionError: If nobody does.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    try:
        if port.isdigit():
            socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_ANSWER).close()
    except OSError as error:
        raise ConnectionError(
            f"nobody answers at RAY_ADDRESS={address} ({error.strerror or error})"
        ) from error


@contextmanager
def _cluster() -> Iterator[Any]:
    """Give Ray, connected; what goes wrong with it inside is one line.

    Raises:
        ValueError: If it is not installed, cannot be reached, or its work failed.
    """
    ray, elsewhere = import_ray(), os.environ.get("RAY_ADDRESS")
    try:
        if not ray.is_initialized():
            if elsewhere:
                _reach(elsewhere)
            own = {} if elsewhere else {"_node_ip_address": "127.0.0.1", "include_dashboard": False}
            ray.init(
                None if elsewhere else "local",
                log_to_driver=False,
                logging_level=logging.ERROR,
                **own,
            )
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        yield ray
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise ValueError(f"Ray: {_first_error(str(error)) or repr(error)}") from None
