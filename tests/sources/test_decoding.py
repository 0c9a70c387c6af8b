"""Every kind of pixel to upright RGB, and every broken kind to one error."""

import io
import pickle
import struct
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from awkward import bad_files, encode, good_files, noise, plain, png_header, turned
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, UnidentifiedImageError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from nameonly.sources.decoding import BadImageError, decode


def colours(image: Image.Image) -> set[tuple[int, ...]]:
    return set(map(tuple, np.asarray(image).reshape(-1, 3).tolist()))


def tiff(tags: dict[int, tuple[int, int]], pixels: bytes) -> bytes:
    """A little-endian TIFF of one strip; tags are number to (type, value)."""
    tags = tags | {273: (4, 8), 279: (4, len(pixels))}
    entries = b"".join(
        struct.pack("<HHI", tag, kind, 1) + struct.pack("<I" if kind == 4 else "<Hxx", value)
        for tag, (kind, value) in sorted(tags.items())
    )
    where = 8 + len(pixels)
    ifd = struct.pack("<H", len(tags)) + entries + bytes(4)
    return struct.pack("<2sHI", b"II", 42, where) + pixels + ifd


def grey_tiff(bits: int, pixels: bytes, width: int, **more: int) -> bytes:
    named = {256: (3, width), 257: (3, 1), 258: (3, bits), 259: (3, 1), 262: (3, 1), 277: (3, 1)}
    return tiff(named | {int(tag[1:]): (3, value) for tag, value in more.items()}, pixels)


@pytest.mark.parametrize(
    ("image", "kind", "expected"),
    [
        (plain("RGB", (10, 200, 30)), "PNG", (10, 200, 30)),
        (plain("RGB", (10, 200, 30)), "BMP", (10, 200, 30)),
        (plain("RGB", (10, 200, 30)), "TIFF", (10, 200, 30)),
        (plain("L", 77), "PNG", (77, 77, 77)),
        (plain("1", 1), "PNG", (255, 255, 255)),
        (plain("1", 0), "BMP", (0, 0, 0)),
        (plain("RGB", (10, 200, 30)).quantize(2), "PNG", (10, 200, 30)),
        (plain("RGB", (10, 200, 30)).quantize(2), "GIF", (10, 200, 30)),
        (plain("RGBA", (255, 0, 0, 0)), "PNG", (255, 255, 255)),
        (plain("RGBA", (255, 0, 0, 255)), "PNG", (255, 0, 0)),
        (plain("RGBA", (255, 0, 0, 51)), "PNG", (255, 204, 204)),
        (plain("RGBA", (255, 0, 0, 51)), "TIFF", (255, 204, 204)),
        (plain("LA", (0, 51)), "PNG", (204, 204, 204)),
        (plain("LA", (0, 51)), "TIFF", (204, 204, 204)),
        (plain("CMYK", (0, 255, 255, 0)), "TIFF", (255, 0, 0)),
        (plain("I;16", 65535), "PNG", (255, 255, 255)),
        (plain("I;16", 0), "PNG", (0, 0, 0)),
        (plain("I;16", 257 * 100), "PNG", (100, 100, 100)),
        (plain("I;16", 257 * 100), "TIFF", (100, 100, 100)),
        (plain("I;16B", 257 * 100), "TIFF", (100, 100, 100)),
        (plain("I", 257 * 100), "TIFF", (100, 100, 100)),
        (plain("F", 0.4), "TIFF", (102, 102, 102)),
        (plain("F", 102.0), "TIFF", (102, 102, 102)),
    ],
)
def test_colour(image, kind, expected):
    decoded = decode(encode(image, kind))
    assert decoded.mode == "RGB"
    assert decoded.size == image.size
    assert colours(decoded) == {expected}


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "I;16"])
def test_transparent_key_becomes_white(mode):
    image = Image.new(mode, (2, 1), 0)
    image.putpixel((1, 0), (3, 3, 3) if mode == "RGB" else 3)
    if mode == "P":
        image.putpalette([0, 0, 0, 9, 9, 9, 9, 9, 9, 3, 3, 3])
    key = (0, 0, 0) if mode == "RGB" else 0
    decoded = decode(encode(image, "PNG", transparency=key))
    assert decoded.getpixel((0, 0)) == (255, 255, 255)
    assert decoded.getpixel((1, 0)) == ((0, 0, 0) if mode == "I;16" else (3, 3, 3))


def test_palette_with_an_alpha_per_entry():
    image = Image.new("P", (3, 1))
    image.putdata([0, 1, 2])
    image.putpalette([255, 0, 0] * 3)
    decoded = decode(encode(image, "PNG", transparency=bytes([0, 51, 255])))
    expected = [(255, 255, 255), (255, 204, 204), (255, 0, 0)]
    assert [decoded.getpixel((x, 0)) for x in range(3)] == expected


def test_wide_grey_keeps_its_steps():
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    decoded = np.asarray(decode(encode(Image.fromarray(ramp), "PNG")))
    assert (decoded == np.rint(ramp / 257)[..., None]).all()
    assert (np.bincount(decoded[..., 0].ravel()) > 100).all()


def test_twelve_bit_grey_reaches_white():
    decoded = decode(grey_tiff(12, bytes([0xFF, 0xF0, 0x00]), width=2))
    assert [decoded.getpixel((x, 0)) for x in range(2)] == [(255,) * 3, (0,) * 3]


def test_premultiplied_grey_alpha():
    named = {256: (3, 1), 257: (3, 1), 259: (3, 1), 262: (3, 1), 277: (3, 2), 338: (3, 1)}
    two_bytes = (4, 8 | 8 << 16)  # BitsPerSample 8, 8 in one tag
    data = bytearray(tiff(named | {258: two_bytes}, bytes([51, 51])))
    where = data.index(struct.pack("<HHI", 258, 4, 1))
    data[where : where + 8] = struct.pack("<HHI", 258, 3, 2)
    try:
        Image.open(io.BytesIO(data)).close()
    except UnidentifiedImageError:
        pytest.skip("this Pillow does not read premultiplied grey")
    assert colours(decode(bytes(data))) == {(255, 255, 255)}


def test_cmyk_jpeg_of_adobe_is_not_inverted():
    red = encode(plain("CMYK", (0, 255, 255, 0), (16, 16)), "JPEG", quality=95, subsampling=0)
    assert b"Adobe" in red
    pixel = decode(red).getpixel((8, 8))
    assert pixel[0] > 240 and pixel[1] < 15 and pixel[2] < 15


def test_ycck_jpeg():
    """With Adobe's transform 2 the same stored samples are luma and chroma of inverted inks."""
    stored = encode(plain("CMYK", (55, 127, 127, 0), (16, 16)), "JPEG", quality=100, subsampling=0)
    at = stored.index(b"Adobe") + len(b"Adobe") + 6
    assert stored[at] == 0
    pixel = decode(stored[:at] + b"\x02" + stored[at + 1 :]).getpixel((8, 8))
    # Luma 200 of neutral chroma: inks 255 - 200, which Adobe stores inverted: paper less 200.
    assert pixel == pytest.approx((55, 55, 55), abs=2)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation, kind):
    upright = Image.new("RGB", (32, 16), "black")
    upright.paste("red", (0, 0, 16, 8))
    upright.paste("lime", (16, 0, 32, 8))
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode(encode(stored, kind, exif=exif))
    assert decoded.size == (32, 16)
    assert np.abs(np.asarray(decoded).astype(int) - np.asarray(upright)).mean() < 12
    again = ImageOps.exif_transpose(decoded)
    assert again.size == decoded.size and again.tobytes() == decoded.tobytes()


def test_broken_exif_does_not_cost_the_image():
    data = turned(6)
    at = data.index(b"Exif\x00\x00") + 6
    decoded = decode(data[:at] + b"\xff" * 8 + data[at + 8 :])
    assert decoded.size == (32, 24)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_animation_gives_its_first_frame(kind):
    frames = [plain("RGB", "red"), plain("RGB", "lime")]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    (colour,) = colours(decode(data))
    assert colour[0] > 240 and colour[1] < 20


@pytest.mark.parametrize("name", sorted(good_files()))
def test_good_file(name):
    decoded = decode(good_files()[name])
    assert decoded.mode == "RGB" and decoded.info == {}


@pytest.mark.parametrize("name", sorted(bad_files()))
def test_bad_file(name):
    data, why = bad_files()[name]
    with pytest.raises(BadImageError) as caught:
        decode(data)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "image",
    [
        plain("I", -5),
        plain("I", 70_000),
        plain("F", 300.0),
        plain("F", float("nan")),
        plain("F", float("inf")),
    ],
)
def test_unknown_ranges_are_refused(image):
    with pytest.raises(BadImageError, match="expected a grey range"):
        decode(encode(image, "TIFF"))


def test_lab_colours_are_refused():
    with pytest.raises(BadImageError, match="LAB"):
        decode(encode(plain("LAB", (128, 0, 0)), "TIFF"))


def test_pixel_limit_holds_when_pillows_is_off(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(BadImageError, match="at most 178956970"):
        decode(png_header(20_000, 20_000))


def test_large_image_decodes_without_a_warning(monkeypatch):
    """Between once and twice Pillow's limit Pillow warns, and warnings are errors here."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    data = encode(noise(), "PNG")
    assert decode(data).size == (32, 24)
    with ThreadPoolExecutor(8) as pool:
        for size in pool.map(lambda _: decode(data).size, range(400)):
            assert size == (32, 24)


def test_other_warnings_stay_as_they_were(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    data = encode(noise(), "PNG")
    decode(data)
    with pytest.raises(Image.DecompressionBombWarning):
        Image.open(io.BytesIO(data))
    with pytest.raises(UserWarning, match="mine"):
        warnings.warn("mine", stacklevel=1)


def test_warning_filters_can_be_sent_to_another_process():
    decode(encode(noise(), "PNG"))
    assert len(pickle.loads(pickle.dumps(warnings.filters))) == len(warnings.filters)


def test_scikit_learn_works_after_decoding():
    decode(encode(noise(), "PNG"))
    x = np.random.default_rng(0).normal(size=(20, 2))
    assert len(cross_val_score(LogisticRegression(), x, np.arange(20) % 2, cv=2)) == 2
    with pytest.raises(UserWarning, match="mine"):
        warnings.warn("mine", stacklevel=1)


def test_filters_do_not_pile_up():
    data = encode(noise(), "PNG")
    decode(data)
    before = len(warnings.filters)
    for _ in range(20):
        decode(data)
    assert len(warnings.filters) == before


def test_no_program_is_started(tmp_path: Path, monkeypatch):
    """Pillow hands PostScript to a program called gs; one that tells on itself stands in wait."""
    told = tmp_path / "told"
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch '{told}'\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(BadImageError, match="not an image"):
        decode(encode(noise(), "EPS"))
    assert not told.exists()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_are_no_image(data):
    with pytest.raises(BadImageError):
        decode(data)


SEEDS = [data for data in good_files().values() if len(data) < 4000]


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4)), max_size=6),
    st.floats(0, 1),
)
def test_mutated_images_decode_or_are_bad(data, patches, kept):
    mutated = bytearray(data)
    for where, patch in patches:
        at = int(where * (len(mutated) - len(patch)))
        mutated[at : at + len(patch)] = patch
    mutated = mutated[: max(20, int(kept * len(mutated)))]
    try:
        decoded = decode(bytes(mutated))
    except BadImageError as error:
        assert str(error)
    else:
        assert decoded.mode == "RGB"


@pytest.mark.parametrize("size", [(1, 251), (600, 2)])
def test_a_line_of_pixels_is_refused_before_it_becomes_a_wall(size):
    with pytest.raises(BadImageError, match=f"too long and narrow: {size[0]} x {size[1]}"):
        decode(encode(Image.new("RGB", size), "PNG"))
    assert decode(encode(Image.new("RGB", (250, 1)), "PNG")).size == (250, 1)
