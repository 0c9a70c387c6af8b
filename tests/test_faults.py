"""kill -9 at every file operation of a run and at function calls spread over it, then once more."""

import collections
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from killing import STAGES


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kill_in_every_stage_then_resume(digits, tmp_path, capsys):
    for path in sorted(digits.iterdir())[48:]:
        path.unlink()
    shutil.copy(digits / "digit-0000.png", digits / "copy.png")
    (digits / "broken.png").write_bytes(b"no image")
    program = Path(__file__).parent / "killing.py"
    got = subprocess.run(
        [sys.executable, str(program), str(digits), str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert got.returncode == 0, got.stderr[-3000:]
    kills = json.loads((tmp_path / "kills.json").read_text())
    for kill in kills:
        assert kill["no_half_run_believed"] and kill["resumed"] and kill["same_labels"], (
            kill,
            got.stderr[-3000:],
        )
        assert kill["left"] == [], kill
    hit = collections.Counter(kill["moment"][0] for kill in kills if kill["killed"])
    with capsys.disabled():
        print("\nkills by stage, all resumed with the same labels:", dict(hit))
    assert set(hit) == set(STAGES) and min(hit.values()) >= 3
