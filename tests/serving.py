"""A server in a thread of the test, and models that fail as they are told."""

import threading
import time
from contextlib import contextmanager

import httpx

from nameonly.serve.app import Service, create_app
from nameonly.serve.model import ServedClassifier
from nameonly.serve.server import bind, make_server
from nameonly.serve.settings import Options


@contextmanager
def running(model, options=None):
    """Serve a model on a free port: a client of it, and the service."""
    options = options or Options()
    service = Service(model, options)
    server = make_server(create_app(service), options)
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]})
        thread.start()
        wait_for(lambda: server.started)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                yield client, service
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()
            assert not service.batcher.running


def wait_for(condition, seconds=20):
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.005)


def as_files(*images):
    """The field ``files`` of a form: bytes, or (name, bytes)."""
    pairs = [one if isinstance(one, tuple) else (f"{i}.png", one) for i, one in enumerate(images)]
    return [("files", pair) for pair in pairs]


class HeldModel(ServedClassifier):
    """Scores nothing until it is let go."""

    def __init__(self, classifier, max_pixels=4 * 10**6):
        super().__init__(classifier, max_pixels)
        self.free = threading.Event()
        self.begun = threading.Event()

    def score(self, inputs):
        self.begun.set()
        assert self.free.wait(30)
        return super().score(inputs)


class FailingModel(ServedClassifier):
    """Raises ``error`` on batches for which ``fails`` is true."""

    def __init__(self, classifier, fails, error):
        super().__init__(classifier, 4 * 10**6)
        self.fails, self.error = fails, error

    def score(self, inputs):
        if self.fails(inputs):
            raise self.error
        return super().score(inputs)
