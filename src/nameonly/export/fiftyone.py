"""A ``FiftyOneImageClassificationDataset``: ``data/`` and ``labels.json``.

FiftyOne's format holds one label for each image, with its confidence and attributes of its own; a
source without label is an image without. Chosen over ``FiftyOneDataset``, whose files change with
FiftyOne's database. TIFFs, which no browser shows, become PNGs.
https://docs.voxel51.com/user_guide/import_datasets.html#fiftyoneimageclassificationdataset
"""

import json
from pathlib import Path
from typing import Any

from nameonly.export.labelled import LabelledRun
from nameonly.export.pictures import OF_BROWSERS, Pictures


def write(run: LabelledRun, pictures: Pictures, place: Path) -> dict[str, Any]:
    """Write ``data/`` and ``labels.json``.

    Raises:
        OSError: If a file cannot be written.
    """
    index = {name: i for i, name in enumerate(run.class_names)}
    labels: dict[str, dict[str, Any] | None] = {}
    (place / "data").mkdir()
    for row in run.rows():
        file = pictures.put(row, place / "data", OF_BROWSERS)
        if file is None:
            continue
        facts = {key: value for key, value in row.facts().items() if value is not None}
        # a Classification has an id and a confidence of its own
        facts["image_id"], facts["source"] = facts.pop("id"), facts.pop("path")
        if "confidence" in facts:
            facts["calibrated_confidence"] = facts.pop("confidence")
        label, confidence = facts.pop("label", None), facts.pop("probability")
        labels[file.rpartition(".")[0]] = (
            None
            if label is None
            else {
                "label": index[label],
                "confidence": confidence,
                "attributes": facts | run.provenance,
            }
        )
    text = json.dumps({"classes": list(run.class_names), "labels": labels}, ensure_ascii=False)
    (place / "labels.json").write_text(text + "\n", encoding="utf-8")
    return {"exported": len(labels)}
