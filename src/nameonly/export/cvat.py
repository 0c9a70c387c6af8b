"""Annotations in the format "CVAT for images 1.1": a tag with attributes for each image.

Chosen over "ImageNet 1.0", which CVAT imports too and which holds a label and nothing else. An
attribute is kept by CVAT only where the project's label has it: ``labels.json`` goes into the
project's raw label editor first. Images are numbered in the order of their names, as CVAT does.
https://docs.cvat.ai/docs/manual/advanced/formats/format-cvat/
https://docs.cvat.ai/docs/manual/advanced/xml_format/
"""

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from nameonly.export.labelled import ExportRow, LabelledRun
from nameonly.export.pictures import Pictures, look
from nameonly.images import BadImageError

ATTRIBUTES = (
    *("probability", "runner_up", "margin", "zero_shot_label", "given_label"),
    *("confidence", "unknown_score", "suspected_unknown"),
    *("path", "id", "recipe", "backbone", "nameonly"),
)
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def xml_text(text: str) -> str:
    """Return a text without characters that XML cannot hold, such as a bell in a file name."""
    return _NO_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def labels(run: LabelledRun) -> list[dict[str, Any]]:
    """Return the labels as CVAT's raw editor takes them."""
    attributes = [
        {
            "name": name,
            "mutable": False,
            "input_type": "text",
            "default_value": "",
            "values": [""],
        }
        for name in ATTRIBUTES
    ]
    return [
        {"name": xml_text(name), "type": "tag", "attributes": attributes}
        for name in run.class_names
    ]


def write(run: LabelledRun, pictures: Pictures, place: Path) -> dict[str, Any]:
    """Write ``annotations.xml``, ``images/`` and ``labels.json``.

    Raises:
        OSError: If a file cannot be written.
    """
    (place / "images").mkdir()
    found: dict[str, Element] = {}
    for row in run.rows():
        data = pictures.read(row)
        if data is None:
            continue
        try:
            _, width, height = look(data)
        except BadImageError as error:
            pictures.skip(row, str(error))
            continue
        name = pictures.place(row, data, place / "images")
        if name is not None:
            found[name] = _image(row, run, name, (width, height))
    root = Element("annotations")
    SubElement(root, "version").text = "1.1"
    root.append(_meta(run, len(found)))
    for number, name in enumerate(sorted(found)):
        found[name].set("id", str(number))
        root.append(found[name])
    ElementTree.indent(root)
    tree = ElementTree.ElementTree(root)
    tree.write(place / "annotations.xml", encoding="utf-8", xml_declaration=True)
    text = json.dumps(labels(run), ensure_ascii=False, indent=2)
    (place / "labels.json").write_text(text + "\n", encoding="utf-8")
    return {"exported": len(found)}


def _image(row: ExportRow, run: LabelledRun, name: str, size: tuple[int, int]) -> Element:
    image = Element("image", id="", name=name, width=str(size[0]), height=str(size[1]))
    if row.label is not None:
        tag = SubElement(image, "tag", label=xml_text(row.label), source="auto")
        facts = row.facts() | run.provenance
        for key in ATTRIBUTES:
            if facts[key] is not None:
                value = facts[key]
                text = f"{value:.6f}" if isinstance(value, float) else xml_text(str(value))
                SubElement(tag, "attribute", name=key).text = text
    return image


def _meta(run: LabelledRun, n: int) -> Element:
    meta = Element("meta")
    task = SubElement(meta, "task")
    SubElement(task, "name").text = run.model_version
    SubElement(task, "size").text = str(n)
    SubElement(task, "mode").text = "annotation"
    listed = SubElement(task, "labels")
    for label in labels(run):
        one = SubElement(listed, "label")
        SubElement(one, "name").text = label["name"]
        SubElement(one, "type").text = "tag"
        attributes = SubElement(one, "attributes")
        for fields in label["attributes"]:
            attribute = SubElement(attributes, "attribute")
            for key in ("name", "mutable", "input_type", "default_value"):
                SubElement(attribute, key).text = str(fields[key])
            SubElement(attribute, "values")
    return meta
