import json

from nameonly.export.labelled import read_run


def test_labels_name_files_classes_and_confidences(new_run, some, pictures_of, exported):
    files = {**some, "a/00.jpg": pictures_of(77, "JPEG")}  # the stem of another
    folder = new_run(files, ("dog", "cat"), abstained=(4,))
    place, found = exported(folder, "fiftyone")
    content = json.loads((place / "labels.json").read_text())
    stems = {path.stem: path for path in (place / "data").iterdir()}
    assert set(stems) == set(content["labels"]) and len(stems) == 13 == found["exported"]
    assert content["classes"] == ["dog", "cat"]
    by_bytes = {data: path for path, data in files.items()}
    rows = {row.path: row for row in read_run(folder).rows()}
    for stem, target in content["labels"].items():
        row = rows[by_bytes[stems[stem].read_bytes()]]
        if row.label is None:
            assert target is None
            continue
        assert content["classes"][target["label"]] == row.label
        assert target["confidence"] == row.probability
        about = target["attributes"]
        assert (about["source"], about["image_id"]) == (row.path, row.id)
        assert about["runner_up"] == row.runner_up and about["nameonly"] == "9.8.7"
        assert about["calibrated_confidence"] == row.confidence
        # a Classification has fields of its own by these names
        assert not {"id", "label", "confidence", "tags", "logits"} & set(about)
        assert "given_label" not in about
