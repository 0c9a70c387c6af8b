"""Runs one labelling job again and again in forked children and kills each at another step.

A step is a file operation (opening to write, renaming, removing, making a folder) or a Python
function call. Started as a program by ``test_faults.py``: torch's thread pools do not survive a
fork, so the parent imports what the children need and computes nothing.
"""

import json
import os
import signal
import sys
import traceback
from pathlib import Path

import pyarrow.dataset  # noqa: F401
from PIL import Image
from transformers import (  # noqa: F401 - so that the children find them imported
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoTokenizer,
    CLIPModel,
)
from transformers.models.clip import image_processing_pil_clip, tokenization_clip  # noqa: F401

from nameonly import encoding, jobs
from nameonly.backbones.clip import ClipBackbone
from nameonly.tiny.digits import CLASS_NAMES

Image.init()  # Pillow's readers, which each child would import by itself
WRITES = os.O_WRONLY | os.O_RDWR
FILE_EVENTS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir")
STAGES = (
    *("load", "ingest", "encode", "text", "adapt", "decide", "assess", "write", "report"),
    "publish",
)


class Killer:
    """Counts steps by stage; at the chosen one the process gets SIGKILL."""

    def __init__(self, stage: str = "", kind: str = "", nth: int = 0) -> None:
        self.target = (stage, kind, nth)
        self.stage = ""
        self.steps: dict[str, dict[str, int]] = {}

    def begin(self, stage: str) -> None:
        self.stage = stage

    def step(self, kind: str) -> None:
        if not self.stage:
            return
        counts = self.steps.setdefault(self.stage, {"file": 0, "call": 0})
        counts[kind] += 1
        if (self.stage, kind, counts[kind]) == self.target:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(self, event: str, arguments: tuple) -> None:
        writing = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES
        if writing or event in FILE_EVENTS:
            self.step("file")

    def profile(self, frame, event, argument) -> None:
        # run.json is written outside any stage, and the folder is moved into place after it
        if event == "call":
            if frame.f_code.co_name == "write_run":
                self.stage = "publish"
            self.step("call")


def run(images: Path, out: Path, cache: Path, killer: Killer | None) -> None:
    """Label in this process, watched where there is a killer."""
    encoding.ROWS_PER_SHARD = 16
    backbone = ClipBackbone("tiny", device="cpu", dtype="float32", batch_size=16)
    options = {"out": out, "cache": cache, "overwrite": True}
    if killer is None:
        jobs.label(images, CLASS_NAMES, backbone=backbone, **options)
        return
    _ = backbone.network
    sys.addaudithook(killer.audit)
    sys.setprofile(killer.profile)
    jobs.label(images, CLASS_NAMES, backbone=backbone, on_stage=killer.begin, **options)
    sys.setprofile(None)
    killer.stage = ""


def forked(work) -> int:
    """Run ``work`` in a child; return its exit code, negative where a signal ended it."""
    child = os.fork()
    if child == 0:
        code = 0
        try:
            work()
        except BaseException:
            traceback.print_exc()
            code = 1
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def moments(steps: dict[str, dict[str, int]]):
    """Yield every file operation of every stage, and three function calls spread over each."""
    for stage in STAGES:
        for nth in range(1, steps[stage]["file"] + 1):
            yield stage, "file", nth
        for share in (0.1, 0.5, 0.9):
            yield stage, "call", max(1, int(share * steps[stage]["call"]))


def main(images: Path, root: Path) -> None:
    """Kill, run again, and write ``kills.json``: one line per kill, and what was left."""

    def count() -> None:
        killer = Killer()
        run(images, root / "counted", root / "cache-counted", killer)
        (root / "steps.json").write_text(json.dumps(killer.steps))

    assert forked(lambda: run(images, root / "reference", root / "cache-reference", None)) == 0
    assert forked(count) == 0
    steps = json.loads((root / "steps.json").read_text())
    want = (root / "reference" / "labels.parquet").read_bytes()
    kills = []
    for number, moment in enumerate(moments(steps)):
        out, cache = root / f"out-{number}", root / f"cache-{number}"
        first = forked(lambda o=out, c=cache, m=moment: run(images, o, c, Killer(*m)))
        whole = not (out / "run.json").exists() or (out / "labels.parquet").read_bytes() == want
        again = forked(lambda o=out, c=cache: run(images, o, c, None))
        kills.append(
            {
                "moment": moment,
                "killed": first == -signal.SIGKILL,
                "no_half_run_believed": whole,
                "resumed": again == 0,
                "same_labels": again == 0 and (out / "labels.parquet").read_bytes() == want,
                "left": [p.name for p in root.iterdir() if p.name.startswith(f".{out.name}")],
            }
        )
    (root / "kills.json").write_text(json.dumps(kills))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
