"""kill -9 in every stage of a run, then the same again. All commands: benchmarks/faults.py."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nameonly.jobs import label as run
from nameonly.tiny.digits import CLASS_NAMES

# by the clock where a stage computes, else at a file operation: here between two of the files that
# must not be believed alone, or while the finished folder is moved into place
WISHES = (
    ("load", "clock", 0.5),
    ("ingest", "operation", 0.5),
    ("encode", "clock", 0.4),
    ("encode", "operation", 0.6),
    ("text", "operation", 0.6),
    ("adapt", "clock", 0.4),
    ("decide", "operation", 1),
    ("assess", "operation", 1),
    ("write", "operation", 0.5),
    ("report", "operation", 0.7),
    ("after report", "operation", 0.3),
    ("after report", "operation", 0.6),
    ("after report", "operation", 0.9),
)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kill_in_every_stage_then_resume(digits, tmp_path, capsys):
    for path in sorted(digits.iterdir())[48:]:
        path.unlink()
    shutil.copy(digits / "digit-0000.png", digits / "copy.png")
    (digits / "broken.png").write_bytes(b"no image")
    (tmp_path / "inputs").mkdir()
    digits.rename(tmp_path / "inputs" / "photos")
    # over a finished run, whose files are replaced one by one: half of each must not be believed
    run(
        tmp_path / "inputs" / "photos",
        CLASS_NAMES,
        recipe="zero_shot",
        backbone="tiny",
        cache=tmp_path / "cache",
        out=tmp_path / "inputs" / "out",
    )
    label = ["label", "{work}/photos", "-c", ",".join(CLASS_NAMES), "--backbone", "tiny"]
    label += ["--device", "cpu", "--batch-size", "16", "--overwrite", "--out", "{work}/out"]
    scenario = {
        "name": "label",
        "argv": label,
        "same": ["out/labels.parquet"],
        "whole": ["out/run.json", "out/labels.parquet"],
    }
    plan = tmp_path / "plan.json"
    told = {"imports": [], "inputs": str(tmp_path / "inputs"), "scenarios": [scenario]}
    plan.write_text(json.dumps(told | {"wishes": WISHES}))
    got = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "killing.py"), str(plan)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert got.returncode == 0, got.stderr[-3000:]
    kills = json.loads((tmp_path / "kills.json").read_text())["kills"]
    for kill in kills:
        assert kill["killed"] and kill["resumed"], (kill, (tmp_path / "label.log").read_text())
        assert not kill["half_believed"] and kill["wrong"] == [] and kill["left"] == [], kill
    hit = [kill["stage"] for kill in kills]
    with capsys.disabled():
        print("\nkilled and resumed with the same labels, in", ", ".join(hit))
    assert len(hit) == len(WISHES)
