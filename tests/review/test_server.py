"""The review's server over HTTP: what it answers, and what it refuses to whom."""

import io
import socket
import threading

import httpx
import pytest
from PIL import Image
from reviewing import NAMES, large_run, serving, small_run

from nameonly.review.server import ASSETS, listen


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    run = small_run(folder, 60)
    with serving(run, {"audit": [9, 4]}) as found:
        (folder / "images" / "image-050.png").write_bytes(b"\x89PNG damaged")
        yield found


@pytest.fixture
def client(served):
    with httpx.Client(base_url=served.url) as client:
        yield client


def decide(client, *wishes):
    return client.post("decisions", json={"decisions": list(wishes)})


def wish(image, decision="label", seen=0, queue=1, **more):
    return {"image": image, "decision": decision, "seen": seen, "queue": queue, **more}


def test_the_page_and_its_files_come_with_headers_that_allow_nothing_foreign(served, client):
    page = client.get("")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    for answer in (page, *(client.get(f"page/{name}") for name in ASSETS), client.get("images")):
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'") and "http" not in policy
        assert "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in answer.headers
    assert "http" not in page.text.replace("http-equiv", "")
    assert client.get("page/review.js").headers["content-type"].startswith("text/javascript")


def test_the_link_without_its_last_stroke_leads_to_the_page(served):
    answer = httpx.get(served.url.rstrip("/"))
    assert answer.status_code == 307 and served.url.endswith(answer.headers["location"])


@pytest.mark.parametrize("path", ["", "images", "small/0", "changes", "page/review.js"])
def test_without_the_token_nothing_is_told(served, path):
    wrong = f"{served.origin}/{'x' * len(served.site.token)}/{path}"
    for url in (f"{served.origin}/{path}", wrong, f"{served.url[:-2]}/{path}"):
        answer = httpx.get(url)
        assert answer.status_code == 403
        assert served.site.token not in answer.text and "image-" not in answer.text


def test_foreign_hosts_and_origins_are_refused(served, client):
    for headers in (
        {"host": "evil.example"},
        {"host": f"evil.example:{served.port}"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"},
    ):
        assert client.get("images", headers=headers).status_code == 403
        answer = client.post("decisions", json={"decisions": [wish(1)]}, headers=headers)
        assert answer.status_code == 403
    own = {"origin": served.origin, "sec-fetch-site": "same-origin"}
    assert client.get("images", headers=own).status_code == 200
    assert client.get("images", headers={"host": f"localhost:{served.port}"}).status_code == 200


def test_a_form_of_another_page_cannot_decide(served, client):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        body = b'{"decisions": [{"image": 2, "decision": "none", "seen": 0}]}'
        answer = client.post("decisions", content=body, headers={"content-type": kind})
        assert answer.status_code == 415
    assert served.decisions.state(served.labels.ids[2]) == (None, 0)


TRAVERSALS = [
    *("../run.json", "..%2f..%2frun.json", "page/../../run.json", "page/..%2fserver.py"),
    *("page/server.py", "page/%2e%2e%2fserver.py", "page//etc/passwd", "small/..%2f..%2frun.json"),
    *("small//etc/passwd", "small/0/../../run.json", "small/image-000.png", "queues/../changes"),
    *("page/review.css%00.py", "large/%00", "//etc/passwd", "page/..\\server.py"),
]


@pytest.mark.parametrize("path", TRAVERSALS)
def test_no_path_leads_to_a_file(served, path):
    with socket.create_connection(("127.0.0.1", served.port)) as raw:  # httpx tidies paths
        target = f"/{served.site.token}/{path}"
        raw.sendall(
            f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )
        answer = b"".join(iter(lambda: raw.recv(65536), b""))
    assert int(answer.split()[1]) in (404, 422)
    assert b"root:" not in answer and b"classes" not in answer and b"import" not in answer


@pytest.mark.parametrize("number", ["60", "-1", str(2**31), str(2**64), "9" * 5000, "1.5", "NaN"])
def test_numbers_that_are_no_image_are_refused(client, number):
    assert client.get(f"small/{number}").status_code in (404, 422)
    assert client.get(f"queues/{number}").status_code in (404, 422)


def test_images_come_small_and_a_damaged_one_loses_nothing(served, client):
    first = client.get("small/0")
    assert first.headers["content-type"] == "image/webp"
    assert Image.open(io.BytesIO(first.content)).size == (24, 24)
    broken = client.get("small/50")
    assert broken.status_code == 404 and "changed" in broken.text
    assert client.get("large/50").status_code == 404
    assert client.get("small/51").status_code == 200
    assert decide(client, wish(50, **{"class": 1})).status_code == 200


def test_images_queues_and_classes_are_those_of_the_run(served, client):
    found = client.get("images").json()
    assert found["class_names"] == list(NAMES) and len(found["path"]) == 59
    assert found["copies"][0] == 2
    queues = client.get("queues").json()
    assert [q["name"] for q in queues] == ["audit", "uncertain", "changed", *NAMES]
    assert client.get("queues/0").json() == [9, 4]
    assert len(client.get("queues/1").json()) == 59 == queues[1]["n"]


def test_decisions_are_on_disk_when_they_are_answered(served, client):
    before = client.get("changes?since=0").json()["revision"]
    own = int(served.labels.label[20])
    answer = decide(client, wish(20, **{"class": own}), wish(21, "none"), wish(22, "unsure"))
    assert answer.status_code == 200
    saved = answer.json()["saved"]
    assert [s["decision"] for s in saved] == ["accepted", "none", "unsure"]
    assert [s["revision"] for s in saved] == [before + 1, before + 2, before + 3]
    journal = (served.folder / "review.jsonl").read_text().splitlines()
    assert len(journal) == before + 3 and '"decision": "unsure"' in journal[-1]
    assert '"queue": "uncertain"' in journal[-1]
    changes = client.get(f"changes?since={before}").json()
    assert {c["image"] for c in changes["changes"]} == {20, 21, 22}
    undone = decide(client, wish(20, "undo", seen=before + 1)).json()["saved"][0]
    assert undone["decision"] is None and undone["revision"] == before + 4


def test_a_decision_on_an_older_sight_is_answered_409_with_the_newer(client):
    first = decide(client, wish(30, **{"class": 3})).json()["saved"][0]
    answer = decide(client, wish(30, "none"), wish(31, "none"))
    assert answer.status_code == 409
    assert answer.json()["conflicts"] == [first]
    assert [s["image"] for s in answer.json()["saved"]] == [31]
    assert decide(client, wish(30, "none", seen=first["revision"])).status_code == 200


BAD = {
    "not json": b"{",
    "no object": b"[1]",
    "nothing": b"{}",
    "empty": b'{"decisions": []}',
    "no list": b'{"decisions": {"image": 1}}',
    "no decision": b'{"decisions": [{"image": 40, "seen": 0}]}',
    "not utf-8": b'{"decisions": "\xff"}',
    "deep": b'{"decisions":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    "many": b'{"decisions": [' + b"1," * 6000 + b"1]}",
}
WRONG = [
    *({"image": 59}, {"image": -1}, {"image": "0"}, {"image": 2**70}, {"image": None}),
    *({"image": True}, {"image": 1.0}, {"decision": "delete"}, {"decision": ["none"]}),
    *({"decision": "label"}, {"decision": "label", "class": 4}, {"decision": "label", "class": -1}),
    *({"seen": -1}, {"seen": "x"}, {"seen": 10**400}, {"queue": 99}, {"queue": "audit"}),
]


@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
def test_malformed_bodies_are_refused_and_decide_nothing(served, client, body):
    before = served.decisions.revision
    answer = client.post("decisions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    assert served.decisions.revision == before


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_one_wrong_decision_among_good_ones_decides_nothing(served, client, wrong):
    before = served.decisions.revision
    bad = {**wish(41, "none"), **wrong}
    answer = decide(client, wish(40, "none"), bad)
    assert answer.status_code == 422 and answer.json()["problem"]
    assert len(answer.text) < 1000
    assert served.decisions.revision == before


def test_too_large_a_body_is_refused_before_it_is_read(served):
    with socket.create_connection(("127.0.0.1", served.port)) as raw:
        head = (
            f"POST /{served.site.token}/decisions HTTP/1.1\r\nHost: localhost\r\n"
            "Content-Type: application/json\r\nContent-Length: 9999999999\r\n\r\n"
        )
        raw.sendall(head.encode())
        assert b" 413 " in raw.recv(4096)


def test_a_full_disk_is_told_and_decides_nothing(served, client, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("nameonly.review.decisions.os.fsync", full)
        answer = decide(client, wish(44, "none"))
    assert answer.status_code == 507 and "No space" in answer.json()["problem"]
    assert decide(client, wish(44, "none")).status_code == 200


def test_many_who_decide_at_once_are_answered_one_revision_each(served):
    ids = list(range(5, 9))
    seen, lock = [], threading.Lock()

    def work(image):
        with httpx.Client(base_url=served.url) as client:
            revision = 0
            for step in range(10):
                body = wish(image, "none" if step % 2 else "unsure", seen=revision)
                state = decide(client, body).json()["saved"][0]
                revision = state["revision"]
                with lock:
                    seen.append(revision)

    threads = [threading.Thread(target=work, args=(image,)) for image in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(seen)) == len(seen) == 40
    assert served.decisions.revision >= max(seen)


def test_answers_do_not_wait_for_more_to_send():
    with listen("127.0.0.1", 0) as listening:  # asyncio looks for just this
        assert listening.proto == socket.IPPROTO_TCP


def test_a_taken_port_is_told(served):
    with pytest.raises(OSError, match="leave --port out"):
        listen("127.0.0.1", served.port)


def test_class_names_from_outside_are_data_and_never_markup(tmp_path):
    names = ("<script>alert(1)</script>", "</script><b>", "c")
    run = small_run(tmp_path, 6, names)
    with serving(run) as found, httpx.Client(base_url=found.url) as client:
        assert "alert" not in client.get("").text
        for path in ("images", "queues"):
            answer = client.get(path)
            assert answer.headers["content-type"] == "application/json"
            assert "alert" in answer.text


def test_an_image_costs_few_bytes_in_the_answer_that_tells_of_all(tmp_path):
    with serving(large_run(tmp_path, 2000)) as found, httpx.Client(base_url=found.url) as client:
        assert len(client.get("images").content) < 2000 * 120
        assert client.get("small/1999").status_code == 200
