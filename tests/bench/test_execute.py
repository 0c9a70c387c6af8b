import json
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from nameonly.adapters.prototype_adapter import PrototypeAdapter
from nameonly.bench import measuring
from nameonly.bench.rows import COLUMNS
from nameonly.datasets.reading import Split
from nameonly.evaluation.metrics import accuracy_score
from nameonly.journal import Journal
from nameonly.prompts.templates import Templates
from nameonly.pseudo_labels.top_k_per_class import TopKPerClass
from nameonly.sources.locations import FileLocation
from nameonly.tiny.digits import CLASS_NAMES, halves, load_digits_images
from nameonly.types import Features, LabelSpace, TextClassifier

TIMED = {"fit_seconds", "peak_memory_mb", "memory_before_mb", "threads", "code"}
ALL_SETTINGS = """
title = "Trial"
backbone = "tiny"
device = "cpu"
seeds = [0]
settings = ["UL", "SSL", "TRZSL"]
imbalances = [1, 10]
"""
BATCH = """
[[data]]
name = "digits"
half = "development"

[[batch]]
size = 40
classes = 3
"""


def events(out, kind="run"):
    lines = map(json.loads, (out / "log.jsonl").read_text().splitlines())
    return [line for line in lines if line["event"] == kind]


def plain(rows):
    """Rows without what differs from one time to the next."""
    return [{k: v for k, v in row.items() if k not in TIMED} for row in rows]


def test_from_plan_to_table(bench, write_plan, tmp_path):
    told = []
    found = bench(write_plan(ALL_SETTINGS, BATCH)).execute(on_line=told.append)
    out = tmp_path / "out"
    assert len(found.rows) == len(told) == 2 * ((1 + 1 + 3) * 2 + 1)
    assert not found.failed and found.n_before == 0 and not found.plan_changed
    rows = pq.read_table(out / "results.parquet").to_pylist()
    assert [set(r) for r in rows] == [set(COLUMNS)] * len(rows)
    assert rows == found.rows
    csv = (out / "results.csv").read_text().splitlines()
    assert csv[0].split(",") == list(COLUMNS) and len(csv) == len(rows) + 1
    for row in rows:
        assert 0 < row["accuracy"] <= 1 and row["n_test_in_pool"] == (40 if row["draw"] == 0 else 0)
        assert (row["harmonic_mean"] is None) == (row["setting"] != "TRZSL")
        if row["recipe"] == "zero_shot":
            assert row["accuracy"] == row["zero_shot_accuracy"]
            assert row["harmonic_mean"] == row["zero_shot_harmonic_mean"]
    assert {r["n_given"] for r in rows if r["setting"] == "SSL"} == {20}
    assert {r["split_seed"] for r in rows} == {None, 500, 0, 200}
    table = (out / "table.md").read_text()
    assert table.startswith("# Trial") and "glyphs" in table and "not there yet" not in table
    assert "[1/" in told[0] and "zero-shot 7" in told[1]
    assert (out / "plan.toml").read_text() == write_plan(ALL_SETTINGS, BATCH).read_text()


def test_figures_are_those_of_the_parts_alone(bench, write_plan, features_cache):
    """The same accuracy as a script that knows nothing of plans, on the splits of the digits."""
    methods = """
[[method]]
recipe = "up_adapter"
set = { "pseudo_labels.images_per_class" = 16, "adapters.steps" = 20 }
"""
    prepared = bench(write_plan(methods=methods))
    found = prepared.execute()
    _, truth, _ = load_digits_images()
    backbone, space = prepared.context.backbone, LabelSpace(CLASS_NAMES)
    pictures = [image.convert("RGB") for image in load_digits_images()[0]]
    texts = [t for sentences in Templates().texts(space) for t in sentences]
    text = TextClassifier(backbone.encode_texts(texts), backbone.logit_scale, CLASS_NAMES)
    for row, seed in zip(found.rows, (0, 1), strict=True):
        order = np.random.default_rng(seed).permutation(halves()[0])
        adapt, test = (
            Features(backbone.encode_images([pictures[i] for i in rows]), ids(rows), "tiny")
            for rows in (order[:449], order[449:])
        )
        labels = TopKPerClass(images_per_class=16, by="row").label(
            adapt, text.predict_logits(adapt), space
        )
        adapter = PrototypeAdapter(steps=20, seed=seed).fit(adapt, text, labels)
        answer = adapter.predict_logits(test).argmax(dim=1).numpy()
        want = accuracy_score(truth[order[449:]], answer)
        assert row["accuracy"] == pytest.approx(want, abs=1.1 / 449)  # one image may round over
        right = labels.labels.numpy() == truth[order[:449]]
        chosen = labels.selected.numpy()
        assert row["pseudo_label_precision"] == pytest.approx(right[chosen].mean(), abs=0.01)
        assert row["pseudo_label_coverage"] == pytest.approx(chosen.mean(), abs=0.01)


def ids(rows):
    return tuple(f"digit-{row:04d}" for row in rows)


def test_a_second_time_nothing_is_run(bench, write_plan, tmp_path):
    plan = write_plan()
    first = bench(plan).execute()
    told = []
    again = bench(plan).execute(on_line=told.append)
    assert told == [] and again.n_before == 4 and again.rows == first.rows
    assert Counter(e["key"] for e in events(tmp_path / "out")) == {
        entry.key: 1 for entry in first.entries
    }


def test_a_changed_plan_runs_what_is_new(bench, write_plan, tmp_path):
    first = bench(write_plan()).execute()
    methods = """
[[method]]
label = "the class texts"
recipe = "zero_shot"
[[method]]
label = "UP"
recipe = "up_adapter"
set = { "adapters.steps" = 6 }
"""
    plan = write_plan(methods=methods)
    prepared = bench(plan)
    before = prepared.look()
    assert (before.n_before, before.n_others, before.plan_changed) == (2, 2, True)
    told = []
    found = prepared.execute(on_line=told.append)
    assert len(told) == 2 and all("UP" in line for line in told)
    assert (found.n_before, found.n_others, found.plan_changed) == (2, 2, True)
    names = [row["method"] for row in found.rows]
    assert names == ["the class texts", "UP"] * 2  # a new label is no new run
    table = (tmp_path / "out/table.md").read_text()
    assert "the class texts" in table and "| zero-shot |" not in table
    # the first plan finds its runs again
    assert bench(write_plan()).look().n_before == len(first.rows)


def test_only_some_methods(bench, write_plan, tmp_path):
    plan = write_plan()
    found = bench(plan, only=["UP"]).execute()
    assert [row["method"] for row in found.rows] == ["UP", "UP"]
    assert "**2 of 4 runs are not there yet.**" in (tmp_path / "out/table.md").read_text()
    assert len(bench(plan).execute().rows) == 4
    with pytest.raises(ValueError, match="no method 'UPP'; did you mean 'UP'"):
        bench(plan, only=["UPP"])


def test_a_failing_method_stops_no_other_and_is_tried_again(bench, write_plan, tmp_path):
    methods = """
[[method]]
label = "bad"
recipe = "lafter"
set = { "adapters.learning_rate" = 1e36 }
[[method]]
recipe = "zero_shot"
"""
    plan = write_plan(methods=methods)
    told = []
    found = bench(plan).execute(on_line=told.append)
    assert [row["error"] is None for row in found.rows] == [False, True] * 2
    assert len(found.failed) == 2 and "the loss became" in found.failed[0]["error"]
    assert "FAILED: FloatingPointError" in told[0]
    assert found.failed[0]["accuracy"] is None
    table = (tmp_path / "out/table.md").read_text()
    assert "## Failed runs" in table and "| zero_shot | 2 |" in table
    assert pq.read_table(tmp_path / "out/results.parquet").column("error").null_count == 2
    assert len(events(tmp_path / "out", "traceback")) == 2
    again = bench(plan)
    assert again.look().n_before == 2
    assert len(again.execute().failed) == 2
    assert max(Counter(e["title"] for e in events(tmp_path / "out")).values()) == 2
    assert not bench(plan, only=["zero_shot"]).look().failed


def test_data_that_cannot_be_encoded_fail_their_own_runs(bench, write_plan):
    prepared = bench(write_plan())
    (data,) = prepared._data.values()
    images = data.scored.train.images
    places = (*images.locations[:-1], FileLocation("/no/such/file.png"))
    broken = type(images)(images.sources, (*images.ids[:-1], "f" * 32), places)
    data.scored.__dict__["train"] = Split(broken, data.scored.train.y_true)
    found = prepared.execute()
    assert len(found.failed) == 4
    assert "1 images cannot be read, first digit-1796: no such" in found.failed[0]["error"]


def test_runs_by_other_code_are_told(bench, write_plan, tmp_path):
    plan = write_plan()
    bench(plan, only=["UP"]).execute()
    for path in (tmp_path / "out/runs").glob("*.json"):
        path.write_text(path.read_text().replace('"code": "', '"code": "0'))
    bench(plan).execute()
    assert "more than one state of the code" in (tmp_path / "out/table.md").read_text()


def test_two_labels_of_one_method_are_run_once(bench, write_plan):
    methods = """
[[method]]
label = "A"
recipe = "zero_shot"
[[method]]
label = "B"
recipe = "zero_shot"
"""
    told = []
    found = bench(write_plan(methods=methods)).execute(on_line=told.append)
    assert len(told) == 2 and [row["method"] for row in found.rows] == ["A", "B"] * 2


def test_threads_are_set_recorded_and_set_back(bench, write_plan):
    before = torch.get_num_threads()
    assert {row["threads"] for row in bench(write_plan()).execute().rows} == {1}
    found = bench(write_plan(), out=write_plan().parent / "two", threads=2, only=["zero-shot"])
    assert {row["threads"] for row in found.execute().rows} == {2}
    assert torch.get_num_threads() == before


def test_a_stopped_benchmark_has_a_table_of_what_is_there(bench, write_plan, tmp_path):
    def stop(line):
        if line.startswith("[2/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench(write_plan()).execute(on_line=stop)
    assert "**2 of 4 runs are not there yet.**" in (tmp_path / "out/table.md").read_text()
    assert bench(write_plan()).execute().n_before == 2


class Poison(np.ndarray):
    """Truth that must not be looked at."""

    armed = True

    def _refuse(self):
        if Poison.armed:
            raise AssertionError("a label was looked at before the answers stood")

    def __getitem__(self, key):
        self._refuse()
        return super().__getitem__(key)

    def __iter__(self):
        self._refuse()
        return super().__iter__()

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        self._refuse()
        plain_inputs = [np.asarray(i) if isinstance(i, Poison) else i for i in inputs]
        return getattr(ufunc, method)(*plain_inputs, **options)

    def __array_function__(self, function, types, args, kwargs):
        self._refuse()
        return super().__array_function__(function, types, args, kwargs)


def prepared_runs(bench, plan):
    prepared = bench(plan)
    (data,) = prepared._data.values()
    values = measuring.encode(data, prepared.context, Journal())
    return prepared, data, values, [run for run, _ in prepared._keyed]


def test_no_label_is_looked_at_before_the_answers_stand(bench, write_plan, monkeypatch):
    prepared, data, values, runs = prepared_runs(bench, write_plan())
    split = data.split("pool")
    poisoned = Split(split.images, split.y_true.view(Poison))
    data.scored.__dict__["train"] = poisoned
    values = {id(poisoned): values[id(split)]}
    with pytest.raises(AssertionError, match="looked at"):  # the poison works
        _ = poisoned.y_true[0]

    fitted = measuring.answer

    def answer(*arguments):
        monkeypatch.setattr(Poison, "armed", True)
        found = fitted(*arguments)
        monkeypatch.setattr(Poison, "armed", False)
        return found

    monkeypatch.setattr(measuring, "answer", answer)
    for run in runs:
        monkeypatch.setattr(Poison, "armed", True)
        row = measuring.measure(run, data, values, prepared.context, Journal())
        assert 0.5 < row["accuracy"] < 1


def test_other_labels_than_the_given_ones_change_no_answer(bench, write_plan, monkeypatch):
    """Truth is put in disorder after the given labels were drawn: the answers stay."""
    plan = write_plan(ALL_SETTINGS, BATCH)
    prepared, data, values, runs = prepared_runs(bench, plan)
    answers = []
    monkeypatch.setattr(measuring, "figures", lambda found, *_: answers.append(found) or {})
    draws = {run.title: measuring.draw(data, run, prepared.context.plan) for run in runs}
    monkeypatch.setattr(measuring, "draw", lambda _data, run, _plan: draws[run.title])
    honest = data.split("pool")
    shuffled = np.random.default_rng(0).permutation(honest.y_true)
    for y_true in (honest.y_true, shuffled):
        split = Split(honest.images, y_true)
        data.scored.__dict__["train"] = split
        for run in runs:
            rows = {id(split): values[id(honest)]}
            measuring.measure(run, data, rows, prepared.context, Journal())
    assert len(answers) == 2 * len(runs)
    for before, after in zip(answers[: len(runs)], answers[len(runs) :], strict=True):
        assert torch.equal(before.labels, after.labels)
        assert torch.equal(before.pool_labels, after.pool_labels)


def test_what_a_recipe_gets_tells_no_class(bench, write_plan, monkeypatch):
    prepared, data, values, runs = prepared_runs(bench, write_plan(ALL_SETTINGS, BATCH))
    tasks = []
    monkeypatch.setattr(
        measuring, "answer", lambda recipe, task, queries: tasks.append((task, queries)) or 1 / 0
    )
    for run in runs:
        with pytest.raises(ZeroDivisionError):
            measuring.measure(run, data, values, prepared.context, Journal())
    for run, (task, queries) in zip(runs, tasks, strict=True):
        # in order of a hash of their bytes, under names that are these hashes
        assert list(task.features.ids) == sorted(set(task.features.ids))
        for images in (task.images, *([] if queries is None else [queries.images])):
            assert all(
                source == f"{i}:{image_id}"
                for i, (source, image_id) in enumerate(zip(images.sources, images.ids, strict=True))
            )
        assert (task.given is None) == (run.setting == "UL")
        assert (task.label_space.seen is None) == (run.setting != "TRZSL")


SLOW_METHODS = """
[[method]]
recipe = "zero_shot"
[[method]]
label = "UP"
recipe = "up_adapter"
set = { "adapters.steps" = 200 }
"""


@pytest.mark.slow
def test_a_kill_loses_the_run_under_way_alone(
    bench, write_plan, tmp_path, features_cache, nameonly
):
    head = 'title = "T"\nbackbone = "tiny"\ndevice = "cpu"\nthreads = 1\nseeds = [0, 1, 2, 3]\n'
    plan = write_plan(head=head, methods=SLOW_METHODS)
    out = tmp_path / "killed"
    words = ["bench", str(plan), "--out", str(out), "--cache", str(features_cache)]
    command = [sys.executable, "-m", "nameonly", *words]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while len(list((out / "runs").glob("*.json"))) < 3:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    left = {path.stem: path.read_text() for path in (out / "runs").glob("*.json")}
    assert 3 <= len(left) < 8 and not (out / "table.md").exists()

    code, said, errors = nameonly(*words)
    assert code == 0, errors
    assert f"8 runs: {len(left)} were there, {8 - len(left)} made now, 0 failed" in said
    for key, text in left.items():
        assert (out / "runs" / f"{key}.json").read_text() == text
    made = Counter(event["key"] for event in events(out))
    assert max(made.values()) == 1 and len(made) >= 7  # the kill may fall between file and log
    reference = bench(plan, out=tmp_path / "whole").execute()
    rows = pq.read_table(out / "results.parquet").to_pylist()
    assert plain(rows) == plain(reference.rows)


def test_mean_and_differences_of_the_table_are_those_of_the_rows(bench, write_plan, tmp_path):
    bench(write_plan()).execute()
    rows = pq.read_table(tmp_path / "out/results.parquet").to_pylist()
    ours = [100 * r["accuracy"] for r in rows if r["method"] == "UP"]
    base = [100 * r["accuracy"] for r in rows if r["method"] == "zero-shot"]
    gains = [a - b for a, b in zip(ours, base, strict=True)]
    want = (
        f"| UP | 2 | {statistics.mean(ours):.1f} ± {statistics.stdev(ours):.1f} "
        f"| {statistics.mean(gains):+.1f} ± {statistics.stdev(gains):.1f} "
        f"| {sum(g > 0 for g in gains)} of 2 |"
    )
    assert want in (tmp_path / "out/table.md").read_text()
