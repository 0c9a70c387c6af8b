"""What a server takes and how much of it."""

from dataclasses import dataclass, field

from nameonly.serve.batching import Batching
from nameonly.serve.sources import Allowed

MEGA = 1_000_000


@dataclass(frozen=True)
class Options:
    """Limits of a server.

    Attributes:
        batching: Size of batches, waiting, threads, and images under way.
        allowed: What a request may name instead of holding it.
        max_bytes: Of a request's body.
        max_images: Of a request.
        max_pixels: Of an image.
        timeout: Seconds for a request.

    Raises:
        ValueError: If a request of ``max_images`` could never be taken.
    """

    batching: Batching = field(default_factory=Batching)
    allowed: Allowed = field(default_factory=Allowed)
    max_bytes: int = 32 * MEGA
    max_images: int = 64
    max_pixels: int = 50 * MEGA
    timeout: float = 30.0

    def __post_init__(self) -> None:
        if self.batching.capacity < self.max_images:
            raise ValueError(
                f"a request may hold {self.max_images} images, but only {self.batching.capacity} "
                "may be under way; raise --max-queue or lower --max-images"
            )
