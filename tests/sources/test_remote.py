"""Object stores and web servers, over real connections: what a local copy gives, they give."""

import io
import os
import shutil
import sys
import tarfile
import threading
from contextlib import contextmanager

import fsspec.config
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stores import RangeWeb, Web, azure_store, free_port, google_store, object_store, web

import nameonly
from nameonly.classifier import open_backbone
from nameonly.images import open_images
from nameonly.sources import remote
from nameonly.sources.remote import UnreachableError, public

# the one that azurite has for everybody, as its documentation tells
AZURITE_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
SECRETS = ("hidden-password", "hidden-signature", "hidden-key")
CLASSES = "0,1,2,3,4,5,6,7,8,9"


@pytest.fixture(scope="module")
def photos(all_digits, tmp_path_factory):
    """A folder of 24 digits, and what is passed over; shards and tables of the same beside it."""
    base = tmp_path_factory.mktemp("remote")
    files = sorted(all_digits[0].iterdir())[:24]
    for number, path in enumerate(files):
        folder = base / "photos" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder)
    for name in (".hidden/x.png", "run/run.json", "run/labels.parquet", "run/report.html"):
        (base / "photos" / name).parent.mkdir(exist_ok=True)
        (base / "photos" / name).write_bytes(b"{}")
    shutil.copy(files[0], base / "photos/run/thumbnail.png")
    (base / "photos/a/empty.png").write_bytes(b"")
    (base / "shards").mkdir()
    for part in range(2):
        with tarfile.open(base / f"shards/s-{part:03d}.tar", "w") as archive:
            for path in files[part * 12 : part * 12 + 12]:
                archive.add(path, path.name)
    cells = [{"bytes": path.read_bytes(), "path": path.name} for path in files]
    (base / "tables").mkdir()
    table = pa.table({"image": cells, "label": ["x"] * 24})
    pq.write_table(table, base / "tables/t.parquet", row_group_size=10)
    names = [f"../photos/{p.parent.name}/{p.name}" for p in (base / "photos").glob("[ab]/digit*")]
    (base / "tables/names.csv").write_text("path\n" + "\n".join(sorted(names)) + "\n")
    return base


@pytest.fixture(scope="module")
def s3(photos):
    """A bucket of the same; the endpoint and the credentials are in the environment."""
    import s3fs

    with pytest.MonkeyPatch.context() as patch, object_store(port := free_port()):
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "hidden-key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-password")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        store = s3fs.S3FileSystem()
        store.mkdir("bucket")
        with filled(store, photos):
            yield store


@contextmanager
def filled(store, photos):
    """Put the photos into a bucket that is there."""
    for path in photos.rglob("*"):
        if path.is_file():
            store.pipe(f"bucket/{path.relative_to(photos)}", path.read_bytes())
    remote._shared_file_system.cache_clear()
    yield
    remote._shared_file_system.cache_clear()


@pytest.fixture(scope="module")
def gs(photos):
    """The same at Google's."""
    with pytest.MonkeyPatch.context() as patch, google_store(port := free_port()):
        patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        patch.setenv("FSSPEC_GS_TOKEN", "anon")
        fsspec.config.set_conf_env(fsspec.config.conf)
        import gcsfs

        with filled(gcsfs.GCSFileSystem(token="anon"), photos):
            yield
        fsspec.config.conf.pop("gs")


@pytest.fixture(scope="module")
def az(photos, tmp_path_factory):
    """The same at Azure's."""
    if shutil.which("azurite-blob") is None:
        pytest.skip("azurite-blob is not installed (npm install -g azurite)")
    import adlfs

    told = (
        "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={};"
        "BlobEndpoint=http://127.0.0.1:{}/devstoreaccount1;"
    )
    port, folder = free_port(), tmp_path_factory.mktemp("azure")
    with pytest.MonkeyPatch.context() as patch, azure_store(port, folder):
        patch.setenv("AZURE_STORAGE_CONNECTION_STRING", told.format(AZURITE_KEY, port))
        store = adlfs.AzureBlobFileSystem()
        store.mkdir("bucket")
        with filled(store, photos):
            yield


@pytest.fixture(params=["s3", "gs", "az"])
def bucket(request):
    """The URL of the bucket at each store."""
    request.getfixturevalue(request.param)
    return f"{request.param}://bucket"


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """No test waits between tries, or knows of another's servers."""
    monkeypatch.setattr(remote, "WAITS", (0.0, 0.0, 0.0))
    monkeypatch.setattr(remote, "_answered", set())
    monkeypatch.setattr(remote, "_silent", set())
    monkeypatch.setattr(remote, "_copies", {})


@pytest.mark.parametrize(
    "spec",
    [
        *("photos", "photos/a", "photos/*/digit*.png", "photos/**/*.png", "photos/?", "shards"),
        *("shards/s-{000..001}.tar", "tables/*.parquet", "tables/t.parquet", "tables/names.csv"),
    ],
)
def test_a_store_gives_what_a_local_copy_gives(photos, bucket, spec):
    local, local_bad = open_images(str(photos / spec))
    images, bad = open_images(f"{bucket}/{spec}")
    prefix, url = f"{photos}/", f"{bucket}/"
    assert images.sources == tuple(source.replace(prefix, url) for source in local.sources)
    assert images.ids == local.ids
    assert [(b.source, b.reason) for b in bad] == [
        (b.source.replace(prefix, url), b.reason) for b in local_bad
    ]
    for row in (0, -1):
        assert images.locations[row].read() == local.locations[row].read()


def test_what_is_not_there_is_told_alike(bucket):
    missing = "such file|cannot be listed|no image found"
    for spec in ("photos/none.png", "absent/*.png", "absent"):
        with pytest.raises(ValueError, match=missing) as caught:
            open_images(f"{bucket}/{spec}")
        assert f"{bucket}/" in str(caught.value)


def test_the_same_images_get_the_same_labels_from_a_store(photos, bucket, tmp_path):
    options = {"classes": CLASSES, "recipe": "zero_shot", "backbone": "tiny"}
    local = nameonly.label(photos / "photos", **options, cache=tmp_path / "1")
    url = f"{bucket}/photos"
    run = nameonly.label(url, **options, cache=tmp_path / "2", out=tmp_path / "o")
    assert run.table.equals(local.table)
    assert run.summary["input"] == url
    assert_no_secret(tmp_path)


def test_a_listing_can_name_no_place_here(s3, photos, tmp_path):
    data = (photos / "photos/a/digit-0000.png").read_bytes()
    names = ("../../evil.png", "/etc/evil.png", "a\\..\\evil.png", "b/../../evil.png")
    for name in names:
        s3.pipe(f"bucket/odd/{name}", data)
    before = sorted(tmp_path.rglob("*"))
    images, _ = open_images("s3://bucket/odd")
    assert set(images.sources) == set(names)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_vanishes_or_is_refused_costs_one_source(photos):
    with web(photos) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        server.handler.faults["/photos/b/digit-0001.png"] = [403] * 9
        server.handler.faults["/shards/s-000.tar"] = [403] * 9
        images, bad = open_images(
            [f"{url}/photos/b/digit-000{n}.png" for n in (1, 3, 5)]
            + [f"{url}/photos/b/absent.png", f"{url}/shards/s-{{000..002}}.tar"]
        )
        assert len(images) == 14
        assert {b.source.rsplit("/", 1)[-1]: b.reason.split(":")[0] for b in bad} == {
            "digit-0001.png": "refused",
            "absent.png": "no such file (it vanished, or a link points to nothing)",
            "s-000.tar": "refused",
            "s-002.tar": "no such file (it vanished, or a link points to nothing)",
        }


def test_failures_that_pass_are_tried_again(photos):
    with web(photos) as server:
        server.handler.faults["/photos/b/digit-0001.png"] = [503, 1, 429]
        server.handler.faults["/photos/b/digit-0003.png"] = [500] * 9
        url = f"http://127.0.0.1:{server.server_port}/photos/b"
        images, bad = open_images([f"{url}/digit-0001.png", f"{url}/digit-0003.png"])
        assert len(images) == 1
        assert [b.reason for b in bad] == ["the server answered with status 500"]
        asked = [path for path, _ in server.handler.asked]
        assert asked.count("/photos/b/digit-0001.png") == 4
        assert asked.count("/photos/b/digit-0003.png") == 4


def test_large_members_of_a_shard_are_passed_over_when_it_is_listed(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for name in ("a.jpg", "b.bin", "c.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 3_000_000
            archive.addfile(info, io.BytesIO(name.encode() * 600_000))
    with web(tmp_path) as server:
        url = f"http://127.0.0.1:{server.server_port}/s.tar"
        images, _ = open_images(url)
        ranges = [asked.removeprefix("bytes=").split("-") for _, asked in server.handler.asked]
        fetched = sum(int(last) - int(first) + 1 for first, last in ranges)
        # both images once, and a block at each of three headers and at the end
        assert 6_000_000 < fetched <= 6_000_000 + 5 * remote.BLOCK_BYTES
        assert images.locations[1].read() == b"c.jpg" * 600_000


def test_row_groups_are_fetched_once_and_no_other_column_is(tmp_path):
    noise = os.urandom(400_000)
    cells = [os.urandom(50_000) for _ in range(12)]
    table = pa.table({"image": cells, "other": [noise] * 6 + [noise[::-1]] * 6})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=4, compression="none")
    with web(tmp_path) as server:
        images, _ = open_images(f"http://127.0.0.1:{server.server_port}/t.parquet")
        for row in (11, 0, 7, 3, 9, 1):
            assert images.locations[row].read() == cells[row]
        ranges = [asked.removeprefix("bytes=").split("-") for _, asked in server.handler.asked]
        fetched = sum(int(last) - int(first) + 1 for first, last in ranges)
        assert fetched < 12 * 50_000 + 120_000


def test_a_server_without_ranges_is_read_once(photos):
    local, _ = open_images(str(photos / "shards/s-000.tar"))
    with web(photos, Web) as server:
        images, _ = open_images(f"http://127.0.0.1:{server.server_port}/shards/s-000.tar")
        assert (images.sources, images.ids) == (local.sources, local.ids)
        assert images.locations[3].read() == local.locations[3].read()
        # the first one, of one byte, shows that ranges are not known
        assert [asked for _, asked in server.handler.asked] == ["bytes=0-0", ""]


def test_no_secret_is_stored_or_shown(photos, tmp_path, capfd, caplog):
    """The user's password and signature reach the server, and no file or message."""
    caplog.set_level("INFO")
    with web(photos) as server:
        base = f"http://someone:hidden-password@127.0.0.1:{server.server_port}"
        specs = [f"{base}/shards/s-{{000..002}}.tar?X-Signature=hidden-signature"]
        specs += [f"{base}/photos/a/digit-0000.png?X-Signature=hidden-signature"]
        run = nameonly.label(
            specs,
            CLASSES,
            recipe="zero_shot",
            backbone="tiny",
            out=tmp_path / "out",
            cache=tmp_path / "cache",
        )
        assert len(run.table) == 25 and len(run.quarantined) == 1
        for spec in ("absent.png?s=hidden-signature", "folder?s=hidden-signature", "x.npz"):
            with pytest.raises(ValueError, match=r"127\.0\.0\.1") as caught:
                nameonly.label(f"{base}/{spec}", CLASSES, backbone="tiny", out=tmp_path / "no")
            assert not any(secret in str(caught.value) for secret in SECRETS)
    for row in repr(run.classifier), repr(open_images):
        assert not any(secret in row for secret in SECRETS)
    said = capfd.readouterr()
    assert not any(secret in said.out + said.err + caplog.text for secret in SECRETS)
    assert_no_secret(tmp_path)


def assert_no_secret(folder):
    read = [path for path in folder.rglob("*") if path.is_file()]
    assert read
    for path in read:
        data = path.read_bytes()
        assert not any(secret.encode() in data for secret in SECRETS), path


def test_credentials_in_the_url_of_a_store_are_refused_unsaid():
    with pytest.raises(ValueError, match="do not belong into the URL 's3://bucket/x'") as caught:
        open_images("s3://hidden-key:hidden/password@bucket/x")
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("text", ["hidden-password", "hidden-signature", "s3://hidden-key:hi@b/k"])
def test_words_of_other_programs_are_freed_of_secrets(text):
    url = "https://user:hidden-password@host/a.png?s=hidden-signature"
    error = remote._told(RuntimeError(f"no good: {text} of {url}"), url, "host")
    assert "no good" in str(error) and "hidden" not in str(error)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("photos/a?b=c@d.png", "photos/a?b=c@d.png"),
        ("https://u:p@host/a.png?x=1#y", "https://host/a.png"),
        ("https://u:p@ss@host:80/a@2x.png", "https://host:80/a@2x.png"),
        ("https://token@host/a@2x.png", "https://host/a@2x.png"),
        ("http://host:8080/a@2x.png", "http://host:8080/a@2x.png"),
        ("http://[::1]:80/a@2x.png", "http://[::1]:80/a@2x.png"),
        ("s3://bucket/what?.png", "s3://bucket/what?.png"),
        ("s3://bucket/a#1/b:c@d.png", "s3://bucket/a#1/b:c@d.png"),
        ("s3://bucket/a.png?versionId=3", "s3://bucket/a.png"),
        ("az://container@account/a.png", "az://container@account/a.png"),
        ("az://container/a.png?sv=1&sig=x", "az://container/a.png"),
        ("ftp://u:p@host/a.png", "ftp://host/a.png"),
    ],
)
def test_public_form(url, shown):
    assert public(url) == shown


def test_stopped_server_ends_the_run_and_the_next_goes_on(photos, tmp_path):
    port = free_port()
    spec = f"http://127.0.0.1:{port}/shards/s-{{000..001}}.tar"
    backbone = open_backbone("tiny", batch_size=4, device="cpu", dtype="float32")
    options = {"classes": CLASSES, "recipe": "zero_shot", "backbone": backbone}
    stages = []

    def stop(done, total):
        if stages[-1] == "encode" and not stopped.is_set():
            stopped.set()
            server.shutdown()
            server.server_close()

    stopped = threading.Event()
    with web(photos, port=port) as server, pytest.raises(UnreachableError, match="goes on"):
        hooks = {"on_stage": stages.append, "on_progress": stop}
        nameonly.label(spec, **options, **hooks, cache=tmp_path, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with web(photos, port=port):
        run = nameonly.label(spec, **options, cache=tmp_path, out=tmp_path / "out")
    assert 0 < run.summary["counts"]["encoded_now"] < 24
    local = nameonly.label(str(photos / "shards"), **options, cache=tmp_path / "other")
    assert run.table.equals(local.table)


def test_stopped_store_is_one_clear_error(photos, s3, monkeypatch):
    remote._answered.add("s3://")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    remote._shared_file_system.cache_clear()
    s3.clear_instance_cache()
    with pytest.raises(UnreachableError, match="s3:// answers no more"):
        open_images("s3://bucket/photos")
    remote._answered.clear()
    with pytest.raises(ValueError, match="'s3://bucket/photos' cannot be listed: the store s3://"):
        open_images("s3://bucket/photos")
    remote._shared_file_system.cache_clear()
    s3.clear_instance_cache()


def test_server_that_never_answered_is_not_waited_for_twice(monkeypatch):
    waits = []
    monkeypatch.setattr(remote, "WAITS", (0.01, 0.01))
    monkeypatch.setattr(remote.time, "sleep", waits.append)
    port = free_port()
    with pytest.raises(ValueError, match=r"none of 40 images can be read: .*cannot be reached"):
        open_images(f"http://127.0.0.1:{port}/{{01..40}}.png")
    # only those that began before the first had failed
    assert len(waits) <= 2 * 32


def test_cells_of_a_table_reach_no_further_than_its_store(photos, tmp_path):
    (tmp_path / "t").mkdir()
    shutil.copy(photos / "photos/a/digit-0000.png", tmp_path / "t/in.png")
    with web(tmp_path) as server, web(photos) as other:
        cells = ["in.png", "../t/in.png", "../../in.png", "/etc/in.png", "absent.png"]
        cells += [f"http://u:hidden-key@127.0.0.1:{other.server_port}/photos/a/digit-0002.png"]
        cells += ["s3://hidden-key:hidden/password@bucket/x.png"]
        (tmp_path / "t/list.csv").write_text("path\n" + "\n".join(cells) + "\n")
        images, bad = open_images(f"http://127.0.0.1:{server.server_port}/t/list.csv")
        assert [source.rsplit("#", 1)[-1] for source in images.sources] == ["0", "1", "5"]
        assert "outside of it" in bad[0].reason and "outside of it" in bad[1].reason
        assert not any(secret in b.reason for b in bad for secret in SECRETS)


def test_arrow_files_of_a_store_are_refused(photos, s3):
    s3.pipe("bucket/arrow/a.arrow", b"x")
    with pytest.raises(ValueError, match="no index to be read by; copy it here first"):
        open_images("s3://bucket/arrow/a.arrow")
    for name in ("state.json", "dataset_info.json", "data.arrow"):
        s3.pipe(f"bucket/saved/{name}", b"{}")
    with pytest.raises(ValueError, match="save_to_disk"):
        open_images("s3://bucket/saved")


@pytest.mark.parametrize(
    ("url", "package"),
    [("s3://b/x", "s3fs"), ("gs://b/x", "gcsfs"), ("az://b/x", "adlfs"), ("http://h/x", "aiohttp")],
)
def test_without_the_extra_one_error_names_it(url, package, monkeypatch):
    remote._shared_file_system.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=rf"{package}.*nameonly\[cloud\]"):
        open_images(url)


def test_servers_that_lie_are_caught(photos):
    class Short(RangeWeb):
        def give(self):
            self.send_response(206)
            self.send_header("Content-Range", "bytes 0-2/30720")
            self.send_header("Content-Length", "3")
            self.end_headers()
            self.wfile.write(b"abc")

    with web(photos, Short) as server, pytest.raises(ValueError, match="3 bytes came where"):
        open_images(f"http://127.0.0.1:{server.server_port}/shards/s-000.tar")


def azure_error(status):
    """Return what Azure's client raises."""
    exceptions = pytest.importorskip("azure.core.exceptions")
    error = exceptions.HttpResponseError("hidden-signature is no good")
    error.status_code = status
    return error


def google_error(status):
    """Return what gcsfs raises."""
    return pytest.importorskip("gcsfs.retry").HttpError({"code": status, "message": "no good"})


@pytest.mark.parametrize("made", [azure_error, google_error])
@pytest.mark.parametrize(
    ("status", "words", "passes"),
    [
        *((403, "refused: no permission", False), (404, "no such object", False)),
        *((416, "zero bytes", False), (429, "status 429", True), (503, "status 503", True)),
    ],
)
def test_every_client_names_the_status_otherwise(made, status, words, passes):
    error = made(status)
    assert words in str(remote._told(error, "az://bucket/x", "az://"))
    assert remote._may_pass(error) is passes


@pytest.mark.parametrize(("url", "tries"), [("s3://b/x", 4), ("gs://b/x", 1), ("az://b/x", 1)])
def test_clients_that_try_long_themselves_are_asked_once(url, tries, monkeypatch):
    """Azure's took 84 s to say that nobody answers, four times over."""
    key = "AccountName=devstoreaccount1;AccountKey=" + AZURITE_KEY
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", f"DefaultEndpointsProtocol=http;{key}")
    monkeypatch.setitem(fsspec.config.conf, "gs", {"token": "anon"})
    monkeypatch.setattr(remote, "_shared_file_system", remote._shared_file_system.__wrapped__)
    asked = []

    def call(store, path):
        asked.append(path)
        raise TimeoutError

    with pytest.raises(OSError, match="cannot be reached"):
        remote._try(url, call)
    assert asked == ["b/x"] * tries
