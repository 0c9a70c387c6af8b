import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from nameonly.images import open_images


def picture(number, kind="PNG", size=(9, 6), **options):
    """An image of its own for every number, in one of Pillow's formats."""
    pixels = np.random.default_rng(number).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def labels_table(images, class_names, abstained=(), given=None):
    """What ``labels.parquet`` holds, with probabilities that a seed decides."""
    n = len(images)
    probs = np.random.default_rng(0).dirichlet(np.ones(len(class_names)), n).astype(np.float32)
    order = probs.argsort(axis=1)
    named = np.array(class_names, dtype=object)
    best, next_ = order[:, -1], order[:, -2]
    label = [None if i in abstained else named[best[i]] for i in range(n)]
    columns = {
        "path": list(images.sources),
        "id": list(images.ids),
        "label": pa.array(label, pa.string()),
        "probability": probs[np.arange(n), best],
        "runner_up": list(named[next_]),
        "margin": probs[np.arange(n), best] - probs[np.arange(n), next_],
        "confidence": probs[np.arange(n), best] ** 2,
        "suspected_unknown": probs[np.arange(n), best] < 0.7,
        "method": ["zero_shot"] * n,
        "zero_shot_label": list(named[best[::-1]]),
    }
    if given is not None:
        columns["given_label"] = pa.array(given, pa.string())
    columns |= {f"p_{name}": probs[:, j] for j, name in enumerate(class_names)}
    return pa.table(columns)


@pytest.fixture
def new_run(tmp_path):
    """Make images, and a run's folder that labels them as ``label`` would."""

    def make(files, class_names=("cat", "dog"), name="run", spec=None, column=None, **labels):
        photos = tmp_path / "photos"
        for path, data in files.items():
            (photos / path).parent.mkdir(parents=True, exist_ok=True)
            (photos / path).write_bytes(data)
        images, _ = open_images(spec or photos, column=column)
        folder = tmp_path / name
        folder.mkdir()
        pq.write_table(labels_table(images, class_names, **labels), folder / "labels.parquet")
        facts = {
            "command": "label",
            "recipe": "zero_shot",
            "input": str(spec or photos),
            "column": column,
            "classes": list(class_names),
            "backbone": {"name": "tiny", "model": "tiny"},
            "nameonly": "9.8.7",
        }
        (folder / "run.json").write_text(json.dumps(facts))
        return folder

    return make


@pytest.fixture
def shard():
    """Write a tar shard."""

    def write(path, members):
        with tarfile.open(path, "w") as archive:
            for name, data in members.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        return path

    return write


@pytest.fixture
def pictures_of():
    return picture


@pytest.fixture
def some():
    """Twelve images by name."""
    return {f"{i:02d}.png": picture(i) for i in range(12)}


@pytest.fixture
def exported(tmp_path):
    """Export a run; give the folder and the facts."""
    from nameonly.export.formats import Wanted, export_run

    def export(run, to, **wanted):
        place = tmp_path / f"export-{to}"
        place.mkdir()
        return place, export_run(run, Wanted(to, **wanted), place)

    return export
