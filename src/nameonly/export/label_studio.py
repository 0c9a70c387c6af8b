"""Tasks with predictions for Label Studio's image classification.

``tasks.json`` is Label Studio's own JSON; a label is a prediction, which a person accepts or mends.
Images are copied beside it and named by Label Studio's URL of local files, relative to the export,
which must be its document root. TIFFs, which no browser shows, become PNGs.
https://labelstud.io/guide/predictions
https://labelstud.io/guide/storage#Local-storage
https://labelstud.io/templates/image_classification
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from nameonly.export.cvat import xml_text
from nameonly.export.labelled import ExportRow, LabelledRun
from nameonly.export.pictures import OF_BROWSERS, Pictures

URL = "/data/local-files/?d=images/"


def config(run: LabelledRun) -> str:
    """Return the labelling interface: one image, one choice of all classes."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name="image", value="$image")
    choices = {"name": "label", "toName": "image", "choice": "single", "showInline": "true"}
    choice = ElementTree.SubElement(view, "Choices", choices)
    for name in run.class_names:
        ElementTree.SubElement(choice, "Choice", value=xml_text(name))
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def task(row: ExportRow, file: str, run: LabelledRun) -> dict[str, Any]:
    """Return the task of a source; one without label has no prediction."""
    facts = row.facts()
    label, score = facts.pop("label"), facts["probability"]
    about = {"image": URL + file, **facts, **run.provenance}
    if label is None:
        return {"data": about}
    result = {
        "from_name": "label",
        "to_name": "image",
        "type": "choices",
        "value": {"choices": [xml_text(label)]},
    }
    prediction = {"model_version": run.model_version, "score": score, "result": [result]}
    return {"data": about, "predictions": [prediction]}


def write(run: LabelledRun, pictures: Pictures, place: Path) -> dict[str, Any]:
    """Write ``tasks.json``, ``config.xml`` and ``images/``.

    Raises:
        OSError: If a file cannot be written.
    """
    (place / "images").mkdir()

    def tasks() -> Iterator[dict[str, Any]]:
        for row in run.rows():
            file = pictures.put(row, place / "images", OF_BROWSERS)
            if file is not None:
                yield task(row, file, run)

    n = write_json_list(place / "tasks.json", tasks())
    (place / "config.xml").write_text(config(run), encoding="utf-8")
    return {"exported": n}


def write_json_list(path: Path, items: Iterator[dict[str, Any]]) -> int:
    """Write a list as JSON, one item a line, without holding it in memory.

    Returns:
        How many items there are.

    Raises:
        OSError: If the file cannot be written.
    """
    n = 0
    with path.open("w", encoding="utf-8") as file:
        file.write("[")
        for n, item in enumerate(items, 1):
            file.write(",\n" if n > 1 else "\n")
            json.dump(item, file, ensure_ascii=False)
        file.write("\n]\n")
    return n
