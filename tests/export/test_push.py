"""Uploads by huggingface_hub itself, to a server on this machine that speaks what it asks for."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from nameonly.export.push import push, what_is

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the client's own code

COMMIT = "1" * 40


class Hub(BaseHTTPRequestHandler):
    """The parts of the hub's API that an upload uses."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        hub, path = self.server, self.path.split("?")[0]
        hub.asked.append((path, self.headers.get("Authorization")))
        if hub.refuses:
            self.answer({"error": "You are not welcome"}, 403)
        elif path == "/api/repos/create":
            hub.created.append(json.loads(raw))
            name, kind = hub.created[-1]["name"], hub.created[-1].get("type", "model")
            where = f"{hub.address}/{'datasets/' * (kind == 'dataset')}someone/{name}"
            self.answer({"url": where, "name": f"someone/{name}"})
        elif path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            files = json.loads(raw)["files"]
            self.answer({"files": [{**f, **self.mode(f), "shouldIgnore": False} for f in files]})
        elif path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                {**o, "actions": {"upload": {"href": f"{hub.address}/put/{o['oid']}"}}}
                for o in json.loads(raw)["objects"]
            ]
            self.answer({"transfer": "basic", "objects": objects})
        elif "/commit/" in path:
            self.commit([json.loads(line) for line in raw.splitlines()])
        else:
            self.answer({"error": f"no {path}"}, 404)

    def do_PUT(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.full:
            return self.answer({"error": "no room"}, 507)
        self.server.large[hashlib.sha256(data).hexdigest()] = data
        return self.answer({})

    def mode(self, file):
        return {"uploadMode": "lfs" if file["path"].endswith(self.server.lfs) else "regular"}

    def commit(self, lines):
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.server.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.server.files[value["path"]] = self.server.large[value["oid"]]
        where = f"{self.server.address}/someone/thing/commit/{COMMIT}"
        self.answer({"success": True, "commitOid": COMMIT, "commitUrl": where})

    def answer(self, value, status=200):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.address = f"http://127.0.0.1:{server.server_port}"
    server.asked, server.created, server.files, server.large = [], [], {}, {}
    server.lfs, server.refuses, server.full = (".parquet", ".safetensors", ".onnx"), False, False
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.utils._http.DEFAULT_MAX_RETRIES", 0, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def names(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_an_export_becomes_a_data_set_byte_by_byte(hub, new_run, some, exported):
    place, found = exported(new_run(some), "huggingface")
    (place / "export.json").write_text(json.dumps(found))
    said = push(place, "someone/thing")
    assert hub.created == [
        {"name": "thing", "organization": "someone", "type": "dataset", **private(hub.created[0])}
    ]
    assert set(hub.files) == names(place) - {"export.json"}
    assert all((place / name).read_bytes() == data for name, data in hub.files.items())
    assert any(path.startswith("/api/datasets/someone/thing/commit/") for path, _ in hub.asked)
    assert {token for _, token in hub.asked} == {"Bearer hf_secret"}
    assert said["kind"] == "dataset" and said["url"].endswith("/datasets/someone/thing")


def private(created):
    """Say that it is private in the words of the client's version."""
    assert created.get("private") is True or created.get("visibility") == "private"
    return {key: created[key] for key in ("private", "visibility") if key in created}


@pytest.fixture
def classifier(tmp_path):
    folder = tmp_path / "run" / "classifier"
    folder.mkdir(parents=True)
    (folder / "classifier.json").write_text("{}")
    (folder / "classifier.safetensors").write_bytes(bytes(100))
    (folder / "README.md").write_text("# A classifier\n")
    (folder / ".hidden").touch()
    (tmp_path / "run" / "run.json").write_text("{}")
    return folder


def test_a_run_gives_its_classifier_alone(hub, classifier):
    said = push(classifier.parent, "someone/thing", private=False)
    assert set(hub.files) == names(classifier) - {".hidden"}
    assert hub.files["classifier.safetensors"] == bytes(100)
    assert said["kind"] == "model" and said["pushed"] == str(classifier)
    assert hub.created[0].get("type", "model") == "model"
    assert hub.created[0].get("private") is not True
    assert hub.created[0].get("visibility") != "private"


def test_a_refusal_is_told_with_what_to_do(hub, classifier):
    hub.refuses = True
    with pytest.raises(ValueError, match=r"could not be pushed .*hf auth login"):
        push(classifier, "someone/thing")
    assert hub.files == {}


def test_a_file_that_does_not_arrive_is_told(hub, classifier):
    hub.full = True
    with pytest.raises(ValueError, match="could not be pushed to someone/thing"):
        push(classifier, "someone/thing")
    assert hub.files == {}


def test_a_hub_that_cannot_be_reached_is_told(hub, classifier, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match="could not be pushed"):
        push(classifier, "someone/thing")


def test_the_command_says_where_it_is(hub, classifier, nameonly):
    to = ("--repo", "someone/thing", "--public")
    code, said, _ = nameonly("push", classifier, *to)
    assert code == 0 and said.splitlines() == [
        f"{classifier} is now a model of the hub",
        f"hub  {hub.address}/someone/thing",
    ]
    code, _, errors = nameonly("push", "/nowhere", *to)
    assert code == 2 and "holds nothing to push" in errors


def test_what_a_folder_is(classifier, tmp_path):
    assert what_is(classifier) == what_is(classifier.parent) == (classifier, "model")
    (tmp_path / "export.json").write_text('{"format": "onnx"}')
    assert what_is(tmp_path) == (tmp_path, "model")
    (tmp_path / "export.json").write_text('{"format": "csv"}')
    assert what_is(tmp_path) == (tmp_path, "dataset")
    (tmp_path / "export.json").write_text("{}")
    with pytest.raises(ValueError, match="is damaged"):
        what_is(tmp_path)
    (tmp_path / "export.json").unlink()
    with pytest.raises(ValueError, match="holds nothing to push"):
        what_is(tmp_path)


@pytest.mark.parametrize("repo", ["thing", "/thing", "someone/", "a/b/c"])
def test_a_repository_has_an_owner_and_a_name(repo, tmp_path):
    with pytest.raises(ValueError, match="--repo expects user/name"):
        push(tmp_path, repo)
