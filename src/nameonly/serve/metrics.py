"""Figures of a running server, as Prometheus reads them."""

from collections.abc import Callable, Sequence
from typing import Any

from nameonly.extras import import_extra

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)


class Metrics:
    """Counts in a registry of its own, so that two servers in one program do not mix.

    Args:
        under_way: Gives the number of images that are taken and not answered.
        ready: Whether requests are answered.
        version: Of nameonly.
    """

    def __init__(
        self, under_way: Callable[[], float], ready: Callable[[], bool], version: str
    ) -> None:
        client = import_extra("prometheus_client", "prometheus-client", "serve")
        self._client = client
        self.registry = registry = client.CollectorRegistry()

        def histogram(name: str, text: str, buckets: Sequence[float] = SECONDS) -> Any:
            return client.Histogram(f"nameonly_{name}", text, buckets=buckets, registry=registry)

        def counter(name: str, text: str, labels: Sequence[str] = ()) -> Any:
            return client.Counter(f"nameonly_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, value: Callable[[], float]) -> None:
            client.Gauge(f"nameonly_{name}", text, registry=registry).set_function(value)

        self.requests = counter("requests", "Requests to /predict by status.", ["status"])
        self.images = counter(
            "images", "Images: labelled, abstained, refused or failed by the model.", ["result"]
        )
        self.failures = counter("model_failures", "Batches on which the model raised an error.")
        self.batch = histogram("batch_images", "Images of a batch.", SIZES)
        self.decode_time = histogram("decode_seconds", "Decoding and preprocessing of an image.")
        self.wait_time = histogram("wait_seconds", "From decoded to the start of its batch.")
        self.model_time = histogram("model_seconds", "The model on a batch.")
        self.request_time = histogram("request_seconds", "A request to /predict.")
        gauge("queue_images", "Images that are taken and not answered yet.", under_way)
        gauge("ready", "1 where requests are answered.", lambda: float(ready()))
        client.Info("nameonly", "What serves.", registry=registry).info({"version": version})
        client.ProcessCollector(registry=registry)

    def read(self, seconds: float) -> None:
        """An image was decoded and preprocessed, or refused."""
        self.decode_time.observe(seconds)

    def ran(self, waits: Sequence[float], seconds: float) -> None:
        """A batch was scored, whose images had waited."""
        self.batch.observe(len(waits))
        self.model_time.observe(seconds)
        for wait in waits:
            self.wait_time.observe(wait)

    def model_failed(self) -> None:
        """The model raised an error."""
        self.failures.inc()

    def answered(self, status: int, seconds: float) -> None:
        """A request to /predict has its answer."""
        self.requests.labels(str(status)).inc()
        self.request_time.observe(seconds)

    def page(self) -> tuple[bytes, str]:
        """Return the figures and their content type."""
        text: bytes = self._client.generate_latest(self.registry)
        kind: str = self._client.CONTENT_TYPE_LATEST
        return text, kind
