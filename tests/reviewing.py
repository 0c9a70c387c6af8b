"""Runs to review, cheap to make, and a real server of the review in a thread."""

import io
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from nameonly.images import content_id
from nameonly.review import server
from nameonly.review.answers import Review
from nameonly.review.decisions import Decisions
from nameonly.review.labels import read_run
from nameonly.review.pictures import Pictures, find_images
from nameonly.review.queues import build_queues
from nameonly.review.table import TableKeeper

NAMES = ("ant", "bee", "cat", "umbrella")


def picture(number, side=24):
    """Return a PNG with a colour of its own."""
    colour = (37 * number % 256, 91 * number % 256, 151 * number % 256)
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(buffer, "PNG")
    return buffer.getvalue()


def write_images(folder, n):
    folder.mkdir(parents=True, exist_ok=True)
    found = {f"image-{i:03d}.png": picture(i) for i in range(n)}
    for name, data in found.items():
        (folder / name).write_bytes(data)
    return found


def write_run(folder, paths, ids, names=NAMES, source="nowhere", seed=0, **columns):
    """Write what the review reads of a run: labels.parquet and run.json."""
    n, g = len(paths), np.random.default_rng(seed)
    label = np.arange(n) % len(names)
    runner_up = (label + 1) % len(names)
    zero_shot = np.where(np.arange(n) % 5 == 0, runner_up, label)
    probability = g.uniform(0.5, 1.0, n).astype("float32")
    named = pa.array(names)
    table = {
        "path": list(paths),
        "id": list(ids),
        "label": named.take(pa.array(label)),
        "probability": probability,
        "runner_up": named.take(pa.array(runner_up)),
        "margin": 2 * probability - 1,
        "zero_shot_label": named.take(pa.array(zero_shot)),
        **columns,
    }
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table), folder / "labels.parquet")
    run = {"classes": list(names), "input": str(source), "column": None}
    run |= {"backbone": {"name": "tiny"}}
    (folder / "run.json").write_text(json.dumps(run))
    return folder


def small_run(tmp_path, n=24, names=NAMES, **columns):
    """Return the folder of a run on PNG files, the last one a copy of the first."""
    found = write_images(tmp_path / "images", n - 1)
    first = next(iter(found.values()))
    (tmp_path / "images" / "zz-copy.png").write_bytes(first)
    ids = [content_id(data) for data in found.values()] + [content_id(first)]
    paths = [*found, "zz-copy.png"]
    run = write_run(tmp_path / "run", paths, ids, names, tmp_path / "images", **columns)
    table = pq.read_table(run / "labels.parquet")
    # copies have one label
    first_again = table.take(pa.array([*range(n - 1), 0]))
    first_again = first_again.set_column(0, "path", pa.array(paths))
    pq.write_table(first_again, run / "labels.parquet")
    return run


def large_run(folder, n):
    """Return a run on one table of n images, whose bytes differ and whose pixels seldom do."""
    kinds = [picture(i, 16) for i in range(32)]
    cells = [kinds[i % 32] + str(i).encode() for i in range(n)]
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": cells}), folder / "images.parquet")
    paths = [f"images.parquet#{i}" for i in range(n)]
    ids = [content_id(cell) for cell in cells]
    return write_run(folder / "run", paths, ids, source=folder / "images.parquet")


@dataclass
class Served:
    url: str
    site: server.Site
    folder: object
    decisions: Decisions

    @property
    def port(self):
        return int(self.url.split(":")[2].partition("/")[0])

    @property
    def origin(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def labels(self):
        return self.site.review.labels


@contextmanager
def serving(folder, queues=None):
    """Serve a run's review with a real server on a free port, until the end of the block."""
    labels = read_run(folder)
    found, rows = find_images(labels, None)
    host = "127.0.0.1"
    with (
        server.listen(host, 0) as listening,
        Decisions(folder) as decisions,
        TableKeeper(labels, decisions) as keeper,
    ):
        review = Review(labels, build_queues(labels, queues), decisions)
        site = server.Site(review, Pictures(found, rows), keeper.note)
        running = server.make_server(site, host)
        thread = threading.Thread(target=running.run, args=([listening],), daemon=True)
        thread.start()
        try:
            yield Served(server.address(listening, site), site, folder, decisions)
        finally:
            running.should_exit = True
            thread.join(timeout=10)
