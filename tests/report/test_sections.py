from xml.etree import ElementTree

import numpy as np

from nameonly.report import sections
from nameonly.report.answers import ClassPair, rank_answers


def test_tiles_add_up():
    run = {"counts": {"pseudo_labels": {"cat": 16, "dog": 0, "eel": None}}}
    labels = np.array([0, 1, -1, 0])
    tiles = sections.count_tiles(run, labels, [("x", "bad")], [("a", "b", "c"), ("d", "e")])
    assert {name: number for number, name, _ in tiles} == {
        "sources": "4",
        "labelled": "3",
        "abstained": "1",
        "pseudo-labels": "16",
        "duplicates": "3",
        "quarantined": "1",
    }
    assert "1 different image" in [why for _, _, why in tiles]
    assert "in 1 class" in next(why for _, name, why in tiles if name == "pseudo-labels")


def test_tiles_leave_out_pseudo_labels_that_the_run_did_not_count():
    for run in ({}, {"counts": None}, {"counts": {"pseudo_labels": 12}}):
        names = [name for _, name, _ in sections.count_tiles(run, np.array([0]), [], [])]
        assert "pseudo-labels" not in names


def test_class_histogram_counts_every_image_once():
    labels, zero_shot = np.array([1, 1, 0, -1, 1]), np.array([1, 0, 0, 0, 0])
    histogram = sections.class_histogram(("cat", "dog", "eel"), labels, zero_shot)
    assert [(row.name, row.n_images, row.n_zero_shot) for row in histogram.rows] == [
        ("dog", 3, 1),
        ("cat", 1, 4),
        ("eel", 0, 0),
        ("no answer (abstained)", 1, 0),
    ]
    assert (histogram.n_others, histogram.n_other_images, histogram.n_empty) == (0, 0, 1)
    cat = ElementTree.fromstring(histogram.rows[1].bar)
    assert cat.find("rect").get("width") == "25.00%"
    assert cat.find("line").get("x1") == "99.80%"


def test_class_histogram_without_zero_shot_has_no_markers():
    labels = np.array([0, 1, -1])
    histogram = sections.class_histogram(("cat", "dog"), labels, np.full(3, -1))
    assert all("<line" not in row.bar for row in histogram.rows)


def test_class_histogram_says_how_much_it_left_out():
    n_classes = sections.MAX_CLASSES + 10
    labels = np.concatenate([np.arange(n_classes), np.arange(sections.MAX_CLASSES)])
    names = tuple(str(i) for i in range(n_classes + 5))
    histogram = sections.class_histogram(names, labels, labels)
    assert len(histogram.rows) == sections.MAX_CLASSES
    assert (histogram.n_others, histogram.n_other_images, histogram.n_empty) == (15, 10, 5)
    assert sum(row.n_images for row in histogram.rows) + histogram.n_other_images == len(labels)


def test_confidence_counts_labelled_and_abstained_apart():
    probs = np.array([[0.9, 0.1], [0.45, 0.55], [0.2, 0.8]], dtype=np.float32)
    labels = np.array([0, -1, 0])
    confidence = sections.confidence(rank_answers(probs, labels), labels < 0)
    assert confidence.bins == (
        ("0.20 to 0.25", "1", "0"),
        ("0.55 to 0.60", "0", "1"),
        ("0.90 to 0.95", "1", "0"),
    )
    assert confidence.median == "0.55"
    assert confidence.n_below_half == 1
    assert "3 images in 20 bins" in confidence.figure


def test_tables_of_pairs_are_short_and_say_so():
    pairs = [ClassPair(0, i, 100 - i) for i in range(1, 60)]
    names = [f"class {i}" for i in range(60)]
    changed = sections.changed_table(pairs, names)
    assert changed.rows[0] == ("class 0", "class 1", "99")
    assert len(changed.rows) + changed.n_left_out == 59
    assert len(changed.rows) == sections.MAX_PAIRS
    answers = rank_answers(np.eye(60, dtype=np.float32), np.arange(60))
    confusable = sections.confusable_table(pairs, answers, names)
    assert confusable.rows[1] == ("class 0", "class 2", "98", "2")
    assert confusable.n_left_out == changed.n_left_out


def test_quarantine_and_duplicates_are_bounded():
    quarantine = sections.quarantine_table([(f"{i}" * 400, "bad " * 400) for i in range(500)])
    assert (len(quarantine.rows), quarantine.n_left_out) == (200, 300)
    assert max(len(cell) for row in quarantine.rows for cell in row) <= sections.TEXT_LENGTH
    groups = sections.duplicate_groups([tuple(f"{i}/{j}" for j in range(9)) for i in range(150)])
    assert (len(groups.rows), groups.n_left_out) == (100, 50)
    assert groups.rows[0] == ("0/0", "0/1", "0/2", "0/3", "0/4", "and 4 more")
    assert sections.duplicate_groups([("a", "b")]).rows == (("a", "b"),)


def test_setting_tables_hold_what_is_known(digits_report):
    run = {**digits_report.run, "limit": 50, "note": None, "classes": ["zero"]}
    tables = dict(sections.setting_tables(run))
    assert ("limit", "50") in tables["Run"].rows
    assert not {"classes", "title", "nameonly", "note"} & {name for name, _ in tables["Run"].rows}
    assert list(tables) == ["Run", "Settings", "Backbone", "Timings", "Versions"]
    assert ("pseudo_labels.images_per_class", "16") in tables["Settings"].rows
    assert tables["Timings"].rows[-1] == ("total", "1 min 18 s")
    assert tables["Versions"].rows == (("nameonly", "0.1.0"), ("torch", "2.9.1"))


def test_setting_tables_are_lenient():
    assert sections.setting_tables({}) == []
    odd = {"settings": "default", "timings": {"encode": "fast", "cached": True}, "versions": None}
    tables = dict(sections.setting_tables(odd))
    assert tables["Run"].rows == (("settings", "default"),)
    assert tables["Timings"].rows == (("encode", "fast"), ("cached", "yes"))
    assert len(tables) == 2


def test_endless_settings_are_cut():
    run = {"settings": {f"name {i}": "x" * 9999 for i in range(999)}}
    ((_, table),) = sections.setting_tables(run)
    assert (len(table.rows), table.n_left_out) == (sections.MAX_ROWS, 799)
    assert max(len(value) for _, value in table.rows) < 400
