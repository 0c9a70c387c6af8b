"""Characters as distance fields: to the outline and to the centre line of their strokes."""

from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage  # type: ignore[import-untyped]

from nameonly.extras import import_extra

CANVAS = 64
FONT_SIZE = 48


@cache
def distance_fields(
    font: str, character: str
) -> tuple[Float32[np.ndarray, "64 64"], Float32[np.ndarray, "64 64"], float]:
    """Return signed distance to the outline, distance to the centre line, and the larger extent.

    Distances are in canvas pixels, negative inside. The extent is never below a zero's height, so
    that a small letter stays small.

    Raises:
        ValueError: If matplotlib, which ships the fonts, is not installed.
    """
    fine, _ = _mask(font, character, 2)
    signed = ndimage.distance_transform_edt(~fine) - ndimage.distance_transform_edt(fine)
    outline = (signed / 2).reshape(CANVAS, 2, CANVAS, 2).mean(axis=(1, 3))
    mask, extent = _mask(font, character, 1)
    centre = ndimage.distance_transform_edt(~thin_to_lines(mask))
    _, height = _mask(font, "0", 1)
    return outline.astype(np.float32), centre.astype(np.float32), max(extent, height)


def _mask(font: str, character: str, scale: int) -> tuple[Bool[np.ndarray, "h w"], float]:
    """Return where the centred glyph is, and the larger side of its box."""
    shipped = import_extra("matplotlib", "matplotlib", "tiny").get_data_path()
    path = Path(shipped) / "fonts" / "ttf" / f"{font}.ttf"
    face = ImageFont.truetype(str(path), FONT_SIZE * scale)
    left, top, right, bottom = face.getbbox(character)
    side = CANVAS * scale
    picture = Image.new("L", (side, side))
    corner = ((side - left - right) / 2, (side - top - bottom) / 2)
    ImageDraw.Draw(picture).text(corner, character, fill=255, font=face)
    return np.asarray(picture) > 127, float(max(right - left, bottom - top))


def thin_to_lines(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Return the one-pixel centre lines of a shape.

    Source: Zhang and Suen, A fast parallel algorithm for thinning digital patterns, 1984.
    """
    mask = np.pad(mask, 1)
    changed = True
    while changed:
        changed = False
        for second in (False, True):
            # The eight neighbours, clockwise from the one above.
            steps = ((1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1))
            p = np.stack([np.roll(mask, step, (0, 1)) for step in steps])
            count = p.sum(axis=0)
            rises = (~p & np.roll(p, -1, axis=0)).sum(axis=0)
            up, right, down, left = p[0], p[2], p[4], p[6]
            if second:
                open_side = ~(up & right & left) & ~(up & down & left)
            else:
                open_side = ~(up & right & down) & ~(right & down & left)
            drop = mask & (count >= 2) & (count <= 6) & (rises == 1) & open_side
            mask = mask & ~drop
            changed = changed or bool(drop.any())
    return mask[1:-1, 1:-1]
