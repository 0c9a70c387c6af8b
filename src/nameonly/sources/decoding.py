"""Encoded bytes to upright RGB pixels.

A full decode is the only judge of a file: neither its name nor a look at its header.
"""

import io
import threading
import warnings
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image, UnidentifiedImageError

# Pillow opens MPO (JPEGs of two lenses) through its JPEG reader; naming it here as well would make
# Pillow look up a reader that it never registers. No reader in this list starts another program.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
MAX_PIXELS = 178_956_970
# models resize the shorter side: a line of pixels would become a wall of them
MAX_ASPECT = 250

_ORIENTATION_TAG = 0x0112
_BITS_PER_SAMPLE_TAG = 258
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BadImageError(ValueError):
    """An image that cannot be used; the message is the reason, fit for one row of a table."""


class _WhileDecoding(threading.local):
    """Whether this thread is decoding, and a warning filter's message pattern that says so.

    Pillow warns of large images and odd metadata. ``warnings.catch_warnings`` swaps a list that
    all threads share, so it cannot be used around a decode in a thread pool. A filter whose
    pattern matches in a decoding thread only can stay in that list for good.
    """

    active = False
    # scikit-learn gives its workers every filter anew, by this text, which matches nothing
    pattern = "(?!)"

    def match(self, message: str) -> bool:
        """Return whether a warning with this message is raised inside ``decode``."""
        return self.active

    def __reduce__(self) -> tuple[type["_WhileDecoding"], tuple[()]]:
        # Process pools of other libraries send the list of warning filters to their workers.
        return _WhileDecoding, ()


_while_decoding = _WhileDecoding()
_SILENT_WHILE_DECODING: Any = ("ignore", _while_decoding, Warning, None, 0)


def decode(data: bytes) -> Image.Image:
    """Decode one image to RGB, upright.

    Transparency is composed over white. Animations give their first frame. 16-bit grey is divided
    by 257, so that 65535 becomes 255. Float pixels are taken as 0 to 1, or else as 0 to 255.

    Args:
        data: The encoded bytes of a JPEG, PNG, WebP, BMP, GIF or TIFF.

    Returns:
        An image of mode RGB that carries no metadata.

    Raises:
        BadImageError: If the bytes are no image, are broken or cut short, hold more than
            ``MAX_PIXELS`` pixels, are too long and narrow, or have pixels of an unknown range.
    """
    filters: Any = warnings.filters
    if not filters or filters[0] is not _SILENT_WHILE_DECODING:
        filters.insert(0, _SILENT_WHILE_DECODING)
    _while_decoding.active = True
    try:
        return _decode(data)
    except BadImageError:
        raise
    except UnidentifiedImageError as error:
        raise BadImageError(
            "not an image (JPEG, PNG, WebP, BMP, GIF, TIFF), or its header is broken; "
            f"it begins with {data[:12]!r}"
        ) from error
    except Image.DecompressionBombError as error:
        raise BadImageError(f"too large: {error}") from error
    except Exception as error:
        # Damaged bytes make Pillow's readers raise nearly any kind: OSError, SyntaxError,
        # ValueError, KeyError, struct.error, MemoryError and more.
        text = " ".join(str(error).split())
        raise BadImageError(f"broken image: {text or type(error).__name__}") from error
    finally:
        _while_decoding.active = False


def _decode(data: bytes) -> Image.Image:
    if not data:
        raise BadImageError("zero bytes")
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        # Pillow has this limit too, but programs commonly switch Pillow's off.
        if image.width * image.height > MAX_PIXELS:
            raise BadImageError(
                f"too large: {image.width} x {image.height} pixels, at most {MAX_PIXELS} are read"
            )
        if max(image.size) > MAX_ASPECT * min(image.size):
            raise BadImageError(
                f"too long and narrow: {image.width} x {image.height} pixels, at most {MAX_ASPECT} "
                "to 1 are read"
            )
        image.load()
        return upright_rgb(image)


def upright_rgb(image: Image.Image) -> Image.Image:
    """Return an opened image as files are read: turned by its EXIF, transparency over white.

    Raises:
        BadImageError: If its colours cannot be read.
    """
    upright = _UPRIGHT.get(_orientation(image))
    rgb = _to_rgb(image)
    rgb = rgb if upright is None else rgb.transpose(upright)
    # Metadata that stays would make other code turn the image a second time.
    rgb.info = {}
    return rgb


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; 1 where the metadata is broken, which harms no pixel."""
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        grey = _float_to_8_bit(image) if image.mode == "F" else _wide_to_8_bit(image)
        return Image.fromarray(grey).convert("RGB")
    if image.mode == "LAB":
        raise BadImageError("colour space LAB is not read; convert the file to RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    rgb = Image.new("RGB", rgba.size, "white")
    rgb.paste(rgba, mask=rgba.getchannel("A"))
    return rgb


def _wide_to_8_bit(image: Image.Image) -> UInt8[np.ndarray, "height width"]:
    """Scale 16-bit grey to 8 bits by the range of the format, never by that of the image."""
    pixels = np.asarray(image)
    bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE_TAG)
    white = 4095 if bits == (12,) else 65535
    _require_range(pixels, 65535)
    grey = ((pixels.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)
    if isinstance(transparent := image.info.get("transparency"), int):
        grey[pixels == transparent] = 255
    return grey


def _float_to_8_bit(image: Image.Image) -> UInt8[np.ndarray, "height width"]:
    pixels = np.asarray(image)
    _require_range(pixels, 255)
    grey: UInt8[np.ndarray, "height width"] = np.rint(
        pixels * (255 if pixels.max() <= 1 else 1)
    ).astype(np.uint8)
    return grey


def _require_range(pixels: Shaped[np.ndarray, "height width"], white: int) -> None:
    least, most = pixels.min(), pixels.max()
    if not (least >= 0 and most <= white):
        raise BadImageError(
            f"pixels from {least:g} to {most:g}; expected a grey range from 0 to {white}"
        )
