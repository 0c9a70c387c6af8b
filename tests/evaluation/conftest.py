"""Output folders as a run writes them."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

NAMES = ("cat", "dog", "snow owl")


@pytest.fixture
def write_run(tmp_path):
    """Write run.json and labels.parquet; a row is (path, id, label, probability, zero-shot)."""

    def write(rows, name="run", names=NAMES, run=None):
        folder = tmp_path / name
        folder.mkdir()
        text = [list(column) for column in zip(*rows, strict=True)] or [[]] * 5
        columns = {
            "path": pa.array(text[0], pa.string()),
            "id": pa.array(text[1], pa.string()),
            "label": pa.array(text[2], pa.string()),
            "probability": pa.array(text[3], pa.float32()),
            "runner_up": pa.array([names[-1]] * len(rows), pa.string()),
            "margin": pa.array([0.1] * len(rows), pa.float32()),
            "method": pa.array(["zero_shot"] * len(rows), pa.string()),
            "zero_shot_label": pa.array(text[4], pa.string()),
        }
        columns |= {f"p_{n}": pa.array([1 / len(names)] * len(rows)) for n in names}
        metadata = {b"nameonly": json.dumps({"class_names": names}).encode()}
        table = pa.table(columns).replace_schema_metadata(metadata)
        pq.write_table(table, folder / "labels.parquet")
        settings = {"recipe": "zero_shot", "settings": {}, "backbone": {"name": "tiny"}}
        (folder / "run.json").write_text(json.dumps(settings if run is None else run))
        return folder

    return write
