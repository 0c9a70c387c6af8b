import os
import shutil
import sys
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

if "PYTEST_XDIST_WORKER" in os.environ:
    # each worker has one core, and so have the programs that its tests start
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)

NAMES = ("ant", "bee", "cat", "dog")
# files stay with one worker; these take minutes, and begun last they would keep the others waiting
LONGEST = (
    *("test_ray.py", "test_faults.py", "test_text_to_image.py", "test_adapting.py"),
    *("test_training_job.py", "test_growth.py", "test_generation.py"),
)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture
def toy():
    """60 images of 4 classes: unit features around class means, text weights a little off."""
    from nameonly.types import Features, LabelSpace, TextClassifier  # after the jaxtyping hook

    g = torch.Generator().manual_seed(0)
    means = normalize(torch.randn(4, 16, generator=g), dim=1)
    y = torch.arange(60) % 4
    x = normalize(means[y] + 0.15 * torch.randn(60, 16, generator=g), dim=1)
    w = normalize(means + 0.15 * torch.randn(4, 16, generator=g), dim=1)
    features = Features(x, tuple(f"{i:02d}" for i in range(60)), "toy")
    return features, TextClassifier(w, 20.0, NAMES), LabelSpace(NAMES), y


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No test reads or writes the user's cache, or waits for a hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("NAMEONLY_CACHE", str(tmp_path / "cache"))


class Ended(NamedTuple):
    """How a command ended, and what it said."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def nameonly(capfd, monkeypatch):
    """Run the command line in this process, where torch is loaded already."""
    from nameonly import cli  # after the jaxtyping hook

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["nameonly", *map(str, words)])
        capfd.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
        return Ended(code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """Folder of a random Stable Diffusion at small size."""
    from diffusion_models import new_model  # after the jaxtyping hook

    return new_model(tmp_path_factory.mktemp("diffusion") / "model")


@pytest.fixture(scope="session")
def all_digits(tmp_path_factory):
    """The demo's digits as PNG files, and their truth."""
    from nameonly.tiny.digits import export

    return export(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="session")
def digit_task(all_digits, tmp_path_factory):
    """A task of 160 digits of the development half with the bundled model, and their truth."""
    from nameonly.backbones.clip import ClipBackbone
    from nameonly.encoding import build_text_classifier, encode_image_set
    from nameonly.images import open_images
    from nameonly.prompts.templates import Templates
    from nameonly.task import Task
    from nameonly.tiny.digits import CLASS_NAMES, halves
    from nameonly.types import LabelSpace

    cache = tmp_path_factory.mktemp("digit-task")
    rows = halves()[0][:160]
    files = [all_digits[0] / f"digit-{row:04d}.png" for row in rows]
    truth = dict(line.split(",") for line in all_digits[1].read_text().split()[1:])
    backbone = ClipBackbone("tiny", device="cpu", dtype="float32")
    images, _ = open_images([str(file) for file in files])
    space = LabelSpace(CLASS_NAMES)
    features = encode_image_set(images, backbone, cache).features
    first = images.first_rows()
    images = images.subset([first[i] for i in features.ids])
    text = build_text_classifier(Templates().texts(space), space, backbone, cache)
    y = [CLASS_NAMES.index(truth[source.rsplit("/", 1)[-1]]) for source in images.sources]
    task = Task(features, text, space, backbone=backbone, images=images)
    return task, torch.tensor(y)


@pytest.fixture
def worse_backbone(tmp_path):
    """The folder of a copy of the bundled model with noise on its weights."""
    import torch
    from safetensors.torch import load_file, save_file

    from nameonly.backbones.clip import ClipBackbone

    folder = tmp_path / "worse"
    shutil.copytree(ClipBackbone("tiny").folder, folder)
    state = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(5)
    for name in sorted(state):
        if state[name].ndim > 1:
            noise = torch.randn(state[name].shape, generator=generator)
            state[name] = state[name] + 0.6 * state[name].float().std() * noise
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


@pytest.fixture
def digits(all_digits, tmp_path):
    """A folder of 120 digits that a test may change."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for path in sorted(all_digits[0].iterdir())[:120]:
        shutil.copy(path, folder / path.name)
    return folder


@pytest.fixture
def feature_file(toy, tmp_path):
    """The toy features as a user would bring them."""
    features, text, space, _ = toy
    path = tmp_path / "features.npz"
    arrays = {
        "features": features.values.numpy(),
        "text_weights": text.weights.numpy(),
        "ids": np.array(features.ids),
        "class_names": np.array(space.class_names),
        "logit_scale": np.array(20.0),
    }
    np.savez(path, **arrays)
    return path, arrays


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    from browsing import open_browser

    with open_browser(tmp_path_factory.mktemp("profile")) as driver:
        yield driver
