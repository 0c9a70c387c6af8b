"""Where images are read, encoded and drawn when one machine is not enough."""

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from nameonly.backbones import Backbone
from nameonly.images import Transform
from nameonly.journal import OnProgress
from nameonly.store import FeatureStore
from nameonly.synthesis._drawing import Drawn, Piece
from nameonly.synthesis.text_to_image import TextToImage
from nameonly.types import ImageSet, Location


@runtime_checkable
class Engine(Protocol):
    """Reads, encodes and draws elsewhere what the run on this machine then finds done."""

    def hash_locations(
        self, locations: Sequence[Location], on_progress: OnProgress | None
    ) -> Iterator[tuple[str, str | None]]:
        """Yield for each location its content id and None, or an empty id and the reason.

        Raises:
            ValueError: If the engine cannot work.
        """
        ...

    def encode(
        self,
        images: ImageSet,
        backbone: Backbone,
        store: FeatureStore,
        on_progress: OnProgress | None,
        transform: Transform | None = None,
    ) -> int:
        """Put the features that the store lacks there, and return how many these were.

        Images that cannot be decoded are left to the run. Where a transform is given, what it makes
        of the images is encoded.

        Raises:
            ValueError: If the engine cannot work.
        """
        ...

    def draw(self, generator: TextToImage, pieces: Sequence[Piece]) -> Iterator[Drawn]:
        """Yield for each piece, in their order, what ``generator.drawn`` returns here.

        Raises:
            ValueError: If the engine cannot work.
        """
        ...
