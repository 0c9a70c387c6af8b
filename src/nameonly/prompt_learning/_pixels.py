"""The selected images as pixels, for what is trained through the image tower."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from nameonly.backbones import Backbone
from nameonly.images import BadImageError, load
from nameonly.types import Features, ImageSet, PseudoLabels

LOADERS = 4
LEVELS = 256


def training_set(
    inputs: Features | ImageSet, pseudo_labels: PseudoLabels, targets: Literal["soft", "candidates"]
) -> tuple[ImageSet, Float[Tensor, "m c"], Float[Tensor, " m"] | None]:
    """Return the selected images, in order of id, what they are to be, and their weights.

    An id is a hash of the image's bytes: neither file names nor the order of rows change the order.

    Raises:
        ValueError: If the inputs are features, the pseudo-labels belong to other images, or no
            image is selected.
    """
    if not isinstance(inputs, ImageSet):
        raise ValueError(
            "tokens in the image tower train on the images themselves, not on their features; "
            "pass the ImageSet"
        )
    pseudo_labels.check_fits(inputs)
    selected = pseudo_labels.selected.tolist()
    rows = [i for i in sorted(range(len(inputs)), key=inputs.ids.__getitem__) if selected[i]]
    labels = pseudo_labels.subset(torch.tensor(rows))
    wanted = labels.targets if targets == "soft" else labels.candidates.float()
    return inputs.subset(rows), wanted, labels.weights


@dataclass(frozen=True)
class Packed:
    """One image's pixels in a quarter of their size, without loss.

    A processor makes at most 256 values a channel out of an 8-bit image: a byte tells which.
    """

    codes: UInt8[Tensor, "3 h w"]
    values: Float[Tensor, "3 256"]

    def unpack(self) -> Float[Tensor, "3 h w"]:
        """Return the pixels."""
        rows = self.values.gather(1, self.codes.flatten(1).long())
        return rows.reshape(self.codes.shape)

    @property
    def nbytes(self) -> int:
        """Size in memory."""
        return self.codes.nbytes + self.values.nbytes


def pack(pixels: Float[Tensor, "3 h w"]) -> Packed | Float[Tensor, "3 h w"]:
    """Return the packed pixels, or the pixels themselves where a channel has too many values."""
    codes = torch.empty(pixels.shape, dtype=torch.uint8)
    values = torch.zeros(len(pixels), LEVELS)
    for channel, plane in enumerate(pixels):
        found, places = plane.unique(return_inverse=True)
        if len(found) > LEVELS:
            return pixels
        codes[channel], values[channel, : len(found)] = places, found
    return Packed(codes, values)


@dataclass
class PixelCache:
    """Images preprocessed at first use and kept while they fit; the others are decoded anew.

    Attributes:
        images: What is read.
        backbone: Preprocesses it.
        budget: Bytes that may be kept: 14,000 images of 224 x 224.
    """

    images: ImageSet
    backbone: Backbone
    budget: int = 2 * 2**30
    _kept: dict[int, Packed | Tensor] = field(default_factory=dict, init=False, repr=False)

    def read(self, rows: Int[Tensor, " b"]) -> Float[Tensor, "b 3 h w"]:
        """Return the preprocessed images of some rows.

        Raises:
            BadImageError: If an image can no longer be read; it names the image.
        """
        wanted: list[int] = rows.tolist()
        found = self._decode(sorted(set(wanted) - self._kept.keys()))
        for row, pixels in found.items():
            packed = pack(pixels)
            if packed.nbytes <= self.budget:
                self.budget -= packed.nbytes
                self._kept[row] = packed
        return torch.stack([found[r] if r in found else self._unpacked(r) for r in wanted])

    def _unpacked(self, row: int) -> Float[Tensor, "3 h w"]:
        kept = self._kept[row]
        return kept.unpack() if isinstance(kept, Packed) else kept

    def _decode(self, rows: Sequence[int]) -> dict[int, Float[Tensor, "3 h w"]]:
        def one(row: int) -> Float[Tensor, "3 h w"]:
            try:
                return self.backbone.preprocess(load(self.images, row))
            except BadImageError as error:
                raise BadImageError(f"{self.images.sources[row]}: {error}") from error

        if not rows:
            return {}
        with ThreadPoolExecutor(LOADERS) as pool:
            return dict(zip(rows, pool.map(one, rows), strict=True))
