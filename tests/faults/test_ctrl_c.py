"""Ctrl-C in a stage: a clean stop at once, and the same command goes on."""

import os
import signal
import subprocess
import sys
import time

import pytest

from nameonly.jobs import label
from nameonly.tiny.digits import CLASS_NAMES

SECONDS = 2


def begun(log, stage, process):
    """Wait for a run's journal to say that a stage has begun."""
    while process.poll() is None:
        if log.exists() and f'"begin", "stage": "{stage}"' in log.read_text():
            return
        time.sleep(0.01)
    raise AssertionError(process.communicate())


def patience():
    """Two seconds, and more of them where more programs run than there are cores."""
    return SECONDS * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["encode", "adapt"])
def test_ctrl_c_stops_at_once_and_the_same_command_goes_on(
    photos, undisturbed, tiny, tmp_path, stage
):
    out, cache = tmp_path / "out", tmp_path / "cache"
    words = ["label", str(photos), "-c", ",".join(CLASS_NAMES), "--backbone", "tiny"]
    words += ["--device", "cpu", "--dtype", "float32", "--batch-size", "16"]
    words += ["--out", str(out), "--cache", str(cache)]
    words += ["--set", "adapters.steps=1000000"]  # the signal must come before the end
    # a shell's background jobs ignore the signal, and so would a child of theirs
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "nameonly", *words], stderr=subprocess.PIPE, text=True
        )
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        begun(tmp_path / ".out.nameonly-partial" / "log.jsonl", stage, process)
        process.send_signal(signal.SIGINT)
        sent = time.monotonic()
        _, errors = process.communicate(timeout=60)
        took = time.monotonic() - sent
    finally:
        process.kill()
    assert process.returncode == 130 and "the same command goes on" in errors
    assert "Traceback" not in errors and took < patience(), took
    assert not out.exists() and not list(tmp_path.glob(".out*"))
    run = label(photos, CLASS_NAMES, backbone=tiny, cache=cache, out=out)
    assert run.table.equals(undisturbed[0])
    assert stage == "encode" or run.summary["counts"]["encoded_now"] == 0
