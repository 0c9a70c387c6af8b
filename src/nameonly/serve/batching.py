"""Images of many requests, gathered into batches for the one thread that runs the model.

Plain threads, with no word of HTTP or of torch. A request is a list of sources; each is fetched
(where it lies elsewhere) and read in a thread of a pool, then waits in a queue for the model.
"""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any, Protocol, runtime_checkable

FETCHERS = 8
SECONDS_BETWEEN_PROBES = 5.0
Source = bytes | Callable[[], bytes]
logger = logging.getLogger("nameonly.serve")


class Full(Exception):  # noqa: N818  a state, no error of anyone
    """As many images are under way as may be."""


class Stopped(Exception):  # noqa: N818
    """No new images are taken."""


@dataclass(frozen=True)
class Failure:
    """Stands in the place of an image's result.

    Attributes:
        reason: For the one who sent the image.
        of_model: Whether the model is at fault, not the image.
    """

    reason: str
    of_model: bool = False


@runtime_checkable
class Observer(Protocol):
    """Is told what happens; called from several threads."""

    def read(self, seconds: float) -> None:
        """An image was decoded and preprocessed, or refused."""

    def ran(self, waits: Sequence[float], seconds: float) -> None:
        """A batch was scored, whose images had waited."""

    def model_failed(self) -> None:
        """The model raised an error."""


@runtime_checkable
class Model(Protocol):
    """What is served."""

    def read(self, data: bytes) -> Any:
        """Turn encoded bytes into what ``score`` takes; ``ValueError`` where they are no use."""

    def score(self, inputs: Sequence[Any]) -> Sequence[Any]:
        """Return a result for every input."""

    def probe(self) -> None:
        """Raise an error where the model does not work, whatever the input."""


@dataclass(frozen=True)
class Batching:
    """How batches are made.

    Attributes:
        batch_size: Most images at once.
        max_wait: Seconds that the first image of a batch waits for others.
        capacity: Most images under way: being read, waiting, with the model.
        threads: That decode and preprocess.
    """

    batch_size: int = 32
    max_wait: float = 0.005
    capacity: int = 256
    threads: int = 2


@dataclass(eq=False)
class _Request:
    """The images that are answered together."""

    results: list[Any]
    left: int
    answer: "Future[list[Any]]" = field(default_factory=Future)


@dataclass(eq=False)
class _Image:
    """One image of a request, and its row of the results."""

    request: _Request
    row: int
    read: Any = None
    since: float = 0.0
    finished: bool = False

    @property
    def wanted(self) -> bool:
        return not self.request.answer.cancelled()


class Batcher:
    """Takes images of many requests to a model, a batch at a time.

    Attributes:
        model: What is served.
        settings: How batches are made.
        broken: Whether the model failed on an input that it is known to take.
    """

    def __init__(self, model: Model, settings: Batching, observer: Observer) -> None:
        self.model = model
        self.settings = settings
        self.broken = False
        self._observer = observer
        self._queue: SimpleQueue[_Image | None] = SimpleQueue()
        self._lock = Lock()
        self._under_way = 0
        self._stopped = False
        self._readers = ThreadPoolExecutor(settings.threads, "nameonly-read")
        self._fetchers = ThreadPoolExecutor(FETCHERS, "nameonly-fetch")
        # a model that never returns must not keep the program from ending
        self._worker = Thread(target=self._work, name="nameonly-model", daemon=True)
        self._worker.start()

    @property
    def under_way(self) -> int:
        """Images that were taken and are not answered yet."""
        return self._under_way

    @property
    def running(self) -> bool:
        """Whether images are taken and the model's thread is there."""
        return not self._stopped and self._worker.is_alive()

    def submit(self, sources: Sequence[Source]) -> "Future[list[Any]]":
        """Take a request's images.

        Args:
            sources: Encoded images, or functions that fetch them and raise ``ValueError`` or
                ``OSError`` where they cannot.

        Returns:
            The results in the same order: the model's, or a ``Failure``. An answer that is
            cancelled is worked on no further.

        Raises:
            Full: If the images are more than there is room for now.
            Stopped: After ``stop``.
        """
        with self._lock:
            if self._stopped:
                raise Stopped
            if self._under_way + len(sources) > self.settings.capacity:
                raise Full
            self._under_way += len(sources)
        request = _Request([None] * len(sources), len(sources))
        for row, source in enumerate(sources):
            image = _Image(request, row)
            if isinstance(source, bytes):
                self._readers.submit(self._guarded, image, partial(self._read, image, source))
            else:
                self._fetchers.submit(self._guarded, image, partial(self._fetch, image, source))
        return request.answer

    def stop(self, seconds: float = 5.0) -> None:
        """Take no more images, answer those under way, and end the threads.

        Args:
            seconds: How long the model's thread is waited for.
        """
        with self._lock:
            self._stopped = True
        self._fetchers.shutdown(wait=False)
        ends = time.monotonic() + seconds
        while self._under_way and self._worker.is_alive() and time.monotonic() < ends:
            time.sleep(0.01)
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._queue.put(None)
        self._worker.join(max(0.0, ends - time.monotonic()))

    def _guarded(self, image: _Image, work: Callable[[], None]) -> None:
        """Do a step of an image that answers it, whatever happens."""
        if not image.wanted:
            self._finish(image, None)
            return
        try:
            work()
        except (ValueError, OSError) as error:
            self._finish(image, Failure(str(error)))
        except Exception as error:
            logger.exception("an image could not be read")
            self._finish(image, Failure(f"could not be read: {type(error).__name__}"))

    def _fetch(self, image: _Image, source: Callable[[], bytes]) -> None:
        data = source()
        self._readers.submit(self._guarded, image, partial(self._read, image, data))

    def _read(self, image: _Image, data: bytes) -> None:
        begun = time.perf_counter()
        try:
            image.read = self.model.read(data)
        finally:
            image.since = time.perf_counter()
            self._observer.read(image.since - begun)
        self._queue.put(image)

    def _finish(self, image: _Image, result: Any) -> None:
        request = image.request
        with self._lock:
            if image.finished:
                return
            image.finished = True
            self._under_way -= 1
            request.results[image.row] = result
            request.left -= 1
            last = request.left == 0
        if last:
            with suppress(InvalidStateError):  # cancelled: its time was over
                request.answer.set_result(request.results)

    def _work(self) -> None:
        while True:
            images = self._gather()
            if images is None:
                return
            try:
                self._score(images)
            except Exception:  # of our own making: whatever it is, the next batch must run
                logger.exception("a batch could not be worked on")
                for image in images:
                    self._finish(image, Failure("the model gave no result", True))

    def _gather(self) -> list[_Image] | None:
        """Return the next images for the model, None when there will be no more."""
        first = self._first()
        if first is None:
            return None
        images = [first]
        until = first.since + self.settings.max_wait
        while len(images) < self.settings.batch_size:
            wait = until - time.perf_counter()
            try:
                image = self._queue.get(timeout=wait) if wait > 0 else self._queue.get_nowait()
            except Empty:
                break
            if image is None:
                self._queue.put(None)
                break
            images.append(image)
        return images

    def _first(self) -> _Image | None:
        """Wait for an image; meanwhile see whether a broken model works again."""
        while True:
            try:
                return self._queue.get(timeout=SECONDS_BETWEEN_PROBES if self.broken else None)
            except Empty:
                self._is_sound()

    def _score(self, images: list[_Image]) -> None:
        """Run the model on images; where it fails, find out whose fault that is.

        A batch that fails is halved until the images that cannot be scored stand alone, which also
        helps where the whole batch does not fit the memory. A model that fails on an image that it
        took before is broken, and no image is at fault.
        """
        wanted = [image for image in images if image.wanted]
        for image in images:
            if not image.wanted:
                self._finish(image, None)
        if not wanted:
            return
        begun = time.perf_counter()
        try:
            results = self.model.score([image.read for image in wanted])
        except Exception as error:
            self._failed(wanted, error)
            return
        ended = time.perf_counter()
        self.broken = False
        self._observer.ran([begun - image.since for image in wanted], ended - begun)
        for image, result in zip(wanted, results, strict=True):
            self._finish(image, result)

    def _failed(self, images: list[_Image], error: Exception) -> None:
        self._observer.model_failed()
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        logger.warning("the model failed on %d images: %s", len(images), reason)
        if not self._is_sound():
            for image in images:
                self._finish(image, Failure("the model does not work at present", True))
        elif len(images) == 1:
            self._finish(images[0], Failure(f"the model cannot score this image: {reason}"))
        else:
            middle = len(images) // 2
            self._score(images[:middle])
            self._score(images[middle:])

    def _is_sound(self) -> bool:
        try:
            self.model.probe()
        except Exception as error:
            if not self.broken:
                logger.error("the model does not work: %s", error)
            self.broken = True
        else:
            self.broken = False
        return not self.broken
