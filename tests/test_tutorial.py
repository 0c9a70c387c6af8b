"""Every block of docs/tutorial.md is run, in order; what it prints is what the page shows."""

import io
import re
import shlex
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path
from urllib.request import urlopen

import pytest
from serving import wait_for

from nameonly import cli

PAGE = Path(__file__).parents[1] / "docs" / "tutorial.md"
FENCE = re.compile(r"^```(\w*)\n", re.M)
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
PORT = "8000"


def blocks():
    """Language, text and expected output of every block; blocks with a reason are left out."""
    found = []
    before, *parts = FENCE.split(PAGE.read_text(encoding="utf-8"))
    for language, inside in zip(parts[::2], parts[1::2], strict=True):
        reason = before.rstrip().rpartition("\n\n")[2].startswith("*Not run by the test, ")
        if language == "text":
            found[-1][2] = inside
        elif language and not reason:
            found.append([language, inside, None])
        before = inside
    return found


def commands(text):
    return [shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines()]


def served(serve, ask, port):
    """Run a block that serves until another has asked, as Ctrl-C would end it; what that prints."""
    assert threading.current_thread() is threading.main_thread()

    def answered():
        try:
            with urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return True
        except OSError:
            return False

    def client():
        wait_for(answered, 60)
        try:
            return run(*ask)
        finally:
            signal.raise_signal(signal.SIGINT)

    with ThreadPoolExecutor(1) as other:
        asked = other.submit(client)
        run(*serve)
        return asked.result()


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return str(taken.getsockname()[1])


def run(language, text, names):
    """Return what a block prints."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        if language == "python":
            exec(compile(text, str(PAGE), "exec"), names)
        else:
            assert language == "bash"
            for program, *arguments in commands(text):
                assert program == "nameonly", "a block of shell runs nameonly alone"
                cli.app(arguments, standalone_mode=False)
    return printed.getvalue()


def check(printed, expected):
    """The words are the same, and the numbers nearly so; durations may be any."""
    if expected.endswith("...\n"):
        expected = expected.removesuffix("...\n")
        printed = "\n".join(printed.splitlines()[: len(expected.splitlines())])
    printed, expected = (re.sub(r"in [\d.]+ s\b", "in 1 s", text) for text in (printed, expected))
    assert NUMBER.sub("N", printed).split() == NUMBER.sub("N", expected).split()
    for pair in zip(NUMBER.findall(printed), NUMBER.findall(expected), strict=True):
        read, shown = (float(number.replace(",", "")) for number in pair)
        assert abs(read - shown) <= max(5, 0.1 * shown), (pair, printed)


@pytest.mark.slow
def test_the_tutorial_runs_and_prints_what_it_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    port, names = free_port(), {}
    found = [[a, b.replace(PORT, port), c] for a, b, c in blocks()]
    assert len(found) > 12
    while found:
        language, text, expected = found.pop(0)
        if "nameonly serve" in text:
            (asking, question, expected) = found.pop(0)
            printed = served((language, text, names), (asking, question, names), port)
        else:
            printed = run(language, text, names)
        if expected is not None:
            check(printed, expected)


def test_blocks_that_are_not_run_say_why():
    text = PAGE.read_text(encoding="utf-8")
    assert text.count("*Not run by the test, ") == 2
    assert len(re.findall(r"^```(?:bash|python)$", text, re.M)) == len(blocks()) + 2
