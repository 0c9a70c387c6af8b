import json
from xml.etree import ElementTree

import pytest
from PIL import Image

from nameonly.export.cvat import xml_text
from nameonly.export.labelled import read_run

NASTY = ('<b> & "c"', "caf\u00e9")


@pytest.fixture
def read(exported):
    def export(folder):
        place, found = exported(folder, "cvat")
        root = ElementTree.parse(place / "annotations.xml").getroot()
        return place, root, json.loads((place / "labels.json").read_text()), found

    return export


def test_every_image_has_its_tag_with_attributes(new_run, some, read):
    folder = new_run(some, NASTY, abstained=(4,))
    place, root, _, found = read(folder)
    assert root.tag == "annotations" and root.find("version").text == "1.1"
    images = root.findall("image")
    assert len(images) == 12 == found["exported"]
    assert [image.get("id") for image in images] == [str(i) for i in range(12)]
    names = [image.get("name") for image in images]
    assert names == sorted(names)
    rows = {row.path: row for row in read_run(folder).rows()}
    for image in images:
        row = rows[image.get("name")]
        with Image.open(place / "images" / image.get("name")) as shown:
            assert shown.size == (int(image.get("width")), int(image.get("height")))
        if row.label is None:
            assert len(image) == 0
            continue
        (tag,) = image
        assert tag.get("label") == row.label
        about = {a.get("name"): a.text for a in tag}
        assert float(about["probability"]) == pytest.approx(row.probability, abs=1e-6)
        assert about["runner_up"] == row.runner_up and about["path"] == row.path
        assert about["suspected_unknown"] == str(row.suspected_unknown)
        assert about["recipe"] == "zero_shot" and "given_label" not in about


def test_labels_declare_every_attribute_that_a_tag_has(new_run, some, read):
    _, root, labels, _ = read(new_run(some, NASTY, given=[NASTY[0], *[None] * 11]))
    declared = {label["name"]: {a["name"] for a in label["attributes"]} for label in labels}
    assert set(declared) == set(NASTY) and {label["type"] for label in labels} == {"tag"}
    for tag in root.iter("tag"):
        assert {a.get("name") for a in tag} <= declared[tag.get("label")]
    for label in root.find("meta").iter("label"):
        names = {a.find("name").text for a in label.iter("attribute")}
        assert names == declared[label.find("name").text]


def test_a_name_that_xml_cannot_hold_spoils_nothing(new_run, pictures_of, read):
    _, root, _, _ = read(new_run({"bell\x07.png": pictures_of(0)}, ("a\x01", "b\x01")))
    (image,) = root.findall("image")
    assert image.get("name") == "bell.png"
    assert image.find("tag").get("label") in (
        "a\N{REPLACEMENT CHARACTER}",
        "b\N{REPLACEMENT CHARACTER}",
    )
    assert xml_text("a\tb\n\U0001f600") == "a\tb\n\U0001f600"


def test_images_are_numbered_by_their_names_as_cvat_does(new_run, pictures_of, read):
    _, root, _, _ = read(new_run({"a/z.png": pictures_of(0), "b/y.png": pictures_of(1)}))
    assert [(i.get("id"), i.get("name")) for i in root.findall("image")] == [
        ("0", "y.png"),
        ("1", "z.png"),
    ]
