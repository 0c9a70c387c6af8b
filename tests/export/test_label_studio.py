import json
from xml.etree import ElementTree

from PIL import Image

from nameonly.export.labelled import read_run

NASTY = ('a "cat" & <dog>', "\u00e9\x07", "b")


def read(place):
    view = ElementTree.parse(place / "config.xml").getroot()
    return json.loads((place / "tasks.json").read_text(encoding="utf-8")), view


def test_every_source_is_a_task_with_its_prediction(new_run, some, exported):
    folder = new_run(some, ("cat", "dog"), abstained=(3,), given=["cat", *[None] * 11])
    place, found = exported(folder, "label-studio")
    tasks, view = read(place)
    assert found["exported"] == 12 == len(tasks)
    for task, row in zip(tasks, read_run(folder).rows(), strict=True):
        about = task["data"]
        root, _, file = about["image"].partition("?d=")
        assert root == "/data/local-files/" and (place / file).read_bytes() == some[row.path]
        assert about["path"] == row.path and about["given_label"] == row.given_label
        assert about["runner_up"] == row.runner_up and about["recipe"] == "zero_shot"
        if row.label is None:
            assert "predictions" not in task
            continue
        (prediction,) = task["predictions"]
        assert prediction["model_version"] == "nameonly 9.8.7 zero_shot tiny"
        assert prediction["score"] == row.probability
        (result,) = prediction["result"]
        assert result["value"] == {"choices": [row.label]} and result["type"] == "choices"
        control = view.find(f".//Choices[@name='{result['from_name']}']")
        assert control.get("toName") == result["to_name"] == view.find("Image").get("name")
    assert view.find("Image").get("value") == "$image"
    assert view.find("Choices").get("choice") == "single"


def test_class_names_are_the_same_in_tasks_and_interface(new_run, some, exported):
    place, _ = exported(new_run(some, NASTY), "label-studio")
    tasks, view = read(place)
    choices = [choice.get("value") for choice in view.iter("Choice")]
    assert choices == [NASTY[0], "\u00e9\N{REPLACEMENT CHARACTER}", "b"]
    chosen = {task["predictions"][0]["result"][0]["value"]["choices"][0] for task in tasks}
    assert chosen <= set(choices) and len(chosen) > 1


def test_browsers_show_every_image(new_run, pictures_of, exported):
    place, _ = exported(new_run({"a.tif": pictures_of(0, "TIFF")}), "label-studio")
    (file,) = (place / "images").iterdir()
    with Image.open(file) as image:
        assert file.name == "a.png" and image.format == "PNG"
