import multiprocessing
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from nameonly import outputs
from nameonly.types import Predictions


def finished(folder):
    folder.mkdir()
    (folder / "run.json").write_text("{}")
    (folder / "labels.parquet").write_text("old")
    (folder / "review.parquet").write_text("a person's work")
    return folder


def test_a_folder_with_other_files_is_never_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="holds other files"):
            outputs.check_free(tmp_path, overwrite)


def test_a_finished_run_needs_overwrite(tmp_path):
    out = finished(tmp_path / "out")
    with pytest.raises(ValueError, match="--overwrite"):
        outputs.check_free(out, False)
    outputs.check_free(out, True)
    outputs.check_free(tmp_path / "new", False)
    (tmp_path / "empty").mkdir()
    outputs.check_free(tmp_path / "empty", False)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="is a file"):
        outputs.check_free(tmp_path / "file", True)


def test_a_new_folder_appears_whole_or_not_at_all(tmp_path):
    out = tmp_path / "deep" / "out"
    with pytest.raises(RuntimeError), outputs.staging(out) as folder:
        (folder / "labels.parquet").write_text("half")
        raise RuntimeError
    assert not out.exists() and os.listdir(out.parent) == []
    with outputs.staging(out) as folder:
        (folder / "run.json").write_text("{}")
        assert not out.exists()
    assert os.listdir(out) == ["run.json"] and os.listdir(out.parent) == ["out"]


def test_overwriting_replaces_our_files_and_keeps_the_users(tmp_path):
    out = finished(tmp_path / "out")
    (out / "classifier").mkdir()
    (out / "classifier" / "old.json").write_text("old")
    with outputs.staging(out, overwrite=True) as folder:
        (folder / "run.json").write_text("new")
        (folder / "labels.parquet").write_text("new")
        (folder / "classifier").mkdir()
    assert (out / "review.parquet").read_text() == "a person's work"
    assert (out / "labels.parquet").read_text() == (out / "run.json").read_text() == "new"
    assert os.listdir(out / "classifier") == []


def test_a_replacement_that_was_killed_can_be_done_again(tmp_path):
    out = finished(tmp_path / "out")
    (out / "run.json").rename(out / outputs.REPLACED)
    outputs.check_free(out, False)
    with outputs.staging(out) as folder:
        (folder / "run.json").write_text("new")
    assert not (out / outputs.REPLACED).exists() and (out / "run.json").read_text() == "new"


def test_what_a_user_puts_there_meanwhile_is_not_overwritten(tmp_path):
    out = tmp_path / "out"
    with (
        pytest.raises(OSError, match="cannot move the finished run from"),
        outputs.staging(out) as f,
    ):
        (f / "run.json").write_text("new")
        out.mkdir()
        (out / "labels.csv").write_text("mine")
    assert (out / "labels.csv").read_text() == "mine" and os.listdir(out) == ["labels.csv"]
    (kept,) = (p for p in tmp_path.iterdir() if p.name.startswith(".out"))
    assert (kept / "run.json").read_text() == "new"


def test_links_stay_links_and_lead_to_their_folder(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    for text in ("one", "two"):
        with outputs.staging(link, overwrite=True) as folder:
            (folder / "run.json").write_text(text)
            (folder / "classifier").mkdir()
    assert link.is_symlink() and (real / "run.json").read_text() == "two"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine.txt").write_text("mine")
    (real / "classifier").rmdir()
    (real / "classifier").symlink_to(elsewhere)
    with outputs.staging(real, overwrite=True) as folder:
        (folder / "run.json").write_text("three")
        (folder / "classifier").mkdir()
    assert (real / "classifier").is_dir() and not (real / "classifier").is_symlink()
    assert (elsewhere / "mine.txt").read_text() == "mine"


def hold(out, ready, go):
    with outputs.staging(out):
        ready.set()
        go.wait(60)


def test_two_runs_do_not_write_one_folder(tmp_path):
    context = multiprocessing.get_context("fork")
    ready, go = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path / "out", ready, go))
    other.start()
    assert ready.wait(60)
    with (
        pytest.raises(ValueError, match="another run is writing"),
        outputs.staging(tmp_path / "out"),
    ):
        pass
    go.set()
    other.join()
    assert other.exitcode == 0


def test_quarantine_without_rows_has_its_columns(tmp_path):
    outputs.write_quarantine(tmp_path, [])
    table = pq.read_table(tmp_path / "quarantine.parquet")
    assert table.column_names == ["path", "reason"] and len(table) == 0


def test_staging_itself_refuses_what_must_not_be_written(tmp_path):
    """The library's verbs come here without the command line's earlier look."""
    out = finished(tmp_path / "out")
    with pytest.raises(ValueError, match="--overwrite"), outputs.staging(out):
        raise AssertionError("the folder must be refused before any work")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with (
        pytest.raises(ValueError, match="holds other files"),
        outputs.staging(tmp_path / "mine", True),
    ):
        raise AssertionError("the folder must be refused before any work")
    assert (out / "labels.parquet").read_text() == "old"


def label_rows(n, c):
    generator = torch.Generator().manual_seed(0)
    probs = torch.randn(n, c, generator=generator).softmax(dim=1)
    labels = probs.argmax(dim=1)
    labels[::5] = -1
    ids = tuple(f"{i:032x}" for i in range(n))
    return outputs.LabelRows(
        tuple(f"klaß {j}" for j in range(c)),
        "up_adapter",
        tuple(f'folder/"{i}", é.jpg' for i in range(n)),
        Predictions(probs, labels, ids),
        probs.amax(dim=1) / 2,
        labels.roll(1).clamp(min=0),
        probs[:, 0],
        probs[:, 0] > 0.3,
        labels.roll(2),
    )


@pytest.mark.parametrize("c", [3, outputs.MAX_PROBABILITY_COLUMNS + 1])
def test_files_are_the_same_however_few_rows_are_held(tmp_path, c):
    rows = label_rows(50, c)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder, size in ((whole, 100), (parts, 7)):
        folder.mkdir()
        outputs.write_labels(folder, rows, size)
    assert (whole / "labels.csv").read_bytes() == (parts / "labels.csv").read_bytes()
    a, b = (pq.read_table(folder / outputs.LABELS) for folder in (whole, parts))
    assert a.equals(b, check_metadata=True) and a.to_pylist() == rows.table().to_pylist()
    assert rows.table().schema.metadata[b"nameonly"] == a.schema.metadata[b"nameonly"]
    assert pq.ParquetFile(whole / outputs.LABELS).num_row_groups == 1
    assert pq.ParquetFile(parts / outputs.LABELS).num_row_groups == 8
    assert [len(batch) for batch in rows.batches(20)] == [20, 20, 10]


def test_more_classes_are_fewer_rows_at_once(monkeypatch):
    monkeypatch.setattr(outputs, "VALUES_AT_ONCE", 60)
    assert [len(batch) for batch in label_rows(50, 3).batches()] == [20, 20, 10]
    assert len(list(label_rows(3, 101).batches())) == 3


def test_rows_by_hand():
    probs = torch.tensor([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3]])
    found = Predictions(probs, torch.tensor([2, -1]), ("x", "y"))
    rows = outputs.LabelRows(("a", "b", "c"), "zero_shot", ("1", "2"), found, probs[:, 0])
    first, second = rows.table().to_pylist()
    assert (first["label"], first["runner_up"]) == ("c", "a")
    assert first["probability"] == pytest.approx(0.1) and first["margin"] == pytest.approx(-0.6)
    assert (second["label"], second["runner_up"], second["zero_shot_label"]) == (None, "c", None)
    assert second["p_b"] == pytest.approx(0.5) and "unknown_score" not in second


def test_without_a_row_the_files_have_their_columns(tmp_path):
    rows = label_rows(0, 3)
    outputs.write_labels(tmp_path, rows)
    table = pq.read_table(tmp_path / outputs.LABELS)
    assert table.column_names[-3:] == ["p_klaß 0", "p_klaß 1", "p_klaß 2"] and len(table) == 0
    assert table.schema.field("label").type == pa.string()
    assert (tmp_path / "labels.csv").read_text().count("\n") == 1
