import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx
import pytest
from serving import as_files, wait_for

# torch and transformers are imported once for both runs
TWICE = """
import sys
from nameonly import cli
for _ in range(2):
    try:
        cli.main()
    except SystemExit as end:
        print("ended with", end.code, file=sys.stderr, flush=True)
"""
OPTIONS = ("--port", "0", "--max-wait-ms", "1500", "--batch-size", "64", "--device", "cpu")


@pytest.fixture(scope="module")
def program(run_folder, tmp_path_factory):
    """`nameonly serve`, run twice in a process of its own, and the file of what it says."""
    path = tmp_path_factory.mktemp("serve-command") / "stderr"
    with path.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", TWICE, "serve", str(run_folder), *OPTIONS], stderr=file
        )
        yield process, path
        process.kill()
        process.wait()


@pytest.fixture
def serve(nameonly, program):
    """Run the command line here; the other process starts meanwhile."""
    return partial(nameonly, "serve")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--allow-folder", "nowhere"], "--allow-folder expects a folder"),
        (["--allow-private-addresses"], "give both"),
        (["--max-queue", "3"], "may hold 64 images, but only 3"),
        (["--host", "no such host"], "cannot listen on no such host"),
        (["--host", "203.0.113.7"], "cannot listen on 203.0.113.7"),
        (["--device", "toaster"], "device 'toaster'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(serve, run_folder, arguments, words):
    code, _, said = serve(run_folder, *arguments, "--port", "0")
    last = said.strip().splitlines()[-1]
    assert code == 2 and last.startswith("error: ") and words in last, said


def test_a_port_that_is_taken_is_told(serve, run_folder):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, _, said = serve(run_folder, "--port", port)
    assert code == 2 and f"port {port}" in said and "choose another --host or --port" in said


def test_what_is_no_classifier_is_told(serve, tmp_path):
    code, _, said = serve(tmp_path)
    assert code == 2 and "is not a classifier" in said


@pytest.mark.parametrize("module", ["fastapi", "uvicorn", "python_multipart", "prometheus_client"])
def test_a_missing_package_names_the_extra(serve, run_folder, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    code, _, said = serve(run_folder, "--port", "0")
    assert code == 2 and "pip install 'nameonly[serve]'" in said


def test_a_classifier_that_cannot_score_images_is_told(serve, run_folder, monkeypatch):
    def broken(*_):
        raise RuntimeError("no kernel image")

    monkeypatch.setattr("nameonly.backbones.clip.ClipBackbone.encode_pixels", broken)
    code, _, said = serve(run_folder, "--port", "0")
    assert code == 2 and "fails on a plain grey image (no kernel image)" in said


def test_help_names_the_options(serve):
    assert "--allow-folder" in serve("--help").stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_requests_be_answered(program, pictures, number):
    process, said = program
    which = int(number == signal.SIGINT)
    wait_for(lambda: len(re.findall("http://.*/predict", said.read_text())) == which + 1, 120)
    base = re.findall("(http://.*)/predict", said.read_text())[which]
    assert base.startswith("http://127.0.0.1:")
    with httpx.Client(base_url=base, timeout=30) as client, ThreadPoolExecutor(8) as pool:
        asked = [
            pool.submit(client.post, "/predict", files=as_files(pictures[i])) for i in range(8)
        ]
        wait_for(lambda: "nameonly_queue_images 8.0" in client.get("/metrics").text)
        process.send_signal(number)
        time.sleep(0.5)
        with pytest.raises(OSError):
            socket.create_connection((client.base_url.host, client.base_url.port), 5)
        early = [one.done() for one in asked]
        answers = [one.result() for one in asked]
    assert {one.status_code for one in answers} == {200} and not any(early)
    assert all(one.json()["images"][0]["label"] for one in answers)
    wait_for(lambda: said.read_text().count("ended with 0") == which + 1)
    assert "Traceback" not in said.read_text() and "warning" not in said.read_text()
    if which:
        assert process.wait(20) == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_socket_says_that_it_is_of_tcp(host):
    """Or asyncio leaves Nagle's delay on, and every answer takes 40 ms more."""
    from nameonly.serve.server import bind

    with bind(host, 0) as taken:
        assert taken.proto == socket.IPPROTO_TCP and taken.getsockname()[1]


def test_which_hosts_are_of_this_machine_alone():
    from nameonly.serve.server import is_local

    assert all(map(is_local, ("127.0.0.1", "127.3.2.1", "::1", "localhost")))
    assert not any(map(is_local, ("0.0.0.0", "::", "192.168.1.2", "example.org", "")))
