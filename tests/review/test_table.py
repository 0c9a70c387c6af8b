"""review.parquet: what it says, when it is written, and that `label --given` reads it."""

import json
import os
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from reviewing import NAMES, small_run

from nameonly.images import open_images
from nameonly.label_tables.reading import match_labels, read_labels
from nameonly.review import job, table
from nameonly.review.decisions import Decisions, Wish
from nameonly.review.labels import read_run
from nameonly.review.table import COLUMNS, TABLE, TableKeeper, counts, write_table


def wish(labels, image, decision="accepted", label=None, seen=0):
    own = labels.name(int(labels.label[image]))
    if decision == "accepted":
        label = own
    return Wish(labels.ids[image], seen, decision, label, own, "uncertain")


@pytest.fixture
def labels(tmp_path):
    return read_run(small_run(tmp_path))


def rows(labels):
    return pq.read_table(labels.folder / TABLE).to_pylist()


def test_a_row_for_every_file_of_every_decided_image(labels):
    with Decisions(labels.folder) as decisions:
        decisions.decide([wish(labels, 0), wish(labels, 5, "corrected", "cat")])
        decisions.decide([wish(labels, 7, "none"), wish(labels, 8), wish(labels, 9, "unsure")])
        decisions.decide([wish(labels, 8, "undone", seen=4)])
        write_table(labels, decisions)
        assert counts(labels, decisions) == {
            "images": 23,
            "decided": 4,
            "accepted": 1,
            "corrected": 1,
            "none": 1,
            "unsure": 1,
            "left_out": 0,
        }
    found = rows(labels)
    assert tuple(found[0]) == COLUMNS
    assert [row["path"] for row in found] == [labels.paths[i] for i in (0, 5, 7, 9, 23)]
    assert found[4] == {**found[0], "path": "zz-copy.png"}
    assert [row["label"] for row in found] == ["ant", "cat", None, None, "ant"]
    assert found[1]["previous_label"] == "bee" and found[1]["decision"] == "corrected"
    assert found[1]["revision"] == 2 and found[1]["decided_at"].endswith("+00:00")
    assert found[1]["probability"] == np.float32(labels.probability[5])
    metadata = json.loads(pq.read_schema(labels.folder / TABLE).metadata[b"nameonly"])
    assert metadata == {"class_names": list(NAMES), "journal": "review.jsonl", "revision": 6}


def test_given_reads_classes_and_neither_none_nor_unsure(labels):
    with Decisions(labels.folder) as decisions:
        wishes = [wish(labels, 0), wish(labels, 5, "corrected", "umbrella")]
        decisions.decide([*wishes, wish(labels, 7, "none"), wish(labels, 9, "unsure")])
        write_table(labels, decisions)
    given = read_labels(labels.folder / TABLE)
    ids = [labels.ids[i] for i in labels.image_of_row]
    found = match_labels(labels.paths, ids, given, NAMES)
    assert found.matched_by == "path"
    expected = np.full(24, -1)
    expected[[0, 23]], expected[5] = 0, 3
    assert found.labels.tolist() == expected.tolist()


def test_given_refuses_a_table_that_a_kill_left_behind_its_journal(labels):
    with Decisions(labels.folder) as decisions:
        decisions.decide([wish(labels, 0)])
        write_table(labels, decisions)
        decisions.decide([wish(labels, 5, "corrected", "cat")])
    with pytest.raises(ValueError, match=r"holds 1 of the 2 decisions .* --finish`"):
        read_labels(labels.folder / TABLE)
    job.finish(labels.folder)
    assert len(read_labels(labels.folder / TABLE)) == 3
    (labels.folder / "review.jsonl").unlink()  # a table that travels alone
    assert len(read_labels(labels.folder / TABLE)) == 3


def test_what_a_labelling_is_given_are_the_classes_decided(labels):
    from nameonly.preparation import given_labels  # what `nameonly label --given` calls
    from nameonly.types import Features, LabelSpace

    with Decisions(labels.folder) as decisions:
        wishes = [wish(labels, 0), wish(labels, 5, "corrected", "umbrella")]
        decisions.decide([*wishes, wish(labels, 7, "none"), wish(labels, 9, "unsure")])
        write_table(labels, decisions)
    images, _ = open_images(labels.source)
    first = images.first_rows()
    values = torch.eye(len(first), 32)
    features = Features(values / values.norm(dim=1, keepdim=True), tuple(first), "toy")
    table = read_labels(labels.folder / TABLE)
    found = given_labels(table, features, images, LabelSpace(NAMES)).tolist()
    named = {labels.ids[0]: 0, labels.ids[5]: 3}
    assert found == [named.get(image_id, -1) for image_id in features.ids]


def test_decisions_of_other_images_or_classes_are_left_out_and_kept_in_the_journal(labels):
    with Decisions(labels.folder) as decisions:
        decisions.decide([Wish("elsewhere", 0, "accepted", "ant", "ant", "uncertain")])
        decisions.decide([wish(labels, 1, "corrected", "zebra"), wish(labels, 2)])
        write_table(labels, decisions)
        assert counts(labels, decisions)["left_out"] == 2
        assert len(decisions.standing()) == 3
    assert [row["id"] for row in rows(labels)] == [labels.ids[2]]


def test_the_keeper_follows_within_a_second_and_at_the_end(labels, monkeypatch):
    monkeypatch.setattr(table, "SECONDS", 0.2)
    with Decisions(labels.folder) as decisions:
        with TableKeeper(labels, decisions) as keeper:
            assert rows(labels) == []
            decisions.decide([wish(labels, 1)])
            keeper.note()
            begun = time.monotonic()
            while not rows(labels):
                assert time.monotonic() - begun < 5
                time.sleep(0.01)
            decisions.decide([wish(labels, 2)])  # too soon after the last
            keeper.note()
        assert len(rows(labels)) == 2


def test_a_table_that_cannot_be_written_is_told_and_tried_again(labels, monkeypatch):
    monkeypatch.setattr(table, "SECONDS", 0.05)
    told = []
    real = table.write_table
    with Decisions(labels.folder) as decisions, TableKeeper(labels, decisions, told.append) as kept:

        def full(*_):
            raise OSError("No space left on device")

        monkeypatch.setattr(table, "write_table", full)
        decisions.decide([wish(labels, 1)])
        kept.note()
        while len(told) < 2:
            time.sleep(0.01)
        monkeypatch.setattr(table, "write_table", real)
        while not rows(labels):
            time.sleep(0.01)
    assert "could not be written" in told[0]


def test_the_old_table_stays_whole_when_writing_fails(labels, monkeypatch):
    with Decisions(labels.folder) as decisions:
        decisions.decide([wish(labels, 1)])
        write_table(labels, decisions)
        decisions.decide([wish(labels, 2)])

        def full(*_):
            raise OSError("No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space"):
                write_table(labels, decisions)
    assert len(rows(labels)) == 1
