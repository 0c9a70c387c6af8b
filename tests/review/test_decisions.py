"""Nothing that was answered is lost, and nothing that was not comes back."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nameonly.review.decisions import JOURNAL, Decisions, Wish, read_journal


def wish(image_id, decision="accepted", label="ant", seen=0):
    return Wish(image_id, seen, decision, label, "ant", "uncertain")


def lines(folder):
    return [json.loads(line) for line in (folder / JOURNAL).read_text().splitlines()]


def test_a_decision_is_a_line_and_is_there_after_opening_again(tmp_path):
    with Decisions(tmp_path) as open_:
        assert open_.decide([wish("a"), wish("b", "none", None)]) == [True, True]
    (first, second) = lines(tmp_path)
    assert first["id"] == "a" and first["label"] == "ant" and first["revision"] == 1
    assert second["decision"] == "none" and second["label"] is None
    assert first["decided_at"].endswith("+00:00") and first["queue"] == "uncertain"
    with Decisions(tmp_path) as again:
        assert [d.id for d in again.standing()] == ["a", "b"]
        assert again.state("b")[1] == again.revision == 2


def test_undo_is_a_further_line_and_brings_back_what_was_before(tmp_path):
    with Decisions(tmp_path) as open_:
        open_.decide([wish("a")])
        open_.decide([wish("a", "corrected", "bee", seen=1)])
        assert open_.decide([wish("a", "undone", None, seen=2)]) == [True]
        found, revision = open_.state("a")
        assert (found.label, found.revision, revision) == ("ant", 1, 3)
        assert open_.decide([wish("a", "undone", None, seen=3)]) == [True]
        assert open_.state("a") == (None, 4)
        assert open_.decide([wish("a", "undone", None, seen=4)]) == [False]
    assert [line["decision"] for line in lines(tmp_path)] == [
        *("accepted", "corrected", "undone", "undone")
    ]
    with Decisions(tmp_path) as again:
        assert again.standing() == []
        assert again.state("a") == (None, 4)


def test_a_decision_made_without_sight_of_a_newer_one_is_not_followed(tmp_path):
    with Decisions(tmp_path) as open_:
        open_.decide([wish("a", label="bee", decision="corrected")])
        assert open_.decide([wish("a"), wish("b")]) == [False, True]
        assert open_.state("a")[0].label == "bee"
        assert open_.decide([wish("c"), wish("c", "none", None)]) == [True, False]


def test_changes_since_a_revision_name_each_image_once(tmp_path):
    with Decisions(tmp_path) as open_:
        open_.decide([wish("a"), wish("b")])
        open_.decide([wish("a", "none", None, seen=1)])
        assert open_.changed_since(0) == (["a", "b"], 3)
        assert open_.changed_since(2) == (["a"], 3)
        assert open_.changed_since(3) == ([], 3)


HALVES = {
    "cut": b'{"revision": 3, "id": "c',
    "broken": b'{"revision"\n',
    "zeros": b"\0\0",
    "end": b"\n",
}


@pytest.mark.parametrize("rest", HALVES.values(), ids=HALVES)
def test_a_half_written_last_line_is_dropped(tmp_path, rest):
    with Decisions(tmp_path) as open_:
        open_.decide([wish("a"), wish("b")])
    whole = (tmp_path / JOURNAL).read_bytes()
    (tmp_path / JOURNAL).write_bytes(whole + rest)
    with Decisions(tmp_path) as again:
        assert len(again.standing()) == 2
        again.decide([wish("c")])
    assert [line["id"] for line in lines(tmp_path)] == ["a", "b", "c"]


def test_damage_before_the_end_is_told_with_its_line(tmp_path):
    with Decisions(tmp_path) as open_:
        open_.decide([wish("a"), wish("b"), wish("c")])
    first, _, third = (tmp_path / JOURNAL).read_bytes().splitlines(keepends=True)
    for second in (b"garbage\n", first, b'{"revision": 2}\n', b"[]\n"):
        (tmp_path / JOURNAL).write_bytes(first + second + third)
        with pytest.raises(ValueError, match="line 2 is damaged"):
            Decisions(tmp_path)
    (tmp_path / JOURNAL).write_bytes(first)
    Decisions(tmp_path).close()  # the lock was not kept by those that failed


def test_a_second_one_is_refused_until_the_first_closes(tmp_path):
    with Decisions(tmp_path), pytest.raises(ValueError, match="another `nameonly review`"):
        Decisions(tmp_path)
    Decisions(tmp_path).close()


@pytest.mark.parametrize("broken", ["write", "fsync"])
def test_what_could_not_be_written_is_not_decided_and_does_not_come_back(
    tmp_path, monkeypatch, broken
):
    def full(*_):
        raise OSError(28, "No space left on device")

    with Decisions(tmp_path) as open_:
        open_.decide([wish("a")])
        with monkeypatch.context() as patch:
            patch.setattr(os, broken, full)
            with pytest.raises(OSError, match="No space"):
                open_.decide([wish("b"), wish("c")])
        assert open_.state("b") == (None, 0)
        assert open_.decide([wish("d")]) == [True]
    assert [line["id"] for line in lines(tmp_path)] == ["a", "d"]


def test_names_of_any_script_survive(tmp_path):
    name = 'שלום "<script>\n\\ \u2028'
    with Decisions(tmp_path) as open_:
        open_.decide([wish("a", "corrected", name)])
    assert read_journal(tmp_path / JOURNAL)[0][0].label == name


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {src!r})
from nameonly.review.decisions import Decisions, Wish
open_ = Decisions(Path({folder!r}))
for i in range(1000):
    assert open_.decide([Wish(f"image-{{i}}", 0, "accepted", "ant", "ant", "uncertain")]) == [True]
    print(i, flush=True)
"""


def test_kill_9_in_the_middle_of_a_thousand_decisions_loses_none_that_was_answered(tmp_path):
    import nameonly.review

    src = str(Path(nameonly.review.__file__).parents[2])
    code = KILLED.format(src=src, folder=str(tmp_path))
    last = -1
    for stop in (100, 437):
        (tmp_path / JOURNAL).unlink(missing_ok=True)
        run = [sys.executable, "-c", code]
        with subprocess.Popen(run, stdout=subprocess.PIPE, text=True) as child:
            for line in child.stdout:
                last = int(line)
                if last == stop:
                    child.send_signal(signal.SIGKILL)
        assert child.returncode == -signal.SIGKILL
        assert stop <= last < 999
        with Decisions(tmp_path) as again:
            ids = [d.id for d in again.standing()]
        assert ids[: last + 1] == [f"image-{i}" for i in range(last + 1)]
        assert len(ids) <= last + 2  # at most the one that was on its way
