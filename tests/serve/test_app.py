import io
import logging
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import pytest
from awkward import bad_files, encode, good_files, plain, png_header
from PIL import Image
from serving import FailingModel, HeldModel, as_files, running, wait_for

from nameonly.decisions.abstain import Abstain
from nameonly.serve.batching import Batching
from nameonly.serve.model import ServedClassifier
from nameonly.serve.settings import Options
from nameonly.serve.sources import Allowed
from nameonly.sources.decoding import decode


def told(classifier, datas):
    """What the classifier itself says."""
    found = classifier.predict([Image.open(io.BytesIO(data)) for data in datas])
    names = classifier.label_space.class_names
    return [names[i] for i in found.labels.tolist()], found.probs


def same(images, classifier, datas):
    labels, probs = told(classifier, datas)
    assert [one["label"] for one in images] == labels
    for one, row in zip(images, probs, strict=True):
        by_name = {found["name"]: found["probability"] for found in one["classes"]}
        want = dict(zip(classifier.label_space.class_names, row.tolist(), strict=True))
        assert by_name == pytest.approx(want, abs=2e-5)
        assert one["probability"] == max(by_name.values()) and one["error"] is None
        assert list(by_name.values()) == sorted(by_name.values(), reverse=True)


def counted(client, name):
    found = re.search(rf"^{re.escape(name)} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_it_says_what_the_classifier_says(server, classifier, pictures):
    got = server.post("/predict?top=10", files=as_files(*pictures))
    assert got.status_code == 200
    same(got.json()["images"], classifier, pictures)
    assert [one["name"] for one in got.json()["images"]] == [f"{i}.png" for i in range(64)]


@pytest.mark.parametrize("batching", [Batching(1, 0.0), Batching(5, 0.01), Batching(64, 0.1)])
def test_it_says_the_same_whatever_the_batches_are(model, classifier, pictures, batching):
    def ask(client, data):
        return client.post("/predict?top=10", files=as_files(data)).json()["images"][0]

    with running(model, Options(batching)) as (client, _), ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda data: ask(client, data), pictures[:24]))
    same(got, classifier, pictures[:24])


def test_a_bare_body_is_an_image(server, classifier, pictures):
    for kind in ("image/png", "image/jpeg", "application/octet-stream"):
        got = server.post("/predict?top=10", content=pictures[0], headers={"Content-Type": kind})
        same(got.json()["images"], classifier, pictures[:1])


@pytest.mark.parametrize("top", [1, 3, 10, 1000])
def test_top_says_how_many_classes(server, pictures, top):
    got = server.post(f"/predict?top={top}", files=as_files(pictures[0])).json()["images"][0]
    assert len(got["classes"]) == min(top, 10)
    assert got["classes"][0] == {"name": got["label"], "probability": got["probability"]}


@pytest.mark.parametrize("top", ["0", "-1", "x", "1001", ""])
def test_a_wrong_top_is_refused(server, pictures, top):
    got = server.post(f"/predict?top={top}", files=as_files(pictures[0]))
    assert got.status_code == 422 and "top" in str(got.json()["detail"])


def test_one_bad_file_loses_no_other(server, classifier, pictures):
    bad, good = bad_files(), good_files()
    mixed = [(name, data) for name, (data, _) in bad.items()]
    mixed += [*good.items(), ("digit.png", pictures[0])]
    got = server.post("/predict?top=10", files=as_files(*mixed))
    assert got.status_code == 200
    images = got.json()["images"]
    assert [one["name"] for one in images] == [name for name, _ in mixed]
    for one, (_, (_, why)) in zip(images, bad.items(), strict=False):
        assert why in one["error"] and one["label"] is None and one["classes"] == []
    same(images[len(bad) :], classifier, [*good.values(), pictures[0]])


def test_no_usable_image_is_422_and_says_why(server):
    got = server.post("/predict", files=as_files(b"no image", b""))
    assert got.status_code == 422 and "none of the images" in got.json()["detail"]
    assert "not an image" in got.json()["images"][0]["error"]
    assert "zero bytes" in got.json()["images"][1]["error"]


def test_bombs_are_refused_before_they_are_decoded(server, monkeypatch):
    decoded = []
    monkeypatch.setattr(
        "nameonly.serve.model.decode", lambda data: decoded.append(len(data)) or decode(data)
    )
    strip = encode(plain("L", 0, (1, 30_000)), "PNG")
    over = encode(plain("L", 0, (2100, 2000)), "PNG")
    bombs = [png_header(60_000, 60_000), png_header(9_999, 9_999), over, strip]
    got = server.post("/predict", files=as_files(*bombs))
    errors = [one["error"] for one in got.json()["images"]]
    assert got.status_code == 422 and decoded == []
    assert all("too large" in error for error in errors[:3])
    assert "2100 x 2000 pixels, at most 4000000" in errors[2]
    assert "too long and narrow: 1 x 30000" in errors[3]


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        ({"content": b"x"}, 415, "expected multipart/form-data"),
        ({"content": b"x", "headers": {"Content-Type": "text/plain"}}, 415, "'text/plain'"),
        ({"files": [("photo", ("a.png", b"x"))]}, 422, "the field 'files', got 'photo'"),
        ({"files": [("files", (None, b"x"))]}, 422, "expected files in the field"),
        ({"content": b"", "headers": {"Content-Type": "multipart/form-data"}}, 400, "damaged"),
        (
            {"content": b"--x", "headers": {"Content-Type": "multipart/form-data; boundary=y"}},
            400,
            "damaged",
        ),
        (
            {
                "content": b"--y--\r\n",
                "headers": {"Content-Type": "multipart/form-data;boundary=y"},
            },
            422,
            "no image",
        ),
        ({"json": {"url": "http://127.0.0.1/"}}, 403, "--allow-urls"),
        ({"json": {"path": "/etc/passwd"}}, 403, "--allow-folder"),
        ({"json": [{"path": "a"}, {"url": "b"}]}, 403, "--allow-folder"),
        ({"json": {"file": "a"}}, 422, "expected {"),
        ({"json": {"url": 3}}, 422, "expected text for 'url', got int"),
        ({"json": {"url": "a", "path": "b"}}, 422, "expected {"),
        ({"json": []}, 422, "no image"),
        ({"content": b"null", "headers": {"Content-Type": "application/json"}}, 422, "expected {"),
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 400, "not JSON"),
        ({"content": b"[" * 9**5, "headers": {"Content-Type": "application/json"}}, 400, "JSON"),
        ({"content": b"\xff", "headers": {"Content-Type": "application/json"}}, 400, "not JSON"),
    ],
)
def test_what_is_not_understood_is_refused_with_a_reason(server, request_, status, words):
    got = server.post("/predict", **request_)
    assert (got.status_code, words in got.json()["detail"]) == (status, True), got.text


@pytest.mark.parametrize("charset", ["utf-16", "zlib", "punycode", "unicode_escape", "nonsense"])
def test_names_in_strange_alphabets_harm_nothing(server, pictures, charset):
    head = '--b\r\nContent-Disposition: form-data; name="files"; filename="\\ud800é"\r\n\r\n'
    body = head.encode() + pictures[0] + b"\r\n--b--\r\n"
    kind = f"multipart/form-data; boundary=b; charset={charset}"
    got = server.post("/predict", content=body, headers={"Content-Type": kind})
    assert got.status_code == 200 and got.json()["images"][0]["label"]


def test_a_request_that_is_too_large_is_refused(model, pictures):
    with running(model, Options(max_bytes=50_000, max_images=3)) as (client, _):
        for body in (bytes(50_001), iter([bytes(30_000)] * 2), bytes(20_000_000)):
            got = client.post("/predict", content=body, headers={"Content-Type": "image/png"})
            assert got.status_code == 413 and "larger than 50000 bytes" in got.json()["detail"]
        for files in (as_files(*pictures[:4]), as_files(*[b"x"] * 200)):
            got = client.post("/predict", files=files)
            assert got.status_code == 413 and "more than 3 images" in got.json()["detail"]
        many = client.post("/predict", json=[{"path": "a"}] * 4)
        assert many.status_code == 403
        assert client.post("/predict", files=as_files(*pictures[:3])).status_code == 200
        assert counted(client, 'nameonly_requests_total{status="413"}') == 5


def test_a_size_that_is_announced_is_refused_before_it_comes(server):
    with socket.create_connection((server.base_url.host, server.base_url.port)) as plain:
        plain.sendall(
            b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\n"
            b"Expect: 100-continue\r\nContent-Length: 999999999\r\n\r\n"
        )
        plain.settimeout(10)
        assert plain.recv(100).startswith(b"HTTP/1.1 413")


def test_a_client_that_sends_all_before_it_reads_has_its_answer(model):
    head = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\n"
    with (
        running(model, Options(max_bytes=1000)) as (client, _),
        socket.create_connection((client.base_url.host, client.base_url.port)) as plain,
    ):
        plain.settimeout(10)
        plain.sendall(head + b"Content-Length: 20000000\r\n\r\n" + bytes(20_000_000))
        assert plain.recv(100).startswith(b"HTTP/1.1 413")


def test_the_bytes_of_all_requests_together_are_bounded(classifier, pictures):
    model = HeldModel(classifier)
    data = pictures[0] + bytes(1000 - len(pictures[0]))
    headers = {"Content-Type": "image/png"}
    with (
        running(model, Options(max_bytes=1000)) as (client, service),
        ThreadPoolExecutor(9) as pool,
    ):
        first = [
            pool.submit(client.post, "/predict", content=data, headers=headers) for _ in range(8)
        ]
        wait_for(lambda: service._budget.taken == 8000)
        got = client.post("/predict", content=data, headers=headers)
        assert got.status_code == 503 and "too many bytes" in got.json()["detail"]
        model.free.set()
        assert {one.result().status_code for one in first} == {200}
        wait_for(lambda: service._budget.taken == 0)


def test_a_full_queue_is_503_with_a_time_to_wait(classifier, pictures):
    model = HeldModel(classifier)
    options = Options(Batching(2, 0.0, capacity=6), max_images=6)
    with running(model, options) as (client, service), ThreadPoolExecutor(8) as pool:
        first = pool.submit(client.post, "/predict", files=as_files(*pictures[:5]))
        wait_for(lambda: service.batcher.under_way == 5)
        got = client.post("/predict", files=as_files(*pictures[:2]))
        assert got.status_code == 503 and got.headers["retry-after"] == "1"
        second = pool.submit(client.post, "/predict", files=as_files(pictures[0]))
        wait_for(lambda: service.batcher.under_way == 6)
        assert client.post("/predict", files=as_files(pictures[0])).status_code == 503
        assert counted(client, "nameonly_queue_images") == 6
        model.free.set()
        assert first.result().status_code == second.result().status_code == 200
        assert client.post("/predict", files=as_files(*pictures[:6])).status_code == 200


def test_a_request_that_takes_too_long_is_504_and_the_next_is_answered(classifier, pictures):
    model = HeldModel(classifier)
    with running(model, Options(Batching(4, 0.0), timeout=0.3)) as (client, service):
        begun = time.monotonic()
        got = client.post("/predict", files=as_files(*pictures[:9]))
        assert got.status_code == 504 and 0.2 < time.monotonic() - begun < 5
        model.free.set()
        wait_for(lambda: service.batcher.under_way == 0)
        assert client.post("/predict", files=as_files(pictures[0])).status_code == 200
        assert counted(client, "nameonly_batch_images_sum") < 9


def test_a_body_that_comes_too_slowly_is_408(model):
    with running(model, Options(timeout=0.3)) as (client, service):
        with socket.create_connection((client.base_url.host, client.base_url.port)) as slow:
            slow.sendall(
                b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\n"
                b"Content-Length: 100\r\n\r\nabc"
            )
            slow.settimeout(10)
            assert slow.recv(100).startswith(b"HTTP/1.1 408")
        wait_for(lambda: service._budget.taken == 0)


def test_a_client_that_goes_away_harms_nothing(server, caplog):
    before = counted(server, 'nameonly_requests_total{status="500"}')
    for head in (b"abc", b""):
        with socket.create_connection((server.base_url.host, server.base_url.port)) as gone:
            gone.sendall(
                b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\n"
                b"Content-Length: 100\r\n\r\n" + head
            )
            time.sleep(0.05)
    assert server.get("/health").status_code == 200
    assert counted(server, 'nameonly_requests_total{status="500"}') == before
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]


def test_an_image_on_which_the_model_fails_spoils_no_other(classifier, pictures, caplog):
    def fails(inputs):
        return any(bool((one == poison).all()) for one in inputs)

    model = FailingModel(classifier, fails, FloatingPointError("values that are not finite"))
    poison = model.read(pictures[5])
    with running(model, Options(Batching(32, 0.05))) as (client, service):
        got = client.post("/predict", files=as_files(*pictures[:12]))
        images = got.json()["images"]
        assert got.status_code == 200 and [i for i in range(12) if images[i]["error"]] == [5]
        assert "not finite" in images[5]["error"]
        alone = client.post("/predict", files=as_files(pictures[5]))
        assert alone.status_code == 422 and service.ready
        assert counted(client, "nameonly_model_failures_total") >= 2
    labels = told(classifier, pictures[:12])[0]
    assert [one["label"] for one in images] == [*labels[:5], None, *labels[6:]]


def test_a_broken_model_is_503_and_health_says_so(classifier, pictures, caplog, monkeypatch):
    monkeypatch.setattr("nameonly.serve.batching.SECONDS_BETWEEN_PROBES", 0.05)
    broken = []
    model = FailingModel(classifier, lambda _: bool(broken), RuntimeError("CUDA error: launch"))
    model.warm_up()
    with running(model) as (client, _):
        assert client.get("/health").json()["status"] == "ready"
        broken.append(True)
        got = client.post("/predict", files=as_files(*pictures[:3], b"no image"))
        assert got.status_code == 503 and got.headers["retry-after"] == "1"
        assert "not an image" in got.json()["images"][3]["error"]
        health = client.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "not ready")
        assert counted(client, "nameonly_ready") == 0
        assert counted(client, 'nameonly_images_total{result="failed"}') == 3
        broken.clear()
        wait_for(lambda: client.get("/health").status_code == 200)
        assert client.post("/predict", files=as_files(pictures[0])).status_code == 200


def test_32_clients_at_once(model, classifier, pictures):
    def ask(i):
        with httpx.Client(base_url=client.base_url, timeout=30) as own:
            return [
                own.post("/predict?top=10", files=as_files(pictures[k % 64])).json()["images"][0]
                for k in range(i, i + 4)
            ]

    with running(model) as (client, _), ThreadPoolExecutor(32) as pool:
        got = [one for images in pool.map(ask, range(0, 128, 4)) for one in images]
        asked = [pictures[k % 64] for k in range(128)]
        same(got, classifier, asked)
        assert counted(client, 'nameonly_requests_total{status="200"}') == 128
        assert counted(client, 'nameonly_images_total{result="labelled"}') == 128
        assert counted(client, "nameonly_batch_images_sum") == 128
        assert counted(client, "nameonly_batch_images_count") < 128
        for name in ("decode", "wait"):
            assert counted(client, f"nameonly_{name}_seconds_count") == 128
        assert counted(client, "nameonly_model_seconds_sum") > 0
        assert counted(client, "nameonly_queue_images") == 0


def test_a_decision_that_abstains_gives_no_label(classifier, pictures):
    strict = replace(classifier, decision=Abstain(1.0))
    want = strict.predict_names([Image.open(io.BytesIO(data)) for data in pictures])
    with running(ServedClassifier(strict, 4 * 10**6)) as (client, _):
        got = client.post("/predict", files=as_files(*pictures)).json()["images"]
        assert [one["label"] for one in got] == want and None in want
        one = got[want.index(None)]
        assert one["probability"] == one["classes"][0]["probability"] and one["error"] is None
        assert counted(client, 'nameonly_images_total{result="abstained"}') == want.count(None)


def test_health_and_classes_say_what_is_served(server, classifier):
    health = server.get("/health").json()
    assert health["status"] == "ready"
    facts = health["model"]
    assert (facts["recipe"], facts["backbone"], facts["classes"]) == ("up_adapter", "tiny", 10)
    assert facts["scorer"] == "prototype_adapter" and re.match(r"\d+\.\d+", facts["nameonly"])
    assert server.get("/classes").json() == {"classes": list(classifier.label_space.class_names)}


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/health", "/classes", "/metrics"])
def test_no_page_names_an_outside_address(server, path):
    got = server.get(path)
    own = str(server.base_url).rstrip("/")
    found = set(re.findall(r"(?:https?:)?//[^\s\"'<>/]+", got.text.replace(own, "")))
    assert got.status_code == 200 and found == set()
    assert "<script" not in got.text


def test_the_docs_page_shows_every_path_and_may_load_nothing(server):
    page = server.get("/docs")
    for path in server.get("/openapi.json").json()["paths"]:
        assert path in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    strange = server.get("/docs", headers={"Host": "a<b>"})
    assert "<b>" not in strange.text
    for path in ("/redoc", "/docs/oauth2-redirect", "/"):
        assert server.get(path).status_code == 404


def test_no_other_site_may_read_answers(server):
    got = server.get("/health", headers={"Origin": "http://evil.example"})
    assert not [name for name in got.headers if name.startswith("access-control")]
    assert server.options("/predict").status_code == 405


def test_files_of_the_allowed_folder_are_read(model, classifier, pictures, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(pictures[0])
    (tmp_path / "b.png").write_bytes(pictures[1])
    options = Options(allowed=Allowed(folder=tmp_path / "in"))
    with running(model, options) as (client, _):
        names = [{"path": "a.png"}, {"path": str(tmp_path / "in" / "a.png")}, {"path": "../b.png"}]
        got = client.post("/predict?top=10", json=names)
        images = got.json()["images"]
        same(images[:2], classifier, [pictures[0]] * 2)
        assert got.status_code == 200 and "does not lie in" in images[2]["error"]
