import json
import signal
import subprocess
import sys

import pytest

NAMES = "zero,one,two,three,four,five,six,seven,eight,nine"


def in_new_process(*arguments):
    words = [sys.executable, "-m", "nameonly", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=280)


@pytest.fixture
def labelled(nameonly, digits, tmp_path):
    out = tmp_path / "out"
    got = nameonly("label", digits, "-c", NAMES, "--backbone", "tiny", "-o", out)
    assert got.returncode == 0, got.stderr
    return out, got


def test_label_tells_where_things_are_and_what_tiny_knows(digits, tmp_path):
    out = tmp_path / "out"
    got = in_new_process("label", digits, "-c", NAMES, "--backbone", "tiny", "-o", out)
    assert got.returncode == 0, got.stderr
    assert "120 of 120 images labelled with 10 classes" in got.stdout
    assert f"{out}/report.html" in got.stdout
    assert "glyphs" in got.stderr and "\x1b" not in got.stdout + got.stderr


def test_json_is_the_only_thing_on_stdout(nameonly, digits, tmp_path):
    got = nameonly(
        "label", digits, "-c", NAMES, "--backbone", "tiny", "-o", tmp_path / "o", "--json"
    )
    summary = json.loads(got.stdout)
    assert summary["counts"]["labelled"] == 120 and summary["out"] == str(tmp_path / "o")


def test_predict_evaluate_compare(nameonly, labelled, digits, all_digits, tmp_path):
    out, _ = labelled
    got = nameonly("predict", out / "classifier", digits, "-o", tmp_path / "p")
    assert got.returncode == 0 and "120 of 120" in got.stdout
    got = nameonly("evaluate", out / "labels.parquet", all_digits[1], "--json")
    found = json.loads(got.stdout)
    assert found["n"] == 120 and 0.4 < found["accuracy"] <= 1
    got = nameonly("evaluate", out, all_digits[1])
    assert "mean class accuracy" in got.stdout and "seven" in got.stdout
    got = nameonly("compare", out, tmp_path / "p")
    assert "0 labels changed; agreement 100.0 %" in got.stdout


def test_settings_and_dry_run(nameonly, digits, tmp_path):
    common = ("label", digits, "-c", NAMES, "--backbone", "tiny")
    out = tmp_path / "o"
    got = nameonly(
        *common, "-o", out, "--set", "pseudo_labels.by=column", "--set", "decisions=abstain"
    )
    settings = json.loads((out / "run.json").read_text())["settings"]
    assert settings["pseudo_labels"]["by"] == "column"
    assert settings["decisions"]["method"] == "abstain"
    got = nameonly(*common, "--dry-run")
    assert got.returncode == 0 and "nothing was written" in got.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("label", "{d}", "-c", NAMES), "label needs --out"),
        (("label", "{d}", "-c", "cat", "-o", "{t}/x"), "two"),
        (("label", "{t}/none", "-c", NAMES, "-o", "{t}/x", "--backbone", "tiny"), "none"),
        (("label", "{d}", "-o", "{t}/x"), "class names are missing"),
        (("label", "{d}", "-c", NAMES, "-o", "{d}", "--backbone", "tiny"), "holds other files"),
        (("label", "{d}", "-c", NAMES, "-o", "{t}/x", "--set", "k=3"), "no stage 'k'"),
        (
            ("label", "{d}", "-c", NAMES, "-o", "{t}/x", "--set", "k"),
            "a setting is stage",
        ),
        (
            ("label", "{d}", "-c", NAMES, "-o", "{t}/x", "--recipe", "up"),
            "no method 'up' in recipes",
        ),
        (
            ("label", "{d}", "-c", NAMES, "-o", "{t}/x", "--backbone", "no/model"),
            "--backbone /path",
        ),
        (("label", "{d}", "-c", NAMES, "-o", "{t}/x", "--device", "abacus"), "try --device cpu"),
        (("label", "{d}", "-c", NAMES, "-o", "{t}/x", "--set", "adapters=123"), "no method '123'"),
        (
            ("label", "{d}", "-c", NAMES, "-o", "{t}/x", "--set", "adapters.batch_size=0"),
            "at least 1",
        ),
        (("predict", "{d}", "{d}", "-o", "{t}/x"), "is not a classifier"),
        (("evaluate", "{d}", "{t}/truth.csv"), "labels.parquet"),
        (("compare", "{d}", "{t}"), "run"),
        (("doctor", "--verify-backbone", "no/model"), "pass its folder"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(nameonly, digits, tmp_path, arguments, words):
    filled = [a.format(d=digits, t=tmp_path) for a in arguments]
    got = nameonly(*filled)
    assert got.returncode == 2, got.stderr
    lines = [line for line in got.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and words in got.stderr and "Traceback" not in got.stderr
    assert got.stdout == "" and not (tmp_path / "x").exists()


def test_methods_lists_every_stage(nameonly):
    listed = json.loads(nameonly("methods", "--json").stdout)
    assert {"zero_shot", "up_adapter", "grip", "cpl"} <= {c["name"] for c in listed["recipes"]}
    assert all(c["title"] and c["paper"] for cards in listed.values() for c in cards)


def test_doctor_finds_tiny_sound(nameonly, tmp_path):
    got = nameonly("doctor", "--verify-backbone", "tiny", "--json")
    assert got.returncode == 0, got.stderr
    assert json.loads(got.stdout)[0]["failed"] is False
    got = nameonly("doctor", "--cache", tmp_path / "c")
    assert "torchvision fits torch" in got.stdout and "not reachable" in got.stdout


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['nameonly', '--help']\n"
        "from nameonly.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'transformers', 'sklearn', 'pyarrow', 'PIL', 'rich'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert got.returncode == 0 and "Usage" in got.stdout, got.stderr


def test_a_small_run_does_not_wait_for_scikit_learn(feature_file, tmp_path):
    code = (
        "import sys\n"
        "from nameonly.jobs import label\n"
        f"run = label({str(feature_file[0])!r}, out={str(tmp_path / 'out')!r})\n"
        "print(len(run.table), 'sklearn' in sys.modules)"
    )
    got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert got.stdout.split() == ["60", "False"], got.stderr


def test_version(nameonly):
    assert nameonly("--version").stdout.strip()[0].isdigit()


def test_ctrl_c_says_that_nothing_is_lost(digits, tmp_path):
    arguments = ["label", str(digits), "-c", NAMES, "--backbone", "tiny", "-o", str(tmp_path / "o")]
    arguments += ["--set", "adapters.steps=1000000"]  # the signal must come before the end
    # a shell's background jobs ignore the signal, and so would a child of theirs
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "nameonly", *arguments], stderr=subprocess.PIPE, text=True
        )
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        try:
            assert "glyphs" in process.stderr.readline()
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 130 and "the same command goes on" in errors
    assert not (tmp_path / "o").exists()


PLAN = """
title = "Trial"
backbone = "tiny"
device = "cpu"
[[data]]
name = "digits"
half = "development"
[[method]]
label = "zero-shot"
recipe = "zero_shot"
[[method]]
label = "bad"
recipe = "lafter"
set = { "adapters.learning_rate" = 1e36 }
"""


def test_bench_says_what_it_made_and_what_failed(nameonly, tmp_path):
    plan, out = tmp_path / "plan.toml", tmp_path / "out"
    plan.write_text(PLAN)
    got = nameonly("bench", plan, "-o", out, "--dry-run")
    assert got.returncode == 0 and "0 of 2 runs of the plan are there" in got.stdout
    assert "nothing was written" in got.stdout and not out.exists()
    got = nameonly("bench", plan, "-o", out, "--only", "zero-shot", "--threads", 1)
    assert got.returncode == 0 and "1 runs are still to be made" in got.stdout
    assert "[1/1] zero-shot · digits, development half · UL · whole · seed 0: 7" in got.stderr
    got = nameonly("bench", plan, "-o", out)
    assert got.returncode == 1 and "Traceback" not in got.stderr
    assert "2 runs: 1 were there, 0 made now, 1 failed" in got.stdout
    assert "failed: bad on digits, development half, UL: FloatingPointError" in got.stdout
    assert f"table  {out}/table.md" in got.stdout
    got = nameonly("bench", plan, "-o", out, "--json")
    found = json.loads(got.stdout)
    assert got.returncode == 1 and (found["runs"], found["failed"], found["missing"]) == (2, 1, 0)
    assert found["rows"][0]["accuracy"] > 0.5
    plan.write_text(PLAN.split('[[method]]\nlabel = "bad"')[0])
    got = nameonly("bench", plan, "-o", out)
    assert got.returncode == 0 and "the plan differs from the one that was run" in got.stdout
    assert "1 runs there belong to other plans and are left out" in got.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("{t}/none.toml", "-o", "{t}/x"), "cannot be read"),
        (("{t}/plan.toml", "-o", "{t}/full"), "holds other files than a benchmark's"),
        (("{t}/plan.toml", "-o", "{t}/x", "--only", "best"), "has no method 'best'"),
        (("{t}/far.toml", "-o", "{t}/x"), "does not exist"),
    ],
)
def test_bench_refuses_in_one_line(nameonly, tmp_path, arguments, words):
    (tmp_path / "plan.toml").write_text(PLAN)
    far = PLAN.replace('name = "digits"\nhalf = "development"', 'name = "dtd"\nroot = "far"')
    (tmp_path / "far.toml").write_text(far)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "photo.jpg").touch()
    got = nameonly("bench", *(a.format(t=tmp_path) for a in arguments))
    assert got.returncode == 2 and words in got.stderr and not (tmp_path / "x").exists()
    assert len([line for line in got.stderr.splitlines() if line.startswith("error: ")]) == 1
