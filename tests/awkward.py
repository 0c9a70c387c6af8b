"""A folder of the files that real folders hold: every good kind of image and every broken one."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

NOISE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def encode(image: Image.Image, kind: str, **options) -> bytes:
    """Encode an image in one of Pillow's formats."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def noise(mode: str = "RGB") -> Image.Image:
    return Image.fromarray(NOISE).convert(mode)


def plain(mode: str, colour, size: tuple[int, int] = (8, 6)) -> Image.Image:
    return Image.new(mode, size, colour)


def png_header(width: int, height: int) -> bytes:
    """A whole PNG whose header claims a size that its few bytes of pixels do not have."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def turned(orientation: int) -> bytes:
    """A JPEG with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(noise(), "JPEG", exif=exif)


def good_files() -> dict[str, bytes]:
    grey16 = Image.fromarray(np.linspace(0, 65535, 48).reshape(6, 8).astype(np.uint16))
    frames = [plain("RGB", "red"), plain("RGB", "lime")]
    animated = {"save_all": True, "append_images": frames[1:]}
    palette = plain("RGB", "blue").quantize(4)
    return {
        "plain.jpg": encode(noise(), "JPEG"),
        "UPPER.JPG": encode(noise(), "JPEG", quality=50),
        "Mixed.JpEg": encode(noise(), "JPEG", quality=60),
        "progressive.jpg": encode(noise(), "JPEG", progressive=True),
        "grey.jpg": encode(noise("L"), "JPEG"),
        "cmyk.jpg": encode(noise("CMYK"), "JPEG"),
        **{f"turned_{i}.jpg": turned(i) for i in range(1, 9)},
        "two_lenses.jpg": encode(noise(), "MPO", save_all=True, append_images=[noise()]),
        "a_png_inside.jpg": encode(noise(), "PNG", compress_level=1),
        "rgba.png": encode(plain("RGBA", (255, 0, 0, 128)), "PNG"),
        "grey_alpha.png": encode(plain("LA", (0, 0)), "PNG"),
        "palette.png": encode(palette, "PNG"),
        "palette_clear.png": encode(palette, "PNG", transparency=0),
        "one_bit.png": encode(noise("1"), "PNG"),
        "grey16.png": encode(grey16, "PNG"),
        "one_pixel.png": encode(plain("RGB", "red", (1, 1)), "PNG"),
        "thin.png": encode(plain("RGB", "red", (250, 1)), "PNG"),
        "animated.gif": encode(frames[0], "GIF", **animated),
        "photo.webp": encode(noise(), "WEBP"),
        "clear.webp": encode(noise("RGBA"), "WEBP", lossless=True),
        "animated.webp": encode(frames[0], "WEBP", lossless=True, **animated),
        "windows.bmp": encode(noise(), "BMP"),
        "scan.tif": encode(noise(), "TIFF", compression="tiff_lzw"),
        "scan16.TIFF": encode(grey16, "TIFF"),
        "pages.tiff": encode(frames[0], "TIFF", **animated),
        "float.tif": encode(Image.fromarray(NOISE[..., 0] / np.float32(255)), "TIFF"),
        "deep/er/still/nested.png": encode(plain("RGB", "navy"), "PNG"),
        "folder.jpg/inside.png": encode(plain("RGB", "teal"), "PNG"),
        "with spaces/größe 写真 🐟.jpg": encode(noise(), "JPEG", quality=70),
        "[brackets]*.png": encode(plain("RGB", "olive"), "PNG"),
        "copy_of_plain.jpg": encode(noise(), "JPEG"),
    }


def bad_files() -> dict[str, tuple[bytes, str]]:
    jpeg, png = encode(noise(), "JPEG"), encode(noise(), "PNG")
    gif, webp = encode(noise(), "GIF"), encode(noise(), "WEBP")
    tiff, bmp = encode(noise(), "TIFF"), encode(noise(), "BMP")
    pdf = encode(noise(), "PDF")
    return {
        "cut.jpg": (jpeg[:-100], "truncated"),
        "cut_in_header.jpg": (jpeg[:100], "broken image"),
        "cut.png": (png[: len(png) // 2], "broken image"),
        "cut.gif": (gif[: len(gif) // 2], "broken image"),
        "cut.webp": (webp[: len(webp) // 2], "broken image"),
        "cut.tif": (tiff[: len(tiff) // 2], "broken image"),
        "cut.bmp": (bmp[: len(bmp) // 2], "broken image"),
        "empty.jpg": (b"", "zero bytes"),
        "text.jpg": (b"this is a shopping list\n", "not an image"),
        "page.png": (b"<!DOCTYPE html><html><body>404</body></html>", "not an image"),
        "drawing.png": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not an image"),
        "postscript.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        "document.jpg": (pdf, "not an image"),
        "icon.bmp": (encode(noise(), "ICO", sizes=[(16, 16)]), "not an image"),
        "zeros.jpg": (bytes(5000), "not an image"),
        "bomb.png": (png_header(60_000, 60_000), "too large"),
        "line.png": (encode(plain("RGB", "red", (3000, 1)), "PNG"), "too long and narrow"),
        "negative_float.tif": (encode(plain("F", -3.5), "TIFF"), "pixels from -3.5"),
    }


def make_awkward_folder(root: Path) -> dict[str, str | None]:
    """Write the awkward files below ``root`` and tell what should become of each.

    Beside the images there are files that must not be found: hidden ones, a CSV, notes.

    Args:
        root: The folder; made where it does not exist.

    Returns:
        Each source to None where it is a good image, else to a part of the reason why it is not.
    """
    root.mkdir(parents=True, exist_ok=True)
    expected: dict[str, str | None] = {}
    for name, data in good_files().items():
        _write(root / name, data)
        expected[name] = None
    for name, (data, why) in bad_files().items():
        _write(root / name, data)
        expected[name] = why
    for name in (".hidden.jpg", ".cache/thumbnail.png", "__MACOSX/plain.jpg", "deep/._nested.png"):
        _write(root / name, b"not to be found")
    for name in ("labels.csv", "notes.txt", "no_suffix", "photo.jpg.part"):
        _write(root / name, b"file,label\nplain.jpg,cat\n")
    return expected | _write_special_files(root)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _write_special_files(root: Path) -> dict[str, str | None]:
    """Write links, a named pipe, a name that is not UTF-8 and a closed file, where these exist."""
    expected: dict[str, str | None] = {}
    if os.name != "posix":
        return expected
    (root / "link.jpg").symlink_to("plain.jpg")
    (root / "dangling.jpg").symlink_to("nowhere.jpg")
    (root / "itself.jpg").symlink_to("itself.jpg")
    (root / "deep" / "loop").symlink_to(root, target_is_directory=True)
    (root / "again").symlink_to("deep", target_is_directory=True)
    os.mkfifo(root / "pipe.jpg")
    expected |= {
        "link.jpg": None,
        "dangling.jpg": "no such file",
        "itself.jpg": "symbolic links",
        "pipe.jpg": "not a regular file",
    }
    try:
        _write(root / os.fsdecode(b"latin-\xe9.png"), encode(plain("RGB", "pink"), "PNG"))
        expected["latin-\N{REPLACEMENT CHARACTER}.png"] = None
    except OSError:
        pass  # a file system that takes UTF-8 names only cannot hold this file
    if os.geteuid() != 0:  # to the superuser no file is closed
        _write(root / "closed.jpg", encode(noise(), "JPEG"))
        (root / "closed.jpg").chmod(0)
        expected["closed.jpg"] = "ermission denied"
    return expected
