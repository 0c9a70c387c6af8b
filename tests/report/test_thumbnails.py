import base64
import io

import numpy as np
import pytest
from PIL import Image, ImageDraw
from sklearn.datasets import load_sample_image

from nameonly.report.thumbnails import MAX_BYTES, THUMBNAIL_SIDE, make_thumbnail


def _decoded(uri: str) -> Image.Image:
    head, _, body = uri.partition(",")
    assert head == "data:image/webp;base64"
    data = base64.b64decode(body, validate=True)
    assert len(data) <= MAX_BYTES
    return Image.open(io.BytesIO(data)).convert("RGB")


def _disc(mode: str, size: tuple[int, int]) -> Image.Image:
    image = Image.new("RGBA", size, (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((4, 4, size[0] - 4, size[1] - 4), fill=(200, 30, 30, 255))
    return image.convert(mode)


def test_a_photo_becomes_small_and_still_looks_the_same():
    photo = Image.fromarray(load_sample_image("china.jpg"))
    thumbnail = make_thumbnail(lambda row: photo, 0)
    assert not thumbnail.pixelated
    small = _decoded(thumbnail.uri)
    assert max(small.size) == THUMBNAIL_SIDE
    expected = np.asarray(photo.resize(small.size, Image.Resampling.BICUBIC), dtype=float)
    assert np.abs(np.asarray(small, dtype=float) - expected).mean() < 12


def test_the_image_handed_over_stays_as_it_was():
    photo = Image.fromarray(load_sample_image("flower.jpg"))
    before = photo.copy()
    make_thumbnail(lambda row: photo, 0)
    assert photo.size == before.size
    assert photo.tobytes() == before.tobytes()


def test_a_small_drawing_is_kept_pixel_by_pixel():
    drawing = _disc("RGB", (32, 24))
    thumbnail = make_thumbnail(lambda row: drawing, 0)
    assert thumbnail.pixelated
    np.testing.assert_array_equal(np.asarray(_decoded(thumbnail.uri)), np.asarray(drawing))


def test_transparency_is_laid_on_white():
    thumbnail = make_thumbnail(lambda row: _disc("RGBA", (40, 40)), 0)
    assert _decoded(thumbnail.uri).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("size", [(64, 64), (500, 400), (96, 96)])
def test_noise_stays_within_the_limit(size):
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    _decoded(make_thumbnail(lambda row: Image.fromarray(noise), 0).uri)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (65, 2)])
def test_odd_sizes_have_at_least_one_pixel(size):
    image = Image.new("RGB", size, "green")
    assert min(_decoded(make_thumbnail(lambda row: image, 0).uri).size) >= 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "F"])
def test_every_mode_of_pillow_works(mode):
    source = _disc("RGBA", (80, 80)) if mode == "RGBA" else _disc("RGB", (80, 80))
    assert make_thumbnail(lambda row: source.convert(mode), 0) is not None


@pytest.mark.parametrize("error", [ValueError("gone"), FileNotFoundError("gone")])
def test_an_image_that_cannot_be_opened_gives_none(error):
    def refuse(row: int) -> Image.Image:
        raise error

    assert make_thumbnail(refuse, 0) is None


def test_a_file_cut_short_gives_none():
    buffer = io.BytesIO()
    Image.fromarray(load_sample_image("china.jpg")).save(buffer, "JPEG")
    cut = io.BytesIO(buffer.getvalue()[:4000])
    assert make_thumbnail(lambda row: Image.open(cut), 0) is None


def test_the_asked_row_is_opened():
    opened = []

    def open_image(row: int) -> Image.Image:
        opened.append(row)
        return _disc("RGB", (20, 20))

    make_thumbnail(open_image, 7)
    assert opened == [7]
