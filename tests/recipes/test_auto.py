from nameonly import label, load
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
