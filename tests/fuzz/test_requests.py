"""Broken requests to the two servers have an answer of 4xx, and the servers go on."""

import json

import httpx
import pytest
from fuzzing import damages, fuzzed, places_of, replaced, values
from hypothesis import given
from hypothesis import strategies as st
from reviewing import serving as reviewing
from reviewing import small_run
from serving import running

KINDS = (
    *("multipart/form-data; boundary=b", "application/json", "image/png", "text/plain"),
    *("multipart/form-data", "application/octet-stream", "multipart/form-data; boundary="),
)


class Refused(Exception):  # noqa: N818  an answer, not an error
    """A request was answered with a status of 4xx."""


def asked(answer):
    """Return an answer; a refusal that says why is raised, and anything else fails the test."""
    assert answer.status_code < 500, (answer.status_code, answer.text[:500])
    if answer.status_code >= 400:
        raise Refused(answer.text)
    return answer.json()


@pytest.fixture(scope="module")
def server(run_folder):
    from nameonly import load
    from nameonly.serve.model import ServedClassifier

    with running(ServedClassifier(load(run_folder, device="cpu"), 4 * 10**6)) as (client, _):
        yield client


def test_broken_bodies_to_serve(server, run_folder, tally):
    counts = tally("HTTP body: serve", Refused)
    image = next((run_folder.parent / "photos").iterdir()).read_bytes()
    part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    bodies = (
        part + image + b"\r\n" + part + image + b"\r\n--b--\r\n",
        b'[{"path": "a.png"}, {"url": "http://localhost/a.png"}]',
        image,
    )

    @fuzzed(80)
    @given(st.sampled_from(bodies), damages, st.sampled_from(KINDS))
    def check(body, damage, kind):
        headers = {"content-type": kind}
        send = lambda: server.post("/predict", content=damage.of(body), headers=headers)  # noqa: E731
        counts.attempt(lambda: asked(send()))

    check()
    assert server.get("/health").status_code == 200
    fine = server.post("/predict", content=image, headers={"content-type": "image/png"})
    assert fine.status_code == 200


@pytest.fixture(scope="module")
def review(tmp_path_factory):
    run = small_run(tmp_path_factory.mktemp("review"), 12)
    with reviewing(run) as served, httpx.Client(base_url=served.url) as client:
        yield client, served


WISH = {"decisions": [{"image": 1, "decision": "label", "class": 0, "seen": 0, "queue": 1}]}


def test_broken_bodies_to_review(review, tally):
    client, served = review
    counts = tally("HTTP body: review", Refused)
    headers = {"content-type": "application/json"}

    @fuzzed(60)
    @given(st.sampled_from(list(places_of(WISH))), values | st.just(...), st.none() | damages)
    def check(place, value, damage):
        body = json.dumps(replaced(WISH, place, value)).encode()
        body = body if damage is None else damage.of(body)
        before = served.decisions.revision
        answer = client.post("decisions", content=body, headers=headers)
        counts.attempt(lambda: asked(answer))
        # what was refused is not written down
        assert served.decisions.revision == before + (answer.status_code == 200)

    check()
    assert client.get("queues").status_code == 200


@pytest.mark.parametrize("path", ["small", "large", "queues", "page", "changes?since="])
def test_broken_addresses_of_review(review, tally, path):
    client, _ = review
    counts = tally(f"HTTP path: review, {path.split('?')[0]}", Refused)

    @fuzzed(25)
    @given(st.text(max_size=12) | st.integers().map(str) | st.just("../../run.json"))
    def check(rest):
        quoted = "".join(f"%{byte:02X}" for byte in rest.encode("utf-8", "replace"))
        whole = f"{path}{quoted}" if "?" in path else f"{path}/{quoted}"
        answer = client.get(whole)
        assert answer.status_code < 500, (whole, answer.text)
        counts.attempt(lambda: None if answer.status_code < 400 else asked(answer))

    check()
