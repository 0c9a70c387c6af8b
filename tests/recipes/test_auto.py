from nameonly import label, load, predict
from nameonly.tiny.digits import CLASS_NAMES


def test_the_run_tells_what_was_tried_and_keeps_the_chosen_classifier(digits, tmp_path):
    settings = {"selection.recipes": ["zero_shot", "up_adapter", "transclip"]}
    run = label(
        digits,
        list(CLASS_NAMES),
        recipe="auto",
        backbone="tiny",
        settings=settings,
        out=tmp_path / "run",
    )
    tried = run.summary["candidates"]
    assert [row["recipe"] for row in tried] == settings["selection.recipes"]
    (chosen,) = (row for row in tried if row["chosen"])
    assert run.summary["settings"]["selection"]["method"] == "silhouette"
    alone = label(digits, list(CLASS_NAMES), recipe=chosen["recipe"], backbone="tiny")
    assert run.table["label"].to_pylist() == alone.table["label"].to_pylist()
    assert load(tmp_path / "run").label_space.class_names == CLASS_NAMES


def test_another_backbone_goes_into_the_classifier(digits, worse_backbone, tmp_path):
    settings = {"selection.recipes": ["transclip"], "selection.backbones": ["tiny"]}
    settings["selection.prompts"] = ["openai7"]
    run = label(
        digits,
        list(CLASS_NAMES),
        recipe="auto",
        backbone=worse_backbone,
        settings=settings,
        out=tmp_path / "run",
    )
    tried = run.summary["candidates"]
    assert len(tried) == 4
    (chosen,) = (row for row in tried if row["chosen"])
    assert chosen["backbone"] == "tiny" == run.summary["backbone"]["name"]
    loaded = load(tmp_path / "run")
    assert loaded.backbone.name == "tiny" and loaded.made["chosen"] == chosen
    prompts = {"prompts.templates": chosen.get("prompts", "single")}
    alone = label(digits, list(CLASS_NAMES), recipe="transclip", backbone="tiny", settings=prompts)
    for column in ("label", "zero_shot_label", "confidence", "unknown_score"):
        assert run.table[column].to_pylist() == alone.table[column].to_pylist()
    assert run.summary["transductive"] and alone.summary["transductive"]
    again = predict(tmp_path / "run", digits)
    assert again.table.num_rows == 120
    page = (tmp_path / "run" / "report.html").read_text()
    assert "What was tried" in page and "on tiny" in page
