import json

import pytest

from nameonly.bench.folder import RunFolder
from nameonly.bench.rows import COLUMNS


def test_a_run_is_kept_and_found(tmp_path):
    folder = RunFolder(tmp_path / "out")
    assert folder.plan_text() is None and folder.finished() == {}
    assert not (tmp_path / "out").exists()  # looking writes nothing
    with folder.held():
        folder.keep("abc", {"seed": 1}, {"method": "m", "accuracy": 0.5})
        folder.write("plan.toml", "title = 'T'")
    (row,) = folder.finished().values()
    assert row["accuracy"] == 0.5 and set(row) == set(COLUMNS) and row["error"] is None
    assert json.loads((tmp_path / "out/runs/abc.json").read_text())["facts"] == {"seed": 1}
    assert folder.plan_text() == "title = 'T'"
    assert not list((tmp_path / "out").rglob("*.partial"))


def test_half_a_file_is_no_run(tmp_path):
    folder = RunFolder(tmp_path / "out")
    with folder.held():
        for name, text in (("cut", '{"row": {"met'), ("list", "[]"), ("other", '{"facts": {}}')):
            (tmp_path / "out/runs" / f"{name}.json").write_text(text)
        (tmp_path / "out/runs/.abc.json.partial").write_text('{"row": {}}')
    assert folder.finished() == {}


def test_other_folders_are_refused(tmp_path):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(ValueError, match=r"holds other files than a benchmark's, 'photo.jpg'"):
        RunFolder(tmp_path)
    with pytest.raises(ValueError, match="is a file"):
        RunFolder(tmp_path / "photo.jpg")
    (tmp_path / "plan.toml").touch()
    RunFolder(tmp_path)


def test_a_second_process_is_kept_out(tmp_path):
    folder = RunFolder(tmp_path / "out")
    other = RunFolder(tmp_path / "out")
    with folder.held(), pytest.raises(ValueError, match="another benchmark is running"):
        other.held().__enter__()
    with folder.held():
        pass
    RunFolder(tmp_path / "out")  # what a kill before the first run leaves is a benchmark's
