"""Broken images, class files, tables and bundles are read or refused, and never more than that."""

import io
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from fuzzing import damages, fuzzed, places_of, replaced, values
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nameonly.classifier import load
from nameonly.images import load as load_image
from nameonly.images import open_images
from nameonly.label_space import read_label_space
from nameonly.label_tables.reading import read_labels
from nameonly.sources.decoding import BadImageError, decode
from nameonly.types import Features

KINDS = {"PNG": {}, "JPEG": {}, "WEBP": {"lossless": True}, "GIF": {}, "BMP": {}, "TIFF": {}}


def encoded(kind, mode="RGB", **options):
    pixels = np.random.default_rng(0).integers(0, 255, (24, 20, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


IMAGES = {
    **{kind.lower(): encoded(kind, **options) for kind, options in KINDS.items()},
    "progressive jpeg": encoded("JPEG", progressive=True),
    "lossy webp": encoded("WEBP", quality=60),
    "palette png": encoded("PNG", "P"),
    "compressed tiff": encoded("TIFF", compression="tiff_lzw"),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_broken_images(kind, tally):
    counts = tally(f"image: {kind}", BadImageError)

    @fuzzed(30)
    @given(damages)
    def check(damage):
        image = counts.attempt(lambda: decode(damage.of(IMAGES[kind])))
        assert image is None or image.mode == "RGB"

    check()


CLASSES = {
    "classes.json": b'{"classes": [{"name": "cat", "prompts": ["a cat"], "parent": "pet"}, "dog"]}',
    "classes.yaml": b"classes:\n  - name: cat\n    descriptions: [soft, small]\n  - dog\n",
    "classes.toml": b'classes = ["cat", "dog"]\ntemplates = ["a photo of a {}."]\n',
    "classes.txt": b"cat\ndog # a comment\n'horse, grey'\nC#\n",
}


@pytest.mark.parametrize("name", CLASSES)
def test_broken_class_files(name, tally, tmp_path):
    counts = tally(f"class file: {name}")

    @fuzzed(60)
    @given(damages)
    def check(damage):
        (tmp_path / name).write_bytes(damage.of(CLASSES[name]))
        space = counts.attempt(lambda: read_label_space(tmp_path / name))
        assert space is None or len(set(space.class_names)) == len(space) > 1

    check()


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Bytes of tables of labels and of images, by file name."""
    folder = tmp_path_factory.mktemp("tables")
    rows = {"path": [f"{i}.png" for i in range(40)], "label": ["cat", "dog"] * 20}
    pq.write_table(pa.table(rows), folder / "labels.parquet")
    images = pa.table({"image": [IMAGES["png"] + bytes([i]) for i in range(6)]})
    pq.write_table(images, folder / "images.parquet")
    with pa.ipc.new_stream(folder / "images.arrow", images.schema) as stream:
        stream.write_table(images)
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    text = "".join(f"{p},{n}\n" for p, n in zip(rows["path"], rows["label"], strict=True))
    return found | {"labels.csv": b"path,label\n" + text.encode()}


@pytest.mark.parametrize("name", ["labels.csv", "labels.parquet"])
def test_broken_tables_of_labels(name, tables, tally, tmp_path):
    counts = tally(f"table: {name}")

    @fuzzed(60)
    @given(damages)
    def check(damage):
        (tmp_path / name).write_bytes(damage.of(tables[name]))
        counts.attempt(lambda: read_labels(tmp_path / name))

    check()


@pytest.mark.parametrize("name", ["images.parquet", "images.arrow", "labels.csv"])
def test_broken_tables_of_images(name, tables, tally, tmp_path):
    counts = tally(f"table: {name} as images")

    def read():
        images, _ = open_images(tmp_path / name)
        for row in range(len(images)):
            load_image(images, row)

    @fuzzed(40)
    @given(damages)
    def check(damage):
        (tmp_path / name).write_bytes(damage.of(tables[name]))
        counts.attempt(read)

    check()


@pytest.fixture
def bundle(run_folder, tmp_path):
    shutil.copytree(run_folder / "classifier", tmp_path / "bundle")
    return tmp_path / "bundle"


def use(folder):
    """Load a classifier and score a row with it."""
    classifier = load(folder, device="cpu")
    width = classifier.scorer.text_.weights.shape[1]
    row = Features(torch.ones(1, width) / width**0.5, ("a",), classifier.backbone.name)
    probs = classifier.predict(row).probs
    assert torch.isfinite(probs).all()


def test_bundles_with_other_values(bundle, tally):
    counts = tally("bundle: classifier.json, values", ValueError)
    config = json.loads((bundle / "classifier.json").read_text())
    places = list(places_of(config))
    counts.attempt(lambda: use(bundle))
    assert counts.read == 1

    @fuzzed(80)
    @given(st.sampled_from(places), values | st.just(...))
    def check(place, value):
        text = json.dumps(replaced(config, place, value))
        (bundle / "classifier.json").write_text(text)
        counts.attempt(lambda: use(bundle))

    check()


@pytest.mark.parametrize("name", ["classifier.json", "classifier.safetensors"])
def test_broken_bundles(name, bundle, tally):
    counts = tally(f"bundle: {name}, bytes", ValueError)
    data = (bundle / name).read_bytes()

    @fuzzed(80)
    @given(damages)
    def check(damage):
        (bundle / name).write_bytes(damage.of(data))
        counts.attempt(lambda: use(bundle))

    check()
