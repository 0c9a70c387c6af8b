"""A real cluster of two nodes gives what one machine gives, workers killed in the middle or not."""

import contextlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from diffusion_models import CLASSES, generator, new_model, requests
from stores import RangeWeb, free_port, web

import nameonly
from nameonly import generating
from nameonly.classifier import open_backbone
from nameonly.encoding import _View, open_store
from nameonly.engines.ray import RayEngine, _Decoder, _Drawer, _first_error, cpus_each
from nameonly.generating import adapted_to_task
from nameonly.generation import Generation, Wanted, generate
from nameonly.images import load, open_images
from nameonly.loop import Schedule
from nameonly.pseudo_labels.top_k_per_class import TopKPerClass
from nameonly.synthesis.domain_lora import DomainLora
from nameonly.synthetic import read_table

HERE = Path(__file__).parents[1]
SHORT = Schedule(1, 8, 1e-2)
OPTIONS = ["--classes", "0,1,2,3,4,5,6,7,8,9", "--recipe", "zero_shot", "--backbone", "tiny"]
OPTIONS += ["--batch-size", "16", "--device", "cpu", "--dtype", "float32"]


class SlowWeb(RangeWeb):
    """Answers as a store far away does."""

    def give(self):
        time.sleep(0.05)
        super().give()


def places(folder, name):
    return ["--out", folder / name, "--cache", folder / f"cache-{name}"]


@pytest.fixture
def here(nameonly):
    """Run the command line in this process, by one thread as the workers do."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield nameonly
    torch.set_num_threads(threads)


def program(*words, cwd=None, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "nameonly", *map(str, words)],
        cwd=cwd,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


@pytest.fixture
def photos(all_digits, tmp_path):
    """100 digits, of which two are broken, and one more under a second name."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for path in sorted(all_digits[0].iterdir())[:100]:
        shutil.copy(path, folder / path.name)
    for name in ("digit-0007.png", "digit-0050.png"):
        (folder / name).write_bytes((folder / name).read_bytes()[:150])
    shutil.copy(folder / "digit-0000.png", folder / "digit-0100.png")
    return folder


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("ray", reason="the extra ray is not installed")
    folder = tempfile.mkdtemp(prefix="ray")  # the paths of Ray's sockets must be short
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", str(HERE / "ray_cluster.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "RAY_TMPDIR": folder},
    ) as process:
        words = process.stdout.readline().split()
        assert len(words) == 3, "the cluster did not start"
        yield words[0], {int(word) for word in words[1:]}
        process.stdin.close()
        process.wait(60)
    shutil.rmtree(folder, ignore_errors=True)


def workers(nodes):
    """Return the processes of these nodes that decode or encode."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            title = (entry / "cmdline").read_bytes().decode(errors="replace")
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent in nodes and "ray::MapWorker" in title:
                found.append(int(entry.name))
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(sys.platform != "linux", reason="workers are found in /proc")
def test_killed_workers_lose_nothing_and_the_labels_are_those_of_one_machine(
    photos, cluster, here, tmp_path
):
    address, nodes = cluster
    with web(photos, SlowWeb) as server:
        url = f"http://127.0.0.1:{server.server_port}/digit-{{0000..0100}}.png"
        more = ["--engine", "ray", "--workers", "1"]
        environment = {"RAY_ADDRESS": address, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        words = ["label", url, *OPTIONS, *places(tmp_path, "ray"), *more]
        with program(*words, **environment) as run:
            # every image is read once for its id, and then to be encoded
            while len(server.handler.asked) < 101 + 20 and run.poll() is None:
                time.sleep(0.01)
            killed = workers(nodes)
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
            assert run.wait(500) == 0, run.stderr.read()
        assert len(killed) >= 2
        local = here("label", url, *OPTIONS, *places(tmp_path, "local"))
        assert local.returncode == 0, local.stderr
    tables = [pq.read_table(tmp_path / name / "labels.parquet") for name in ("ray", "local")]
    assert tables[0].equals(tables[1]) and len(tables[0]) == 99
    # not one image went through the model of the process that asked
    ids = sorted(set(tables[0]["id"].to_pylist()))
    backbone = open_backbone("tiny", batch_size=16, device="cpu", dtype="float32")
    stores = [open_store(tmp_path / f"cache-{n}", "images", backbone) for n in ("ray", "local")]
    assert not stores[0].missing(ids)
    assert torch.equal(stores[0].get(ids), stores[1].get(ids))
    told = [json.loads((tmp_path / n / "run.json").read_text()) for n in ("ray", "local")]
    assert told[0]["counts"] == told[1]["counts"]
    assert told[0]["counts"]["quarantined"] == 2 and told[0]["counts"]["encoded_now"] == 98


def pictures(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*.webp")}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_images_drawn_on_a_cluster_are_those_of_one_machine(cluster, here, tmp_path, monkeypatch):
    new_model(tmp_path / "model")  # named by a path that means nothing where the workers stand
    words = ["generate", "-c", "zero,one,two", "--model", "model", "--per-class", 3, "--tricks"]
    words += ["base", "--device", "cpu", "--dtype", "float32", "--set", "text_to_image.steps=2"]
    words += ["--set", "text_to_image.batch_size=4", "--json"]
    environment = {
        "cwd": tmp_path,
        "RAY_ADDRESS": cluster[0],
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
    more = ["--engine", "ray", "--workers", 2, "--out", "ray"]
    with program(*words, *more, **environment) as run:
        assert run.wait(400) == 0, run.stderr.read()
    monkeypatch.chdir(tmp_path)
    local = here(*words, "--out", "local")
    assert local.returncode == 0, local.stderr
    assert len(pictures(tmp_path / "ray")) == 9
    assert pictures(tmp_path / "ray") == pictures(tmp_path / "local")
    assert read_table(tmp_path / "ray") == read_table(tmp_path / "local")


class Here:
    """An engine that does in this process what others do elsewhere, and notes what it was asked."""

    def __init__(self):
        self.hashed, self.encoded, self.drawn = 0, 0, []

    def draw(self, generator, pieces):
        for batch, lacking in pieces:
            self.drawn.append((len(batch), len(lacking)))
            yield generator.drawn(batch, lacking)

    def hash_locations(self, locations, on_progress):
        from nameonly.images import hash_locations

        self.hashed += len(locations)
        yield from hash_locations(locations, on_progress)

    def encode(self, images, backbone, store, on_progress, transform=None):
        from nameonly.encoding import _batches, decoded_images

        transform, before = (
            pickle.loads(pickle.dumps(transform)),
            self.encoded,
        )  # as it would travel
        missing = store.missing(images.first_rows())
        found = decoded_images(images, missing, backbone, {}, transform)
        for ids, pixels in _batches(found, backbone.batch_size):
            store.add(ids, backbone.encode_pixels(pixels))
            self.encoded += len(ids)
        return self.encoded - before


def test_a_run_finds_done_what_its_engine_did(photos, tmp_path):
    engine, options = Here(), {"recipe": "zero_shot", "backbone": "tiny"}
    classes = [str(digit) for digit in range(10)]
    run = nameonly.label(photos, classes, **options, engine=engine, cache=tmp_path / "1")
    local = nameonly.label(photos, classes, **options, cache=tmp_path / "2")
    assert (engine.hashed, engine.encoded) == (101, 98)
    assert run.summary["counts"] == local.summary["counts"]
    assert run.table.equals(local.table)


def test_views_come_from_the_engine_too(photos, tmp_path):
    """A recipe that trains on two views of every image."""
    engine, space = Here(), [str(digit) for digit in range(10)]
    options = {"recipe": "lafter", "backbone": "tiny"}
    options["settings"] = {"adapters.views": 2, "adapters.text_steps": 5, "adapters.epochs": 2}
    run = nameonly.label(photos, space, **options, engine=engine, cache=tmp_path / "1")
    assert engine.encoded == 3 * 98
    local = nameonly.label(photos, space, **options, cache=tmp_path / "2")
    assert run.table.equals(local.table)


def test_what_a_recipe_draws_comes_from_the_engine_too(photos, tmp_path):
    engine, model = Here(), str(new_model(tmp_path / "model"))
    options = {"recipe": "sus_x", "backbone": "tiny"}
    fields = {"model": model, "steps": 2, "batch_size": 8, "dtype": "float32"}
    options["settings"] = {f"text_to_image.{name}": value for name, value in fields.items()}
    options["settings"] |= {"support_set.images_per_class": 2}
    notes, classes = [], list(CLASSES.class_names)
    heard = {"on_note": notes.append, "engine": engine}
    run = nameonly.label(photos, classes, **options, **heard, cache=tmp_path / "1")
    drawn = sum(lacking for _, lacking in engine.drawn)
    assert drawn == 2 * len(CLASSES) and engine.encoded == 98 + drawn and not notes
    local = nameonly.label(photos, classes, **options, cache=tmp_path / "2")
    assert run.table.equals(local.table)
    made = [pictures(tmp_path / name / "synthetic") for name in "12"]
    assert made[0] == made[1] and len(made[0]) == drawn


def test_how_long_other_machines_draw_is_not_foretold(digit_task, tmp_path, monkeypatch):
    monkeypatch.setattr(generating, "WORTH_TRYING", 1)
    parts = generator(new_model(tmp_path / "model"), steps=2), DomainLora(2, schedule=SHORT)
    asked, told = requests(2), {}
    for engine in (None, Here()):
        notes = told[engine is None] = []
        cache = tmp_path / str(len(told))
        task = replace(digit_task[0], cache=cache, engine=engine, on_note=notes.append)
        adapted_to_task(task, *parts, TopKPerClass(1), asked)
    assert "of training the LoRA" in told[True][0] and "of drawing" in told[True][0]
    assert "of training the LoRA" in told[False][0] and "of drawing" not in told[False][0]


def test_a_worker_makes_the_views_that_this_process_would(photos):
    images, backbone = open_images(photos)[0], open_backbone("tiny")
    view = _View("strong", 1, 0)
    batch = {"id": images.ids[:3], "places": [[place] for place in images.locations[:3]]}
    got = _Decoder(backbone, view, Path.cwd())(batch)["pixels"]
    for row, image_id in enumerate(images.ids[:3]):
        want = backbone.preprocess(view(image_id, load(images, row)))
        assert torch.equal(torch.from_numpy(got[row]), want)


def test_a_generation_draws_where_its_engine_does(tmp_path):
    engine, model = Here(), new_model(tmp_path / "model")
    parts = Generation(text_to_image=generator(model, batch_size=4))
    wanted = Wanted(CLASSES, 2)
    generate(wanted, parts, tmp_path / "here")
    missing = sorted((tmp_path / "here").rglob("*.webp"))[0].relative_to(tmp_path / "here")
    generate(Wanted(CLASSES, 2, engine=engine), parts, tmp_path / "there")
    assert sum(lacking for _, lacking in engine.drawn) == 2 * len(CLASSES)
    (tmp_path / "there" / missing).unlink()
    engine.drawn.clear()
    generate(Wanted(CLASSES, 2, engine=engine), parts, tmp_path / "there")
    assert [lacking for _, lacking in engine.drawn] == [1], "only what is lacking, in its batch"
    assert pictures(tmp_path / "there") == pictures(tmp_path / "here")
    assert read_table(tmp_path / "there") == read_table(tmp_path / "here")


def test_a_worker_with_another_model_stops_the_run(tmp_path):
    made = generator(new_model(tmp_path / "model"))
    piece = {"piece": [(list(requests(1)), [0])]}
    ((row, pixels),) = _Drawer(made, made.facts, Path.cwd())(piece)["drawn"][0]
    assert row["number"] == 0 and pixels.shape[2] == 3
    with pytest.raises(ValueError, match="a worker would make images by"):
        _Drawer(made, {**made.facts, "revision": "another"}, Path.cwd())(piece)


@pytest.mark.parametrize(
    ("there", "processes", "each"), [(2.0, 4, 0.5), (4.0, 6, 0.66), (8.0, 4, 1.0), (0.0, 2, 1.0)]
)
def test_all_processes_find_room_at_once(there, processes, each):
    assert cpus_each(there, processes) == each
    assert each * processes <= there or not there


class Cluster:
    """What Ray says of its machines."""

    def __init__(self, **resources):
        self.resources = resources

    def cluster_resources(self):
        return self.resources


def test_no_more_workers_than_have_work_and_a_gpu():
    assert RayEngine(4)._size(Cluster(CPU=1.0), 3) == 3
    assert RayEngine(4, 0.5)._size(Cluster(GPU=1.0), 9) == 2
    with pytest.raises(ValueError, match=r"a worker shall have 1 GPUs, and the cluster has 0;"):
        RayEngine(4, 1.0)._size(Cluster(CPU=8.0), 9)


@pytest.mark.parametrize(("workers_", "gpus"), [(0, 0.0), (1, -0.5)])
def test_an_engine_needs_workers(workers_, gpus):
    with pytest.raises(ValueError, match="at least one worker and no negative share"):
        RayEngine(workers_, gpus)


def test_without_the_extra_one_error_names_it(photos, monkeypatch, tmp_path):
    from nameonly.cli_options import engine_for

    assert engine_for("local", 2, 0.0) is None
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"ray\[data\].*nameonly\[ray\]"):
        engine_for("ray", 2, 0.0)
    images, backbone = open_images(photos)[0], open_backbone("tiny")
    with pytest.raises(ValueError, match=r"nameonly\[ray\]"):
        RayEngine().encode(images, backbone, open_store(tmp_path, "images", backbone), None)


def test_of_a_workers_error_the_first_is_told():
    text = """ray::MapWorker(MapBatches(_Encoder)).submit() (pid=1, ip=127.0.0.1)
      File "ray.py", line 1, in __call__
    ValueError: a worker would make features of x

    The above exception was the direct cause of the following exception:

    ray.exceptions.UserCodeException: UDF failed to process a data block."""
    assert _first_error(text) == "a worker would make features of x"
    assert _first_error("no tracebacks\n  here ") == "here"


def test_a_cluster_that_is_not_there_is_one_clear_error(photos, nameonly, tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="the extra ray is not installed")
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_port()}")
    words = ["label", photos, *OPTIONS, *places(tmp_path, "o"), "--engine", "ray"]
    code, _, said = nameonly(*words)
    assert code == 2
    assert said.strip().splitlines()[-1].startswith("error: Ray: nobody answers at RAY_ADDRESS=127")
    assert not (tmp_path / "o").exists()
