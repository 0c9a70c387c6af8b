"""Files of strangers: sizes that are lies, bombs, names that lead elsewhere or are code."""

import ast
import io
import json
import resource
import struct
import tarfile
import time
import zlib
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from awkward import encode, plain, png_header
from PIL import Image

from nameonly import auditing, structured_files
from nameonly.backbones._feature_file import read_arrays
from nameonly.backbones.precomputed import PrecomputedBackbone
from nameonly.classifier import load
from nameonly.export.formats import Wanted, export_run
from nameonly.images import load as load_image
from nameonly.images import open_images
from nameonly.jobs import label
from nameonly.journal import Journal
from nameonly.label_space import read_label_space
from nameonly.review.pictures import Pictures
from nameonly.sources.decoding import BadImageError, decode
from nameonly.store import FeatureStore, store_folder
from nameonly.synthetic import read_synthetic
from nameonly.tiny.digits import CLASS_NAMES

SRC = Path(auditing.__file__).parent
MEBI = 1 << 20
KEY = {"backbone": "toy", "revision": "1", "dtype": "float32"}


@contextmanager
def little_memory(mebibytes=300, seconds=10):
    """Let the process have so much more address space than it has now, and so much time."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + mebibytes * MEBI, before[1]))
    begun = time.monotonic()
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert time.monotonic() - begun < seconds


def safetensors_claiming(shape, data=b"\0" * 64, end=None):
    claimed = 4 * int(np.prod(shape, dtype=object)) if end is None else end
    header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, claimed]}})
    return struct.pack("<Q", len(header)) + header.encode() + data


LIES = {
    "more elements than bytes": safetensors_claiming([10**6, 10**6]),
    "a shape that does not fit its bytes": safetensors_claiming([10**6, 10**6], end=64),
    "more bytes than the file has": safetensors_claiming([16], end=10**12),
    "a header longer than the file": struct.pack("<Q", 10**12) + b"{}",
    "a negative offset": safetensors_claiming([16]).replace(b"[0, 64]", b"[-9,64]"),
    "a shape that overflows": safetensors_claiming([2**40, 2**40], end=64),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_bundle_whose_header_lies_is_refused_before_it_is_allocated(run, lie):
    (run / "classifier" / "classifier.safetensors").write_bytes(LIES[lie])
    with little_memory(), pytest.raises(ValueError, match="cannot load the classifier"):
        load(run)


@pytest.mark.parametrize("lie", LIES)
def test_a_feature_file_whose_header_lies_is_refused_before_it_is_allocated(tmp_path, lie):
    (tmp_path / "features.safetensors").write_bytes(LIES[lie])
    with little_memory(), pytest.raises(ValueError, match="cannot read"):
        read_arrays(tmp_path / "features.safetensors")


def npy_claiming(shape):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    return buffer.getvalue() + bytes(64)


@pytest.mark.parametrize("shape", [(10**6, 10**6), (2**40, 2**40), (10**12, 1)])
def test_a_shard_whose_header_lies_is_dropped_before_it_is_allocated(tmp_path, shape):
    import torch

    store = FeatureStore(store_folder(tmp_path, "images", KEY), KEY)
    store.add(["a"], torch.ones(1, 4))
    (store.folder / "000000.npy").write_bytes(npy_claiming(shape))
    with little_memory():
        again = FeatureStore(store.folder, KEY)
        assert again.missing(["a"]) == ["a"] and "damaged" in again.repairs[0]


@pytest.mark.parametrize("shape", [(10**6, 10**6), (2**40, 2**40)])
def test_an_npz_whose_header_lies_is_refused_before_it_is_allocated(tmp_path, shape):
    import zipfile

    with zipfile.ZipFile(tmp_path / "features.npz", "w") as archive:
        archive.writestr("features.npy", npy_claiming(shape))
    with little_memory(), pytest.raises(ValueError, match="cannot read"):
        read_arrays(tmp_path / "features.npz")


def test_an_npz_whose_directory_lies_too_is_refused(tmp_path):
    import zipfile

    path, side = tmp_path / "features.npz", 30_000
    content = npy_claiming((side, side))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("features.npy", content)
        directory = archive.start_dir
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, directory + 24, len(content) - 64 + 4 * side**2)
    path.write_bytes(data)
    backbone = PrecomputedBackbone(str(path))
    with little_memory(), pytest.raises(ValueError, match=r"cannot read .*features\.npz"):
        _ = backbone.features


def test_json_of_a_gigabyte_is_refused_before_it_is_read(run, tmp_path):
    places = [tmp_path / "classes.json", run / "classifier" / "classifier.json"]
    for path, read in zip(places, (read_label_space, lambda _: load(run)), strict=True):
        with path.open("wb") as file:
            file.truncate(1 << 30)
        with little_memory(), pytest.raises(ValueError, match="bytes; at most"):
            read(path)
    assert structured_files.MAX_BYTES < 1 << 30


def of_size(kind, width, height):
    """Return an image whose header claims a size; its pixels are few."""
    data = bytearray(
        encode(plain("RGB", "red"), kind, **({"lossless": True} if kind == "WEBP" else {}))
    )
    if kind == "PNG":
        return png_header(width, height)
    if kind == "BMP":
        data[18:26] = struct.pack("<ii", width, height)
    elif kind == "GIF":
        data[6:10] = struct.pack("<HH", width, height)
        frame = data.index(b"\x2c")
        data[frame + 5 : frame + 9] = struct.pack("<HH", width, height)
    elif kind == "JPEG":
        frame = data.index(b"\xff\xc0")
        data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    elif kind == "WEBP":
        start = data.index(b"VP8L") + 9
        bits = (width - 1) | (height - 1) << 14
        data[start : start + 4] = struct.pack("<I", bits)
    else:
        image = Image.new("L", (8, 8))
        stream = io.BytesIO()
        image.save(stream, "TIFF", tiffinfo={})
        data = bytearray(stream.getvalue())
        (at,) = struct.unpack_from("<I", data, 4)
        (n,) = struct.unpack_from("<H", data, at)
        for entry in range(at + 2, at + 2 + 12 * n, 12):
            (tag,) = struct.unpack_from("<H", data, entry)
            if tag in (256, 257):
                struct.pack_into("<HIHH", data, entry + 2, 3, 1, width if tag == 256 else height, 0)
    return bytes(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_bomb_of_every_format_is_refused_before_it_is_allocated(kind):
    size = (16_000, 16_000) if kind == "WEBP" else (60_000, 60_000)
    with little_memory(), pytest.raises(BadImageError, match="too large"):
        decode(of_size(kind, *size))


def test_a_real_bomb_and_one_in_its_text_are_refused():
    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    whole = b"\x89PNG\r\n\x1a\n" + chunk(
        b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    )
    rows = zlib.compress(bytes(3751 * 30_000), 9)
    whole += chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    with little_memory(), pytest.raises(BadImageError, match="too large"):
        decode(whole)
    small = encode(plain("RGB", "red"), "PNG")
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(200 * MEBI), 9))
    with little_memory(), pytest.raises(BadImageError):
        decode(small[:33] + text + small[33:])


OUTSIDE = ("../../outside.png", "/outside.png", "a/../../../outside.png", "..\\..\\outside.png")


def test_members_of_a_shard_never_leave_it(run, photos, tiny, tmp_path):
    files = sorted(photos.iterdir())[:4]
    with tarfile.open(tmp_path / "shard.tar", "w") as shard:
        for name, path in zip(OUTSIDE, files, strict=True):
            shard.add(path, name)
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        shard.addfile(link)
    before = set(tmp_path.rglob("*"))
    images, bad = open_images(tmp_path / "shard.tar")
    data = [images.locations[row].read() for row in range(len(images))]
    assert data and set(data) <= {path.read_bytes() for path in files}
    assert ["link" in q.reason for q in bad] == [True] * len(bad)
    assert set(tmp_path.rglob("*")) == before
    made = label(
        tmp_path / "shard.tar",
        CLASS_NAMES,
        backbone=tiny,
        cache=tmp_path / "c",
        out=tmp_path / "tar-run",
    )
    place = tmp_path / "set" / "inner"
    place.mkdir(parents=True)
    export_run(tmp_path / "tar-run", Wanted("imagefolder"), place, Journal())
    written = list(tmp_path.rglob("*outside*"))
    assert written and all(place in path.parents for path in written), written
    assert len(made.table) == len(images)


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_table_of_made_images_names_none_outside_its_folder(photos, tmp_path, path):
    folder = tmp_path / "a" / "b" / "made"
    folder.mkdir(parents=True)
    (tmp_path / "outside.png").write_bytes(next(photos.iterdir()).read_bytes())
    row = {"path": [path], "class_name": ["cat"], "made": [True], "kept": [True], "asked": [True]}
    pq.write_table(pa.table(row), folder / "synthetic.parquet")
    with pytest.raises(ValueError, match="does not lie in the folder"):
        read_synthetic(folder)


HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{7*7}}", "a&b<!--")


class Page(HTMLParser):
    """Collects tags, and the words of scripts and of attributes that run code."""

    def __init__(self):
        super().__init__()
        self.tags, self.code = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.code += [value for name, value in attributes if name.startswith("on")]


def test_names_and_paths_are_text_on_every_page(photos, tiny, tmp_path):
    for number, path in enumerate(sorted(photos.iterdir())[:6]):
        path.rename(photos / f"<marquee onstart=alert({number})>&.png")
    out = tmp_path / "run"
    label(photos, HOSTILE, backbone=tiny, cache=tmp_path / "cache", out=out)
    auditing.draw_audit(out, 8)
    lines = (out / "audit.csv").read_text().splitlines()
    (out / "audit.csv").write_text("\n".join([lines[0], *(line + "none" for line in lines[1:])]))
    found = auditing.answer_audit(out)
    assert found["report_problem"] is None
    text = (out / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert "marquee" not in page.tags and "script" not in page.tags and page.code == []
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text and "{{7*7}}" in text
    assert "<script" not in (out / "classifier" / "README.md").read_text()


def test_no_code_of_a_model_is_ever_run():
    for path in SRC.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = {}
            if isinstance(node, ast.Call):
                named = {word.arg: word.value for word in node.keywords}
                called = ast.unparse(node.func)
                assert called not in ("eval", "exec", "os.system", "torch.load"), path
                assert not called.startswith("pickle.") and "extractall" not in called, path
            elif isinstance(node, ast.Dict):
                pairs = zip(node.keys, node.values, strict=True)
                named = {getattr(k, "value", None): v for k, v in pairs}
            for name, allowed in (
                ("trust_remote_code", False),
                ("allow_pickle", False),
                ("shell", False),
            ):
                value = named.get(name)
                assert value is None or getattr(value, "value", ...) is allowed, (path, name)


def test_a_picture_that_lies_costs_the_review_no_more_than_itself(photos, tmp_path):
    (photos / "bomb.png").write_bytes(png_header(60_000, 60_000))
    images, _ = open_images(photos)
    rows = np.arange(len(images))
    pictures, row = Pictures(images, rows), images.sources.index("bomb.png")
    with little_memory(), pytest.raises(BadImageError, match="too large"):
        pictures.make(row, 96)
    with pytest.raises(BadImageError, match="too large"):
        load_image(images, row)
