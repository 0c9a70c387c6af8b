"""Stage: images that nobody took, made from class names.

A method is one file with one dataclass. ``prompt_tricks`` writes requests, ``text_to_image`` and
``image_variation`` make images of them in a folder, ``domain_lora`` adapts the model that makes
them, ``filter`` says which of them to keep. All but the first two and the last need the extra
``synth``.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from nameonly.synthetic import ImageRequest, SyntheticImages


@runtime_checkable
class ImageGenerator(Protocol):
    """Makes images of requests."""

    def generate(
        self,
        requests: Sequence[ImageRequest],
        folder: Path,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> SyntheticImages:
        """Make every image that the folder lacks, then its table; the same call resumes."""
        ...
