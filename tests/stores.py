"""Real servers on this machine's own address: an object store and web servers."""

import contextlib
import functools
import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path


class Web(http.server.SimpleHTTPRequestHandler):
    """Serves a folder as Python does, without ranges; notes what it is asked for."""

    asked: list[tuple[str, str]]
    faults: dict[str, list[int]]

    def log_message(self, *words):
        pass

    def send_error(self, code, message=None, explain=None):
        super().send_error(code, "said", "explained")

    def do_GET(self):
        path = self.path.partition("?")[0]
        self.asked.append((path, self.headers.get("Range", "")))
        fault = self.faults[path].pop(0) if self.faults.get(path) else 0
        if fault == 1:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif fault:
            self.send_error(fault)
        else:
            self.give()

    def give(self):
        super().do_GET()


class RangeWeb(Web):
    """Also gives ranges."""

    def give(self):
        wanted, path = self.headers.get("Range"), Path(self.translate_path(self.path))
        if wanted is None or not path.is_file():
            super().give()
            return
        data = path.read_bytes()
        first, last = (int(text) for text in wanted.removeprefix("bytes=").split("-"))
        piece = data[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{first + len(piece) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(piece)))
        self.end_headers()
        self.wfile.write(piece)


@contextlib.contextmanager
def web(folder, kind=RangeWeb, port=0):
    """Serve a folder; gives the server, whose handler class has ``asked`` and ``faults``."""
    handler = type("Handler", (kind,), {"asked": [], "faults": {}})
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", port), functools.partial(handler, directory=str(folder))
    )
    server.handler = handler
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


# gcsfs asks by gRPC what kind of bucket it is, and waits a minute where nobody answers
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
PYTHON = (sys.executable, "-W", "ignore", "-m")
HERE = "127.0.0.1"


def object_store(port):
    """Run an S3 server as a process of its own; gives the process."""
    return _server(port, *PYTHON, "moto.server", "-H", HERE, "-p", str(port))


def google_store(port):
    """Run a server of Google's storage as a process of its own; gives the process."""
    words = ("start", "--host", HERE, "--port", str(port), "--in-memory")
    return _server(port, *PYTHON, "gcp_storage_emulator", *words, "--default-bucket", "bucket")


def azure_store(port, folder):
    """Run a server of Azure's storage as a process of its own; gives the process."""
    words = ("--blobHost", HERE, "--blobPort", str(port), "--location", str(folder))
    telling = ("--silent", "--disableTelemetry", "--skipApiVersionCheck")
    return _server(port, "azurite-blob", *words, *telling)


@contextlib.contextmanager
def _server(port, *command):
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONWARNINGS": ""},
    )
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            assert process.poll() is None, f"{command} ended"
            time.sleep(0.1)
        yield process
    finally:
        process.kill()
        process.wait()
