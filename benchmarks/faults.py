"""kill -9 in every stage of every command that writes, then the same command once more.

uv run python benchmarks/faults.py [--only label --only review]
uv run python benchmarks/faults.py --fuzz 10000

Stages and their lengths are those of an undisturbed run, as its journal tells them. A stage of a
tenth of a second or more is hit at a fifth, a half and four fifths of its time and at the middle
one of its file operations; a shorter one at its first, middle and last file operation, which may be
the same one, and by the clock where it has none. ``--fuzz`` runs tests/fuzz with so many examples a
test instead.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from results import write

from nameonly.tiny.digits import CLASS_NAMES, export

ROOT = Path(__file__).parents[1]
KILLER = ROOT / "tests" / "killing.py"
N_IMAGES = 48
NAMES = ",".join(CLASS_NAMES)
TINY = ["--backbone", "tiny", "--device", "cpu"]
LABEL = ["label", "{work}/photos", "-c", NAMES, *TINY, "--batch-size", "16"]
# tokens in the image tower, so that all images are encoded anew with what was trained
LEARNT_FROM_SOME = [
    *("--adapt-on", "24", "--recipe", "upl", "--set", "prompt_learning=visual_context"),
    *("--set", "prompt_learning.schedule.epochs=3"),
]
GENERATE = [
    *("generate", "-c", NAMES, "--model", "tiny", "--per-class", "2", "--adapt-to"),
    *("{work}/photos", *TINY, "--unadapted", "1", "--filter"),
    *("--set", "text_to_image.steps=3", "--set", "domain_lora.schedule.epochs=2"),
]
TRAIN = [
    *("train", "{work}/made", "{work}/run", "--arch", "test_resnet", "--size", "32"),
    *("--epochs", "3", "--device", "cpu", "--out", "{work}/net"),
]
PLAN = """
title = "Trial"
backbone = "tiny"
device = "cpu"
threads = 1
[[data]]
name = "digits"
half = "development"
[[method]]
label = "zero-shot"
recipe = "zero_shot"
[[method]]
label = "UP-Adapter"
recipe = "up_adapter"
"""
LABELLED = {"same": ["out/labels.parquet"], "whole": ["out/run.json", "out/labels.parquet"]}
SCENARIOS: list[dict[str, Any]] = [
    {"name": "label", "argv": [*LABEL, "--out", "{work}/out"], **LABELLED},
    {
        "name": "label, over a finished run",
        "argv": [*LABEL, "--recipe", "zero_shot", "--overwrite", "--out", "{work}/run"],
        "same": ["run/labels.parquet"],
        "whole": ["run/run.json", "run/labels.parquet"],
        "kept": ["run/audit.csv"],
    },
    {
        "name": "label --adapt-on",
        "argv": [*LABEL, *LEARNT_FROM_SOME, "--out", "{work}/out"],
        **LABELLED,
    },
    {
        "name": "predict",
        "argv": ["predict", "{work}/run", "{work}/photos", "--out", "{work}/out"],
        **LABELLED,
    },
    {
        "name": "generate",
        "argv": [*GENERATE, "--out", "{work}/new"],
        "same": ["new/synthetic.parquet", "new/images/**/*.webp", "new/lora/*.safetensors"],
        "whole": ["new/report.html", "new/synthetic.parquet"],
    },
    {
        "name": "train",
        "argv": TRAIN,
        "same": ["net/classifier/classifier.safetensors", "net/classifier/model.onnx"],
        "whole": ["net/run.json", "net/classifier/classifier.safetensors"],
    },
    {
        "name": "export",
        "argv": ["export", "{work}/run", "--to", "imagefolder", "--out", "{work}/set"],
        "same": ["set/**/*"],
        "whole": ["set/export.json", "set/metadata.csv"],
    },
    {
        "name": "audit",
        "argv": ["audit", "{work}/run", "--images", "20"],
        "same": ["run/audit.csv"],
    },
    {
        "name": "audit --answers",
        "argv": ["audit", "{work}/run", "--answers", "{work}/truth.csv"],
        "same": ["run/audit.json", "run/report.html", "run/audit.csv"],
        "kept": ["run/audit.csv", "run/labels.parquet"],
    },
    {
        "name": "bench",
        "argv": ["bench", "{work}/plan.toml", "--out", "{work}/bench"],
        "same": ["bench/runs/*.json"],
    },
]
# what the children would each import by themselves
IMPORTS = {
    "generate": ["diffusers.pipelines.stable_diffusion", "peft", "nameonly.generation"],
    "train": ["timm", "onnx", "onnxscript", "onnxruntime", "nameonly.training_job"],
    "bench": ["nameonly.bench.execute"],
}


def nameonly(*arguments: object, cwd: Path | None = None) -> None:
    """Run a command to its end."""
    command = [sys.executable, "-m", "nameonly", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True, cwd=cwd)


def make_inputs(folder: Path) -> None:
    """Write all that the commands read: photos, a run with an audit half answered, images made."""
    digits, truth = export(folder.parent / "digits")
    (folder / "photos").mkdir(parents=True)
    lines = truth.read_text().splitlines()
    (folder / "truth.csv").write_text("\n".join(lines[: 1 + N_IMAGES]) + "\n")
    for path in sorted(Path(digits).iterdir())[:N_IMAGES]:
        (folder / "photos" / path.name).write_bytes(path.read_bytes())
    (folder / "plan.toml").write_text(PLAN)
    nameonly(*(word.replace("{work}", str(folder)) for word in LABEL), "--out", folder / "run")
    made = [word.replace("{work}", str(folder)) for word in GENERATE]
    nameonly(*made, "--out", folder / "made")
    nameonly("audit", folder / "run", "--images", 12)
    answered = (folder / "run" / "audit.csv").read_text().splitlines()
    answered[1:7] = [line + "none" for line in answered[1:7]]
    (folder / "run" / "audit.csv").write_text("\n".join(answered) + "\n")


def kill_commands(inputs: Path, only: list[str]) -> list[dict[str, Any]]:
    """Kill the commands that run to an end."""
    scenarios = [s for s in SCENARIOS if not only or s["name"].split()[0].rstrip(",") in only]
    if not scenarios:
        return []
    imports = [name for s in scenarios for name in IMPORTS.get(s["name"], [])]
    plan = inputs.parent / "plan.json"
    plan.write_text(json.dumps({"inputs": str(inputs), "imports": imports, "scenarios": scenarios}))
    subprocess.run([sys.executable, str(KILLER), str(plan)], check=True)
    found: list[dict[str, Any]] = json.loads((inputs.parent / "kills.json").read_text())["kills"]
    return found


@contextmanager
def server(log: Path, *arguments: object) -> Any:
    """Start a command that serves; it gets SIGKILL at the end of the block at the latest."""
    with log.open("w") as file:
        command = [sys.executable, "-m", "nameonly", *map(str, arguments)]
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def address(log: Path, process: subprocess.Popen[bytes]) -> str:
    """Wait for the address that a server prints."""
    while process.poll() is None:
        for word in log.read_text().split():
            if word.startswith("http://"):
                return word
        time.sleep(0.02)
    raise RuntimeError(log.read_text())


def killed_later(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Kill a process from another thread."""
    threading.Timer(seconds, lambda: os.kill(process.pid, signal.SIGKILL)).start()


def decide_until_killed(url: str) -> int:
    """Send a decision after the other; return how many were answered."""
    answered = 0
    with httpx.Client(base_url=url) as client, suppress(httpx.HTTPError):
        while True:
            image, seen = answered % N_IMAGES, answered - N_IMAGES + 1
            wish = {"image": image, "decision": "none", "seen": max(0, seen)}
            client.post("decisions", json={"decisions": [wish]}).raise_for_status()
            answered += 1
    return answered


def of_server(command: str, stage: str, moment: float, **more: Any) -> dict[str, Any]:
    """Return what came of a kill; a negative moment is one before the server answers."""
    where = {"command": command, "stage": "start" if moment < 0 else stage, "nth": 0}
    fine = {"killed": True, "half_believed": False, "lost": False, "wrong": [], "left": []}
    return {**where, "seconds": abs(moment), "resumed": True, **fine, **more}


def kill_review(inputs: Path, moments: list[float]) -> list[dict[str, Any]]:
    """Kill a review while decisions come in: none that was answered may be gone."""
    run, log, kills = inputs / "run", inputs.parent / "review.log", []
    journal = run / "review.jsonl"
    for moment in moments:
        journal.unlink(missing_ok=True)
        answered = 0
        with server(log, "review", run, "--no-open") as process:
            if moment < 0:
                time.sleep(-moment)
            else:
                url = address(log, process)
                killed_later(process, moment)
                answered = decide_until_killed(url)
        nameonly("review", run, "--finish")
        kept = len(journal.read_text().splitlines()) if journal.exists() else 0
        note = f"{answered} decisions answered, {kept} kept"
        kills.append(of_server("review", "deciding", moment, lost=kept < answered, note=note))
    return kills


def kill_serve(inputs: Path, moments: list[float]) -> list[dict[str, Any]]:
    """Kill a server while it answers; started again it must answer the same and write nothing."""
    log, image = inputs.parent / "serve.log", next((inputs / "photos").iterdir()).read_bytes()
    kills: list[dict[str, Any]] = []

    def ask(url: str) -> bytes:
        headers = {"content-type": "image/png"}
        return httpx.post(f"{url}/predict", content=image, headers=headers).content

    def times() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in (inputs / "run").rglob("*")}

    @contextmanager
    def started() -> Any:
        with server(log, "serve", inputs / "run", "--port", 0, "--device", "cpu") as process:
            yield process, lambda: address(log, process).removesuffix("/predict,")

    before = times()
    with started() as (_, url):
        want = ask(url())
    for moment in moments:
        with started() as (process, url):
            if moment < 0:
                time.sleep(-moment)
            else:
                asked = url()
                killed_later(process, moment)
                with suppress(httpx.HTTPError):
                    while True:
                        ask(asked)
        with started() as (_, url):
            same = ask(url()) == want
        kills.append(of_server("serve", "answering", moment, resumed=same, lost=times() != before))
    return kills


def survived(kill: dict[str, Any]) -> bool:
    """Return whether nothing was lost by a kill."""
    bad = kill["half_believed"] or kill["lost"] or kill["wrong"] or kill["left"]
    return kill["resumed"] and not bad


def outcome(kill: dict[str, Any]) -> str:
    """Return what came of a kill, in words."""
    if not kill["killed"]:
        return "over before it was hit"
    told = "same result" if survived(kill) else f"LOST: {json.dumps(kill)}"
    return f"{told} ({kill['note']})" if "note" in kill else told


def page(kills: list[dict[str, Any]]) -> list[str]:
    """Return the body of the page."""
    lines = [
        "kill -9, then the same command once more. Half file: something that says it is finished "
        "and is not. Lost: a decision or an answer that was there before.",
        "",
        "| command | stages | kills | same result | lost or half |",
        "| --- | --- | --- | --- | --- |",
    ]
    for command in dict.fromkeys(kill["command"] for kill in kills):
        hits = [k for k in kills if k["command"] == command and k["killed"]]
        good = sum(map(survived, hits))
        stages = len({k["stage"] for k in hits})
        lines.append(f"| {command} | {stages} | {len(hits)} | {good} | {len(hits) - good} |")
    lines += ["", "| command | stage | hits |", "| --- | --- | --- |"]
    counts = Counter((k["command"], k["stage"]) for k in kills if k["killed"])
    lines += [f"| {c} | {stage} | {n} |" for (c, stage), n in counts.items()]
    lines += [
        "",
        "Every moment:",
        "",
        "| command | stage | at | outcome |",
        "| --- | --- | --- | --- |",
    ]
    for kill in kills:
        at = f"file operation {kill['nth']}" if kill["nth"] else f"{kill['seconds']:.3f} s"
        lines.append(f"| {kill['command']} | {kill['stage']} | {at} | {outcome(kill)} |")
    return lines


def kill_everything(only: list[str]) -> None:
    """Kill all commands and write the page."""
    with tempfile.TemporaryDirectory() as root:
        inputs = Path(root) / "inputs"
        os.environ.update(NAMEONLY_CACHE=str(Path(root) / "cache"), OMP_NUM_THREADS="1")
        make_inputs(inputs)
        kills = kill_commands(inputs, only)
        if not only or "review" in only:
            kills += kill_review(inputs, [-1.0, -3.0, -5.0, 0.1, 0.3, 0.5, 0.8, 1.2, 2.0])
        if not only or "serve" in only:
            kills += kill_serve(inputs, [-1.0, -3.0, -5.0, 0.1, 0.5, 1.0])
    hits = [kill for kill in kills if kill["killed"]]
    figures = {"kills": len(hits), "survived": sum(map(survived, hits))}
    write("faults", figures | {"lost": figures["kills"] - figures["survived"]}, page(kills))


def fuzz(examples: int) -> None:
    """Run the tests of broken input with many examples, and write what became of these."""
    with tempfile.TemporaryDirectory() as folder:
        told = {"NAMEONLY_FUZZ_EXAMPLES": str(examples), "NAMEONLY_FUZZ_COUNTS": folder}
        # without the checks of types and shapes that tests have and users have not
        options = ["-q", "-o", "addopts=--import-mode=importlib", "--timeout=36000", "-n", "2"]
        subprocess.run(
            [sys.executable, "-m", "pytest", *options, "tests/fuzz"],
            cwd=ROOT,
            env={**os.environ, **told, "OMP_NUM_THREADS": "1"},
            check=True,
        )
        rows = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))]
    lines = [
        "Broken input, derandomised. Read: it was still whole enough. Refused: one clear error, a "
        "row of the quarantine or a status of 4xx. Anything else would have failed the run, and so "
        "would more than 20 s or 256 MB for one of them. Memory: by how much it raised the "
        "process's peak.",
        "",
        "| input | tried | read | refused | slowest, s | most memory, MB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        counts = " | ".join(f"{row[key]:,}" for key in ("tried", "read", "refused"))
        lines.append(f"| {row['input']} | {counts} | {row['slowest']:.2f} | {row['grew']:.0f} |")
    figures = {key: sum(row[key] for row in rows) for key in ("tried", "read", "refused")}
    write("fuzz", figures, lines)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", default=[], help="a command; repeatable")
    parser.add_argument("--fuzz", type=int, help="run the tests of broken input instead")
    options = parser.parse_args()
    if options.fuzz:
        fuzz(options.fuzz)
    else:
        kill_everything(options.only)


if __name__ == "__main__":
    main()
