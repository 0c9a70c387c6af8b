import shutil

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

NAMES = ("ant", "bee", "cat", "dog")


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


@pytest.fixture(scope="session")
def all_digits(tmp_path_factory):
    """The demo's digits as PNG files, and their truth."""
    from nameonly.tiny.digits import export

    return export(tmp_path_factory.mktemp("digits"))


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
