import ipaddress
import os
import socket
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from serving import as_files, running

from nameonly.serve.settings import Options
from nameonly.serve.sources import Allowed, fetch, is_public, read_file

HERE = Allowed(urls=True, private_addresses=True, max_bytes=5000, seconds=0.5)


@pytest.fixture
def web(pictures):
    """A server of the web that misbehaves by path; and the hosts that it was asked as."""
    hosts = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            hosts.append(self.headers["Host"])
            kind, _, rest = self.path.strip("/").partition("/")
            if kind == "to":
                self.send_response(302)
                self.send_header("Location", rest)
                self.end_headers()
                return
            if kind == "status":
                self.send_error(int(rest))
                return
            if kind == "drip":
                self.drip(rest)
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(bytes(int(rest)) if kind == "size" else pictures[0])

        def drip(self, where):
            """Send a byte now and then: each is in time for a timeout of sockets."""
            start = b"HTTP/1.1 200 OK\r\n" + (b"\r\n" if where == "body" else b"X: ")
            try:
                for i in range(100):
                    self.wfile.write(start if i == 0 else b"x")
                    time.sleep(0.1)
            except OSError:
                pass

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", hosts
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def names(monkeypatch, **known):
    """Names that look-ups find: a name -> addresses."""
    real = socket.getaddrinfo

    def look_up(host, port, *args, **options):
        if host not in known:
            return real(host, port, *args, **options)
        kind = socket.AF_INET
        return [(kind, socket.SOCK_STREAM, 6, "", (one, port)) for one in known[host]]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    yield


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        *[(one, False) for one in ("127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "0.0.0.0")],
        *[(one, False) for one in ("192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1")],
        *[(one, False) for one in ("255.255.255.255", "198.18.0.1", "192.0.2.1", "240.0.0.1")],
        *[(one, False) for one in ("::1", "::", "fe80::1", "fc00::1", "ff02::1", "fec0::1")],
        *[(one, False) for one in ("::ffff:127.0.0.1", "::127.0.0.1", "2002:7f00:1::")],
        *[(one, False) for one in ("64:ff9b::7f00:1", "64:ff9b:1::1", "2001::7f00:1")],
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::5db8:d822", True),
    ],
)
def test_which_addresses_are_public(address, public):
    assert is_public(ipaddress.ip_address(address)) is public


def test_an_address_is_fetched(web, pictures):
    base, hosts = web
    assert fetch(f"{base}/a.png?x=1", HERE) == pictures[0]
    assert fetch(f"{base}/to//a.png", HERE) == pictures[0]
    assert hosts == [base.removeprefix("http://")] * 3


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/size/6000", "more than 5000 bytes"),
        ("/status/404", "status 404"),
        ("/to/", "status 302"),
        ("/to/here", "more than 3 redirects"),
        ("/drip/body", "took more than 0.5 s"),
        ("/drip/head", "took more than 0.5 s"),
        ("/to/file:///etc/passwd", "expected an address http"),
        ("/to/ftp://127.0.0.1/", "expected an address http"),
    ],
)
def test_what_an_address_may_do_is_bounded(web, path, words):
    begun = time.monotonic()
    with pytest.raises(ValueError, match=words):
        fetch(web[0] + path, HERE)
    assert time.monotonic() - begun < 3


@pytest.mark.parametrize(
    "url",
    [
        *("file:///etc/passwd", "gopher://x/", "ftp://x/", "x", "", "//x/", "http://", "http:///x"),
        *("http://user:word@x/", "http://x:99999/", "http://[::1", "http://x/\r\nHost: y"),
        *("http://x/ y", "http://é/", "http://x/\ud800", "jar:http://x/", "HTTP:x"),
    ],
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ValueError):
        fetch(url, HERE)


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1", "0", "[::1]", "0.0.0.0"),
        *("[::ffff:127.0.0.1]", "169.254.169.254", "10.0.0.1", "[::ffff:a9fe:a9fe]"),
    ],
)
def test_private_addresses_are_not_connected_to(host, monkeypatch):
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("connected"))
    with pytest.raises(ValueError, match=r"of this machine|cannot fetch"):
        fetch(f"http://{host}/", Allowed(urls=True))


def test_a_name_with_one_private_address_is_refused(monkeypatch):
    with (
        names(monkeypatch, mixed=["93.184.216.34", "127.0.0.1"]),
        pytest.raises(ValueError, match="of this machine"),
    ):
        fetch("http://mixed/", Allowed(urls=True))


def test_a_redirect_to_a_private_address_is_refused(web, monkeypatch):
    """The first name passes as public, as a stranger's server would."""
    base, hosts = web
    connect = socket.create_connection
    port = int(base.rpartition(":")[2])
    monkeypatch.setattr(
        socket, "create_connection", lambda _, **options: connect(("127.0.0.1", port), **options)
    )
    with names(monkeypatch, outside=["93.184.216.34"]):
        assert fetch(f"http://outside:{port}/a.png", Allowed(urls=True))
        with pytest.raises(ValueError, match="of this machine"):
            fetch(f"http://outside:{port}/to/{base}/a.png", Allowed(urls=True))
    assert hosts == [f"outside:{port}"] * 2


def test_the_connection_goes_to_the_address_that_was_checked(web, monkeypatch):
    """A name that is looked up twice may be another the second time."""
    connected = []

    def connect(address, **_):
        connected.append(address)
        raise OSError("not here")

    monkeypatch.setattr(socket, "create_connection", connect)
    with names(monkeypatch, turning=["93.184.216.34"]), pytest.raises(ValueError, match="not here"):
        fetch("http://turning/", Allowed(urls=True))
    assert connected == [("93.184.216.34", 80)]


def test_nothing_is_fetched_or_read_unless_allowed(tmp_path):
    with pytest.raises(ValueError, match="--allow-urls"):
        fetch("http://127.0.0.1/", Allowed())
    with pytest.raises(ValueError, match="--allow-folder"):
        read_file("a", Allowed())


def test_files_outside_the_folder_are_not_read(tmp_path):
    root = tmp_path / "in"
    (root / "deep").mkdir(parents=True)
    (root / "a.png").write_bytes(b"a")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "in-too").mkdir()
    (tmp_path / "in-too" / "b").write_bytes(b"b")
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "door").symlink_to(tmp_path)
    (root / "own").symlink_to("a.png")
    (root / "circle").symlink_to("circle")
    os.mkfifo(root / "pipe")
    allowed = Allowed(folder=root, max_bytes=10)
    assert read_file("a.png", allowed) == read_file("own", allowed) == b"a"
    assert read_file("deep/../a.png", allowed) == read_file(str(root / "a.png"), allowed) == b"a"
    outside = ["../secret", "link", "door/secret", "/etc/passwd", "../in-too/b", "../nothing"]
    for name in [*outside, "a\0.png", "\ud800", "circle"]:
        with pytest.raises(ValueError, match=r"does not lie in the folder|cannot read") as raised:
            read_file(name, allowed)
        assert "secret" not in str(raised.value).replace(repr(name), "")
    for name in outside:  # there or not: the same words
        with pytest.raises(ValueError, match="does not lie in the folder"):
            read_file(name, allowed)
    for name, words in (("deep", "directory|plain"), ("pipe", "plain"), ("none", "No such file")):
        with pytest.raises(ValueError, match=words):
            read_file(name, allowed)
    (root / "large").write_bytes(bytes(11))
    with pytest.raises(ValueError, match="more than 10 bytes"):
        read_file("large", allowed)


def test_addresses_and_files_are_served_beside_each_other(model, web, pictures, tmp_path):
    (tmp_path / "a.png").write_bytes(pictures[1])
    allowed = Allowed(tmp_path, True, True, 5000, 2.0)
    with running(model, Options(allowed=allowed)) as (client, _):
        want = client.post("/predict", files=as_files(pictures[0], pictures[1])).json()["images"]
        asked = [{"url": f"{web[0]}/x"}, {"path": "a.png"}, {"url": f"{web[0]}/status/500"}]
        got = client.post("/predict", json=asked)
        images = got.json()["images"]
        assert got.status_code == 200
        assert [one["classes"] for one in images[:2]] == [one["classes"] for one in want]
        assert "status 500" in images[2]["error"] and images[2]["name"] == asked[2]["url"]
        lone = client.post("/predict", json={"url": f"{web[0]}/size/20"})
        assert lone.status_code == 422 and "not an image" in lone.json()["images"][0]["error"]
