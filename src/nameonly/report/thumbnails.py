"""Images small enough to live inside the page, as data URIs."""

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

THUMBNAIL_SIDE = 96
# Images up to this side are kept pixel by pixel and enlarged by the browser.
PIXELATED_SIDE = 64
MAX_BYTES = 4500
_QUALITIES = (75, 55, 35, 15, 0)


@dataclass(frozen=True)
class Thumbnail:
    """One image inside the page.

    Attributes:
        uri: Its bytes as a ``data:`` address.
        pixelated: True for small images, which the browser enlarges without smoothing.
    """

    uri: str
    pixelated: bool


def make_thumbnail(open_image: Callable[[int], Image.Image], row: int) -> Thumbnail | None:
    """Open one image and make its thumbnail; None when it can no longer be opened or converted.

    Args:
        open_image: Opens the image of a row; may raise ``ValueError`` or ``OSError``.
        row: Which image.
    """
    try:
        image = _on_white(open_image(row))
    except (ValueError, OSError):
        return None
    pixelated = max(image.size) <= PIXELATED_SIDE
    if not pixelated:
        image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    encoded = base64.b64encode(_encode(image, lossless=pixelated)).decode("ascii")
    return Thumbnail(f"data:image/webp;base64,{encoded}", pixelated)


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    paper = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(paper, layer).convert("RGB")


def _encode(image: Image.Image, *, lossless: bool) -> bytes:
    if lossless:
        data = _webp(image, lossless=True, quality=100)
        if len(data) <= MAX_BYTES:
            return data
    for quality in _QUALITIES:
        data = _webp(image, lossless=False, quality=quality)
        if len(data) <= MAX_BYTES:
            break
    return data


def _webp(image: Image.Image, *, lossless: bool, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=lossless, quality=quality, method=4)
    return buffer.getvalue()
