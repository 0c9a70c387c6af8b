"""A data set that ``datasets.load_dataset(OUT)`` reads, and that the Hugging Face hub shows.

Parquet files with the images' own bytes in them. The features (``Image``, ``ClassLabel`` with the
real class names, ...) stand in the files' schema under ``huggingface``, where ``datasets`` looks
for them; ``README.md`` is the data card. A source without label has a null label.
https://huggingface.co/docs/datasets/about_dataset_features
https://huggingface.co/docs/hub/datasets-manual-configuration
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from jaxtyping import Float32

from nameonly.export.labelled import ExportRow, LabelledRun
from nameonly.export.pictures import Pictures, look

FILE_BYTES = 500_000_000
GROUP_BYTES = 50_000_000
GROUP_ROWS = 100
_TEXTS = ("runner_up", "zero_shot_label", "given_label", "path", "id")
_OPTIONAL = {"confidence": "float32", "unknown_score": "float32", "suspected_unknown": "bool"}


def features(run: LabelledRun) -> dict[str, Any]:
    """Return the columns as ``datasets.Features`` writes them."""
    text, number = ({"dtype": kind, "_type": "Value"} for kind in ("string", "float32"))
    found: dict[str, Any] = {
        "image": {"_type": "Image"},
        "label": {"names": list(run.class_names), "_type": "ClassLabel"},
        "probability": number,
        "margin": number,
        **dict.fromkeys(_TEXTS, text),
        **dict.fromkeys(run.provenance, text),
    }
    for name, dtype in _OPTIONAL.items():
        if name in run.table.column_names:
            found[name] = {"dtype": dtype, "_type": "Value"}
    if run.has_all_probs:
        found["probs"] = {"feature": number, "_type": "Sequence"}
    return found


def schema(run: LabelledRun) -> pa.Schema:
    """Return the columns of the parquet files, with their features."""
    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    kinds = {"Image": picture, "ClassLabel": pa.int64(), "Sequence": pa.list_(pa.float32())}
    columns = features(run)
    fields = [
        (name, kinds.get(kind["_type"]) or pa.type_for_alias(kind["dtype"]))
        for name, kind in columns.items()
    ]
    about = json.dumps({"info": {"features": columns}}, ensure_ascii=False)
    return pa.schema(fields, metadata={"huggingface": about})


def write(run: LabelledRun, pictures: Pictures, place: Path) -> dict[str, Any]:
    """Write ``data/train-*.parquet`` and ``README.md``.

    Raises:
        ValueError: If links are wanted: the images lie inside the parquet files.
        OSError: If a file cannot be written.
    """
    if pictures.link:
        raise ValueError(
            "--link does not go with huggingface, whose images lie inside its parquet files; leave "
            "it out, or export an imagefolder, which load_dataset reads too"
        )
    columns, n = schema(run), 0
    (place / "data").mkdir()
    writer: pq.ParquetWriter | None = None
    written = number = 0
    try:
        for group in _groups(_rows(run, pictures)):
            if writer is None or written >= FILE_BYTES:
                if writer is not None:
                    writer.close()
                writer = pq.ParquetWriter(place / "data" / f"train-{number:05d}.parquet", columns)
                number, written = number + 1, 0
            writer.write_table(pa.Table.from_pylist(group, columns))
            written += sum(len(row["image"]["bytes"]) for row in group)
            n += len(group)
    finally:
        if writer is not None:
            writer.close()
    (place / "README.md").write_text(_card(run, n), encoding="utf-8")
    return {"exported": n}


def _rows(run: LabelledRun, pictures: Pictures) -> Iterator[dict[str, Any]]:
    index = {name: i for i, name in enumerate(run.class_names)}
    probs: Float32[np.ndarray, "n c"] | None = run.probs() if run.has_all_probs else None
    for n, row in enumerate(run.rows()):
        picture = _picture(row, pictures)
        if picture is None:
            continue
        facts = row.facts() | run.provenance
        facts |= {"image": picture, "label": None if row.label is None else index[row.label]}
        if probs is not None:
            facts["probs"] = probs[n]
        yield facts


def _picture(row: ExportRow, pictures: Pictures) -> dict[str, Any] | None:
    data = pictures.read(row)
    if data is None:
        return None
    try:
        name = pictures.stems[row.path] + look(data)[0]
    except ValueError as error:
        pictures.skip(row, str(error))
        return None
    return {"bytes": data, "path": name}


def _groups(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield rows by the hundred, fewer where they are large: a row group is read as a whole."""
    group: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        group.append(row)
        size += len(row["image"]["bytes"])
        if len(group) == GROUP_ROWS or size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _card(run: LabelledRun, n: int) -> str:
    """Return the data card: what the hub reads, then what a person should know."""
    head = {
        "task_categories": ["image-classification"],
        "tags": ["nameonly", "pseudo-labels"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": "train", "path": "data/train-*.parquet"}],
            }
        ],
    }
    who = run.provenance
    classes = "\n".join(f"{i}. `{name}`" for i, name in enumerate(run.class_names))
    return f"""---
{yaml.safe_dump(head, sort_keys=False, allow_unicode=True).strip()}
---

# Images labelled by nameonly

{n:,} images, labelled by a model and not by people. Accuracy was not measured, and probabilities
are the model's own, uncalibrated.

- recipe: `{who["recipe"]}`
- backbone: `{who["backbone"]}`
- nameonly: {who["nameonly"]}

`label` is null where the run abstained. `probability` is that of the label, `runner_up` the most
probable other class, `zero_shot_label` what the class names alone say, `given_label` what was known
before, `path` and `id` the source and a hash of its bytes. Where the run has them: `probs`, the
probabilities of all classes in their order; `confidence`, calibrated; `suspected_unknown`, whether
an image may be of none of the classes. Name a licence before you publish: the images' own counts.

## Classes

{classes}
"""
