"""A folder for each class: what torchvision, timm, Keras and most training scripts read.

``torchvision.datasets.ImageFolder`` numbers the folders in the order of their names, which need not
be the run's order of classes: ``classes.json`` holds both. ``metadata.csv`` is what Hugging Face's
``imagefolder`` reads beside the images. GIFs, which torchvision does not read, become PNGs.
https://docs.pytorch.org/vision/stable/generated/torchvision.datasets.ImageFolder.html
https://huggingface.co/docs/datasets/image_dataset#imagefolder
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nameonly.export.csv_table import write_csv
from nameonly.export.labelled import ExportRow, LabelledRun
from nameonly.export.pictures import OF_TORCHVISION, Pictures, class_folders

FACTS = tuple(ExportRow.__annotations__)


def write_classes(run: LabelledRun, place: Path) -> None:
    """Write ``classes.json``: index, real name and folder of every class.

    Raises:
        OSError: If it cannot be written.
    """
    folders = class_folders(run.class_names)
    classes = [
        {"index": i, "name": name, "folder": folders[name]}
        for i, name in enumerate(run.class_names)
    ]
    text = json.dumps(classes, ensure_ascii=False, indent=2)
    (place / "classes.json").write_text(text + "\n", encoding="utf-8")


def write(run: LabelledRun, pictures: Pictures, place: Path) -> dict[str, Any]:
    """Write ``CLASS/file``, ``metadata.csv`` and ``classes.json``.

    Raises:
        OSError: If a file cannot be written.
    """
    folders, who = class_folders(run.class_names), run.provenance
    columns = ["file_name", *FACTS, *who]
    n_put = 0

    def rows() -> Iterator[list[Any]]:
        nonlocal n_put
        for row in run.labelled().rows():
            assert row.label is not None
            name = pictures.put(row, place / folders[row.label], OF_TORCHVISION)
            if name is not None:
                n_put += 1
                facts = row.facts()
                yield [f"{folders[row.label]}/{name}", *(facts[k] for k in FACTS), *who.values()]

    write_csv(place / "metadata.csv", columns, rows())
    write_classes(run, place)
    return {"exported": n_put}
