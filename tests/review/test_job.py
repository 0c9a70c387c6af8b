"""The command: from the start to Ctrl-C, and what it tells."""

import os
import shutil
import signal
import subprocess
import sys

import httpx
import pyarrow.parquet as pq
import pytest
from reviewing import small_run, write_run
from typer.testing import CliRunner

from nameonly import cli_review
from nameonly.review import job
from nameonly.review.decisions import Decisions, Wish
from nameonly.review.labels import read_run
from nameonly.review.table import TABLE


def test_the_command_serves_until_ctrl_c_and_tells_what_was_decided(tmp_path):
    run = small_run(tmp_path, 12)
    command = [sys.executable, "-m", "nameonly", "review", str(run), "--no-open"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, **pipes) as child:
        link = child.stderr.readline().split()[1]
        body = {"image": 2, "seen": 0, "queue": 0}
        for decision in ({"decision": "label", "class": 3}, {"decision": "none", "image": 3}):
            answer = httpx.post(f"{link}decisions", json={"decisions": [{**body, **decision}]})
            assert answer.status_code == 200
        with pytest.raises(ValueError, match="another `nameonly review` has"):
            job.review(run, job.Wanted(show=False))
        with pytest.raises(ValueError, match="another `nameonly review` has"):
            job.finish(run)
        child.send_signal(signal.SIGINT)
        out, errors = child.communicate(timeout=20)
    assert child.returncode == 0, errors
    assert "Traceback" not in errors
    assert "2 of 11 images reviewed" in out and "corrected 1" in out and "none      1" in out
    assert f"--given {run / TABLE}" in out and "nameonly label" in out
    assert pq.read_table(run / TABLE)["label"].to_pylist() == ["umbrella", None]


def test_finish_brings_the_table_up_to_date_and_needs_no_images(tmp_path):
    run = small_run(tmp_path, 12)
    shutil.rmtree(tmp_path / "images")
    labels = read_run(run)
    with Decisions(run) as decisions:  # and no table, as after a kill
        decisions.decide([Wish(labels.ids[1], 0, "accepted", "bee", "bee", "uncertain")])
    found = job.finish(run)
    assert found["accepted"] == found["decided"] == 1
    assert pq.read_table(run / TABLE)["path"].to_pylist() == ["image-001.png"]


def test_finish_from_the_command_line(tmp_path, capsys):
    import typer

    app = typer.Typer()
    app.command()(cli_review.review)
    run = small_run(tmp_path, 12)
    found = CliRunner().invoke(app, [str(run), "--finish"])
    assert found.exit_code == 0 and "0 of 11 images reviewed" in found.stdout
    assert "next" not in found.stdout  # nothing to learn from yet
    found = CliRunner().invoke(app, [str(run), "--finish", "--json"])
    assert '"decided": 0' in found.stdout


def test_missing_images_are_told_before_a_page_is_shown(tmp_path):
    run = small_run(tmp_path, 12)
    shutil.rmtree(tmp_path / "images")
    with pytest.raises(ValueError, match="name them with --images"):
        job.review(run, job.Wanted(show=False))
    Decisions(run).close()  # nothing stays locked


def test_without_the_extra_the_error_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ValueError, match=r"pip install 'nameonly\[review\]'"):
        job.review(small_run(tmp_path, 12), job.Wanted(show=False))


def test_the_next_command_names_classes_only_where_a_shell_can(tmp_path):
    labels = read_run(write_run(tmp_path / "my run", "ab", "ab", source="my photos"))
    command = job.next_command(labels, labels.folder / TABLE)
    assert "nameonly label 'my photos' --classes ant,bee,cat,umbrella --backbone tiny" in command
    assert command.endswith("my run-reviewed'")
    labels = read_run(write_run(tmp_path / "odd", "ab", "ab", ("a,b", "c", "d", "e")))
    assert "--classes CLASSES" in job.next_command(labels, labels.folder / TABLE)
