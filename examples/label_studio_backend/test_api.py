# ruff: noqa: D103
"""Run against a server: NAMEONLY_URL=http://127.0.0.1:8000 pytest test_api.py.

The server runs a classifier of the digits of `nameonly demo`; DIGITS names the folder of images.
"""

import os
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from _wsgi import app

DIGITS = Path(os.environ["DIGITS"])
NAMES = ("Zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CONFIG = (
    '<View><Image name="image" value="$picture"/><Choices name="class" toName="image">'
    + "".join(f'<Choice value="{name}"/>' for name in NAMES)
    + "</Choices></View>"
)


@pytest.fixture
def client():
    with app.test_client() as made:
        setup = {"project": "1.1", "schema": CONFIG, "hostname": "", "access_token": ""}
        assert made.post("/setup", json=setup).status_code == 200
        yield made


@pytest.fixture(scope="module")
def web():
    """Serves the digits, as a storage does whose addresses are in the tasks."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(DIGITS))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def ask(client, addresses):
    tasks = [{"id": i, "data": {"picture": one}} for i, one in enumerate(addresses)]
    request = {"tasks": tasks, "project": "1.1", "label_config": CONFIG, "params": {}}
    answer = client.post("/predict", json=request)
    assert answer.status_code == 200, answer.text
    return answer.get_json()["results"]


def test_health(client):
    assert client.get("/health").get_json()["status"] == "UP"


def test_every_image_has_a_prediction(client, web):
    found = ask(client, [f"{web}/digit-{i:04d}.png" for i in range(40)])
    assert len(found) == 40
    choices = [one["result"][0]["value"]["choices"][0] for one in found]
    assert choices[:4] == ["Zero", "one", "two", "three"]
    assert all(0 < one["score"] <= 1 for one in found)
    assert found[0]["result"][0]["from_name"] == "class"
    assert found[0]["result"][0]["to_name"] == "image"


def test_one_bad_image_loses_no_other(client, web):
    found = ask(client, [f"{web}/gone.png", f"{web}/digit-0000.png", "/no/address.png"])
    assert [len(one["result"]) for one in found] == [0, 1, 0]
    assert ask(client, [f"{web}/gone.png"])[0]["result"] == []
