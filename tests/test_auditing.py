"""An audit from the first image drawn to the accuracy it shows, on real runs."""

import csv
import errno
import json
import os
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from markupsafe import Markup

from nameonly import label
from nameonly.auditing import answer_audit, audit_queue, draw_audit, read_audited
from nameonly.report.places import fill_places
from nameonly.tiny.digits import CLASS_NAMES

NASTY = "<script>alert(1)</script>"
PLACES = ("audit", "audit link", "audit note")
# a process that is killed when the new report is written and the old one still there
KILLED = """
import os, signal, sys
from pathlib import Path
from nameonly.auditing import answer_audit
def hook(event, arguments):
    if event == "os.rename" and str(arguments[0]).endswith(".report.html.partial"):
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
answer_audit(Path(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def made(all_digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("audited")
    label(all_digits[0], list(CLASS_NAMES), backbone="tiny", limit=400, out=folder / "run")
    with all_digits[1].open() as file:
        truth = {row["path"]: row["label"] for row in csv.DictReader(file)}
    return folder / "run", truth


@pytest.fixture
def run(made, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("run.json", "labels.parquet", "report.html"):
        (folder / name).write_bytes((made[0] / name).read_bytes())
    return folder, made[1]


def drawn(folder):
    with (folder / "audit.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def fill(folder, truth, n=None):
    path = folder / "audit.csv"
    rows = drawn(folder)
    for row in rows[:n]:
        row["true_label"] = truth[row["path"].rsplit("/", 1)[-1]]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return rows


def real_accuracy(folder, truth):
    rows = pq.read_table(folder / "labels.parquet").to_pylist()
    return sum(truth[r["path"].rsplit("/", 1)[-1]] == r["label"] for r in rows) / len(rows)


def test_the_interval_holds_the_truth_and_all_checked_is_the_truth(run):
    folder, truth = run
    told = draw_audit(folder, 120)
    assert told["images"] == 120 and 0.05 < told["expected_margin"] < 0.1
    fill(folder, truth)
    found = answer_audit(folder)
    real = real_accuracy(folder, truth)
    assert found["low"] < real < found["high"] and found["high"] - found["low"] < 0.16
    assert json.loads((folder / "audit.json").read_text())["accuracy"] == found["accuracy"]
    assert found["temperature"] > 1.5, "the model's own probabilities are too sure"
    assert 1 < found["prediction_sets"]["mean_size"] < 4
    draw_audit(folder, 10_000)
    fill(folder, truth)
    assert answer_audit(folder)["accuracy"] == pytest.approx(real)


def test_answers_stay_when_more_images_are_drawn(run):
    folder, truth = run
    draw_audit(folder, 20)
    few = fill(folder, truth)
    draw_audit(folder, 40)
    more = drawn(folder)
    assert [r["id"] for r in more[:20]] == [r["id"] for r in few]
    assert all(r["true_label"] for r in more[:20]) and not any(r["true_label"] for r in more[20:])
    found = answer_audit(folder)
    assert (found["answered"], found["asked"], found["n"]) == (20, 40, 20)


def test_images_that_a_person_chose_do_not_count(run):
    folder, truth = run
    draw_audit(folder, 60)
    rows = pq.read_table(folder / "labels.parquet").sort_by("margin").to_pylist()
    reviewed = [
        {"path": r["path"], "label": truth[r["path"].rsplit("/", 1)[-1]]} for r in rows[:200]
    ]
    pq.write_table(pa.Table.from_pylist(reviewed), folder / "given.parquet")
    found = answer_audit(folder, folder / "given.parquet")
    asked = {r["path"] for r in drawn(folder)}
    assert found["n"] == len(asked & {r["path"] for r in reviewed}) < 60


def test_none_of_the_classes_is_a_wrong_label_and_unsure_is_no_answer(run):
    folder, _ = run
    draw_audit(folder, 30)
    rows = drawn(folder)
    decided = [
        {"id": r["id"], "path": r["path"], "label": r["label"], "decision": "accepted"}
        for r in rows[:20]
    ]
    decided += [{**decided[0], **rows[20], "label": None, "decision": "none"}]
    decided += [{**decided[0], **rows[21], "label": None, "decision": "unsure"}]
    keys = ("id", "path", "label", "decision")
    table = pa.Table.from_pylist([{k: d[k] for k in keys} for d in decided])
    pq.write_table(table, folder / "review.parquet")
    found = answer_audit(folder, folder / "review.parquet")
    assert (found["n"], found["n_right"]) == (21, 20)
    path = folder / "audit.csv"
    path.write_text(
        path.read_text().replace(f"{rows[0]['label']},\n", f"{rows[0]['label']},none\n", 1)
    )
    assert answer_audit(folder)["n_right"] == 0


def test_the_review_asks_about_the_very_sample(run):
    folder, _ = run
    assert audit_queue(folder) == []
    rows = audit_queue(folder, 25)
    ids = pq.read_table(folder / "labels.parquet")["id"].to_pylist()
    assert [ids[row] for row in rows] == [r["id"] for r in drawn(folder)]
    assert audit_queue(folder) == rows and len(rows) == 25


def emptied(page):
    """The page as `label` wrote it."""
    return fill_places(page, dict.fromkeys(PLACES, Markup("")))


def test_the_report_shows_the_answers_and_later_ones_replace_them(run):
    folder, truth = run
    report = folder / "report.html"
    before = report.read_text()
    draw_audit(folder, 30)
    fill(folder, truth)
    found = answer_audit(folder)
    first = report.read_text()
    assert found["report"] == str(report) and found["report_problem"] is None
    shown = re.search(r'data-count="audited accuracy">(\d+) %<', first)[1]
    assert shown == f"{100 * found['accuracy']:.0f}"
    assert "30 answers are too few to say" in first and '<a href="#audited">' in first
    draw_audit(folder, 120)
    fill(folder, truth)
    found = answer_audit(folder)
    second = report.read_text()
    assert f"{found['n_right']} of 120</span> checked labels are right" in second
    assert second.count('id="audited"') == 1 and "too few to say" not in second
    assert second.count("checked by hand</a>") == 1 and "30 answers" not in second
    answer_audit(folder)
    assert report.read_text() == second
    assert emptied(first) == emptied(second) == before
    assert not re.search(r'(?:src|href)="(?!#|data:)', second), "no outside address"
    assert {p.name for p in folder.iterdir()} == {
        *("run.json", "labels.parquet", "report.html", "audit.csv", "audit.json")
    }


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_text("<p>my own page</p>"), "has no place to show this"),
        (lambda path: path.write_bytes(path.read_bytes() + b"\xff"), "has no place to show this"),
        (lambda path: (path.unlink(), path.mkdir()), "does not show this: Is a directory"),
    ],
)
def test_a_report_without_the_place_is_told_in_a_line_and_the_answers_are_kept(run, spoil, message):
    folder, truth = run
    draw_audit(folder, 30)
    fill(folder, truth)
    report = folder / "report.html"
    spoil(report)
    before = report.read_bytes() if report.is_file() else None
    found = answer_audit(folder)
    assert found["report"] is None and message in found["report_problem"]
    assert "\n" not in found["report_problem"]
    assert json.loads((folder / "audit.json").read_text())["n"] == 30
    assert before == (report.read_bytes() if report.is_file() else None)
    assert not list(folder.glob(".*"))


def test_a_full_disk_leaves_the_old_report_and_nothing_beside_it(run, monkeypatch):
    folder, truth = run
    draw_audit(folder, 30)
    fill(folder, truth)
    before, write = (folder / "report.html").read_bytes(), Path.write_bytes

    def full(path, data):
        write(path, data[:100] if "report" in path.name else data)
        if "report" in path.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    found = answer_audit(folder)
    assert found["report_problem"].endswith("does not show this: No space left on device")
    assert (folder / "report.html").read_bytes() == before
    assert not list(folder.glob(".*"))


def test_a_kill_leaves_the_old_report_whole(run):
    folder, truth = run
    draw_audit(folder, 30)
    fill(folder, truth)
    before = (folder / "report.html").read_bytes()
    killed = subprocess.run([sys.executable, "-c", KILLED, folder])
    assert killed.returncode == -signal.SIGKILL
    assert (folder / "report.html").read_bytes() == before
    assert json.loads((folder / "audit.json").read_text())["n"] == 30
    answer_audit(folder)
    assert emptied((folder / "report.html").read_text()) == before.decode()
    assert not list(folder.glob(".*"))


def test_classes_and_the_interval_without_a_distribution_are_in_the_file(run):
    folder, truth = run
    draw_audit(folder, 200)
    rows = fill(folder, truth)
    found = json.loads(json.dumps(answer_audit(folder)))
    assert json.loads((folder / "audit.json").read_text()).items() <= found.items()
    for row in found["classes"]:
        mine = [r for r in rows if r["label"] == row["class"]]
        right = sum(r["label"] == r["true_label"] for r in mine)
        assert (row["n"], row["n_right"]) == (len(mine), right)
        assert 0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1
        assert row["below_estimate"] == (row["high"] < row["estimated_accuracy"])
        assert (row["calibration_error"] is not None) == (row["n"] >= 20)
    assert sum(row["n"] for row in found["classes"]) == 200
    assert sum(row["n_labels"] for row in found["classes"]) == 400
    hoeffding = found["hoeffding"]
    assert hoeffding["low"] < found["low"] < found["high"] < hoeffding["high"]
    assert "random sample" in hoeffding["assumes"]
    errors = {name: row["error"] for name, row in found["calibration_errors"].items()}
    assert errors["probability"] > 2 * errors["temperature"], "the model's own is far too sure"
    assert found["temperature_before"] > 1


def test_a_stratum_without_an_answer_leaves_no_interval_without_a_distribution(run):
    folder, truth = run
    draw_audit(folder, 30)
    fill(folder, truth, 3)
    found = answer_audit(folder)
    assert found["hoeffding"] is None and found["calibration_errors"] is None


def test_hostile_names_stay_text(digits, tmp_path):
    folder = tmp_path / "run"
    names = [NASTY, *CLASS_NAMES[1:]]
    (digits / "<b>&.png").write_bytes(min(digits.iterdir()).read_bytes() + b" ")
    label(digits, names, backbone="tiny", out=folder)
    draw_audit(folder, 121)
    rows = fill(folder, {r["path"].rsplit("/", 1)[-1]: NASTY for r in drawn(folder)})
    found = answer_audit(folder)
    assert found["n_right"] == sum(r["label"] == NASTY for r in rows) > 0
    page = (folder / "report.html").read_text()
    section = page.split('<section aria-labelledby="audited"')[1].split("</section>")[0]
    assert "&lt;script&gt;alert(1)" in section and "<script" not in page and "<b>&.p" not in page
    assert "below the estimate" in section, "all of the others' labels were said to be wrong"


def test_given_labels_are_not_audited(all_digits, tmp_path):
    given = tmp_path / "given.csv"
    given.write_text("".join(all_digits[1].read_text().splitlines(keepends=True)[:101]))
    out = tmp_path / "run"
    label(all_digits[0], list(CLASS_NAMES), backbone="tiny", limit=200, out=out, given=given)
    table = pq.read_table(out / "labels.parquet")
    known = sum(v is not None for v in table["given_label"].to_pylist())
    assert 0 < known < 100
    assert len(read_audited(out).ids) == 200 - known


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "labels.parquet").write_bytes(b"PAR1"), "no whole run"),
        (lambda f: (f / "run.json").write_text("{}"), "no whole run"),
        (lambda f: (f / "audit.csv").unlink(), "draw a sample first"),
        (lambda f: (f / "audit.csv").write_text("a,b\n1,2\n"), "draw the sample again"),
        (lambda f: None, "has an answer yet"),
    ],
)
def test_what_is_missing_is_told(run, spoil, message):
    folder, _ = run
    draw_audit(folder, 5)
    spoil(folder)
    with pytest.raises(ValueError, match=message):
        answer_audit(folder)


def test_an_answer_that_is_no_class_is_told(run):
    folder, truth = run
    draw_audit(folder, 5)
    fill(folder, dict.fromkeys(truth, "zebra"))
    with pytest.raises(ValueError, match="zebra"):
        answer_audit(folder)


def test_the_command(run, nameonly):
    folder, truth = run
    call = partial(nameonly, "audit", folder)
    code, said, errors = call("--margin", 0.1)
    assert code == 0 and "labels to check" in said
    fill(folder, truth)
    code, said, errors = call("--answers", folder / "audit.csv")
    assert code == 0 and "95% interval" in said and "checked labels are right" in said
    assert said.endswith(f"shown in {folder / 'report.html'}\n")
    assert "hoeffding" not in said.lower()
    (folder / "report.html").unlink()
    code, said, errors = call("--answers", folder / "audit.csv")
    assert code == 0 and said.splitlines()[-1].startswith("no page shows this: ")
    code, said, errors = call("--margin", 5)
    assert code == 2 and "margin and level lie in (0, 1)" in errors
    code, said, errors = call("--answers", folder / "audit.csv", "--json")
    found = json.loads(said)
    assert found["n_right"] > 30 and found["hoeffding"]["low"] < found["low"]
