"""The command ``export``, on a run that ``label`` wrote."""

import csv
import errno
import json
import shutil
import signal
import subprocess
import sys
from functools import partial

import numpy as np
import pyarrow.parquet as pq
import pytest
from torchvision.datasets import ImageFolder

from nameonly.export import formats
from nameonly.export.pictures import Pictures
from nameonly.jobs import label, predict
from nameonly.tiny.digits import CLASS_NAMES

ALL = [*formats.TABLES, *formats.WITH_IMAGES]


@pytest.fixture(scope="module")
def run(all_digits, tmp_path_factory):
    """A folder that ``label`` wrote, some labels given, some abstained."""
    folder = tmp_path_factory.mktemp("labelled")
    (folder / "photos").mkdir()
    for path in sorted(all_digits[0].iterdir())[:60]:
        shutil.copy(path, folder / "photos" / path.name)
    label(
        folder / "photos",
        CLASS_NAMES,
        recipe="tip_adapter",
        backbone="tiny",
        settings={"decisions": "abstain", "decisions.threshold": 0.9},
        given={f"digit-{i:04d}.png": "three" for i in range(3)},
        cache=folder / "cache",
        out=folder / "run",
    )
    return folder / "run"


@pytest.fixture
def export(nameonly):
    return partial(nameonly, "export")


@pytest.mark.parametrize("to", ALL)
def test_every_format_of_a_real_run(to, run, export, tmp_path):
    out = tmp_path / "out"
    code, said, errors = export(run, "--to", to, "--out", out, "--json")
    assert code == 0, errors
    found = json.loads(said)
    assert found.pop("out") == str(out)
    assert found == json.loads((out / "export.json").read_text())
    table = pq.read_table(run / "labels.parquet")
    abstained = table["label"].null_count
    assert 0 < abstained < 60 and found["abstained"] == abstained and found["sources"] == 60
    tables = to in ("csv", "parquet", "huggingface", "label-studio", "fiftyone", "cvat")
    # cleanlab's labels are the given ones where there are any
    known = to == "cleanlab" and sum(
        name is None and given is not None
        for name, given in zip(
            table["label"].to_pylist(), table["given_label"].to_pylist(), strict=True
        )
    )
    assert found["exported"] == 60 - (0 if tables else abstained) + known
    assert found["unreadable"] == [] and found["recipe"] == "tip_adapter"
    assert found["backbone"] == "tiny" and found["nameonly"]


def test_a_run_of_predict_is_exported_too(run, export, tmp_path):
    predict(run, run.parent / "photos", cache=run.parent / "cache", out=tmp_path / "predicted")
    code, said, errors = export(tmp_path / "predicted", "--to", "csv", "--out", tmp_path / "out")
    assert code == 0 and "60 of 60 sources exported as csv" in said, errors
    with (tmp_path / "out" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 60 and {row["backbone"] for row in rows} == {"tiny"}


def test_a_person_is_told_what_is_left_out(run, export, tmp_path):
    photos = shutil.copytree(run.parent / "photos", tmp_path / "moved")
    table = pq.read_table(run / "labels.parquet").to_pylist()
    least = sorted(row["confidence"] for row in table)[10]
    labelled = [row["path"] for row in table if row["label"] and row["confidence"] >= least]
    (photos / labelled[0]).unlink()
    (photos / labelled[1]).write_bytes(b"no image")
    command = [run, "--to", "imagefolder", "--images", photos, "--min-confidence", least]
    code, said, _ = export(*command, "--out", tmp_path / "out")
    abstained = sum(row["label"] is None and row["confidence"] >= least for row in table)
    assert code == 0 and len(ImageFolder(tmp_path / "out")) == len(labelled) - 2
    assert said.splitlines() == [
        f"{len(labelled) - 2} of 60 sources exported as imagefolder",
        f"10 are less certain than {least:g}",
        f"{abstained} have no label, since the run abstained",
        f"2 could not be read: see {tmp_path / 'out'}/export.json",
        f"  {labelled[0]}: not found",
        f"  {labelled[1]}: its bytes have changed since it was labelled",
        f"export  {tmp_path / 'out'}",
    ]


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "stopped"),
        (OSError(errno.ENOSPC, "disk full"), 2, "error: [Errno 28] disk full"),
    ],
)
def test_an_export_that_is_stopped_leaves_nothing(
    error, code, words, run, export, tmp_path, monkeypatch
):
    real, calls = Pictures.put, []

    def stop(self, row, *arguments):
        calls.append(row)
        if len(calls) == 5:
            raise error
        return real(self, row, *arguments)

    monkeypatch.setattr(Pictures, "put", stop)
    got, _, errors = export(run, "--to", "imagefolder", "--out", tmp_path / "x" / "out")
    assert got == code and len(calls) == 5 and words in errors
    assert list((tmp_path / "x").iterdir()) == []
    monkeypatch.setattr(Pictures, "put", real)
    (tmp_path / "x" / "out").mkdir()  # an empty folder will do
    assert export(run, "--to", "imagefolder", "--out", tmp_path / "x" / "out")[0] == 0
    assert [p.name for p in (tmp_path / "x").iterdir()] == ["out"]


KILLED = """
import os, signal, sys
from nameonly import cli
from nameonly.export import imagefolder
def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)
imagefolder.write_classes = kill
cli.main()
"""


@pytest.mark.slow
def test_an_export_that_is_killed_is_not_believed_finished(run, export, tmp_path):
    out = tmp_path / "x" / "out"
    command = ["export", str(run), "--to", "imagefolder", "--out", str(out)]
    done = subprocess.run([sys.executable, "-c", KILLED, *command], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not out.exists()
    assert [p.name for p in out.parent.iterdir()] == [".out.nameonly-partial"]
    assert export(*command[1:])[0] == 0
    assert len(ImageFolder(out)) > 20 and [p.name for p in out.parent.iterdir()] == ["out"]


def test_links_and_the_share_of_val(run, export, tmp_path):
    command = ["--to", "ultralytics", "--val-share", 0.5, "--link", "--json"]
    code, said, errors = export(run, *command, "--out", tmp_path / "out")
    assert code == 0, errors
    found = json.loads(said)
    assert 10 < found["val"] < 45 and found["train"] + found["val"] == found["exported"]
    assert all(p.is_symlink() for p in (tmp_path / "out").rglob("*.png"))


def test_cleanlab_judges_given_labels(run, export, tmp_path):
    assert export(run, "--to", "cleanlab", "--out", tmp_path / "out")[0] == 0
    labels, probs = (np.load(tmp_path / "out" / f"{n}.npy") for n in ("labels", "pred_probs"))
    assert labels[:3].tolist() == [3, 3, 3] and np.allclose(probs.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("{t}", "--to", "csv", "--out", "{t}/x"), "holds no run"),
        (("{run}", "--to", "csv", "--out", "{t}/full"), "is there and not empty"),
        (("{run}", "--to", "csv", "--out", "{t}/full/file"), "is there and not empty"),
        (("{run}", "--to", "csv", "--link", "--out", "{t}/x"), "csv holds no images"),
        (("{run}", "--to", "cvat", "--val-share", "0.2", "--out", "{t}/x"), "ultralytics"),
        (("{run}", "--to", "imagefolder", "--images", "{t}/no", "--out", "{t}/x"), "--images"),
        (("{run}", "--to", "huggingface", "--link", "--out", "{t}/x"), "--link does not go"),
    ],
)
def test_bad_input_is_one_line(run, export, tmp_path, arguments, words):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    code, said, errors = export(*(a.format(run=run, t=tmp_path) for a in arguments))
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert code == 2 and said == "" and len(lines) == 1 and words in lines[0]
    assert not (tmp_path / "x").exists()
