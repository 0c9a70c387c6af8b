"""A disk that is full, a disk that is read-only, and what an undisturbed run gives."""

import os
import resource
import shutil
import subprocess
from contextlib import contextmanager

import pytest


def mounted(folder, options):
    """Mount a small file system; False where this machine lets nobody do so."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True).returncode == 0


@contextmanager
def small_disk(folder, kilobytes):
    """Give a folder with little room; where nothing can be mounted, files may not grow past it."""
    folder.mkdir()
    if mounted(folder, f"size={kilobytes}k"):
        try:
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
        return
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024 // 8, before[1]))
    try:
        yield folder
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def closed_folder(folder):
    """Give a folder in which nothing can be written."""
    folder.mkdir()
    if mounted(folder, "ro"):
        try:
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
        return
    if os.geteuid() == 0:
        pytest.skip("no folder is closed to root")
    folder.chmod(0o500)
    try:
        yield folder
    finally:
        folder.chmod(0o700)


@pytest.fixture
def a_small_disk(tmp_path):
    return lambda kilobytes: small_disk(tmp_path / "small-disk", kilobytes)


@pytest.fixture
def a_closed_folder(tmp_path):
    return lambda: closed_folder(tmp_path / "closed")


@pytest.fixture(scope="session")
def tiny():
    from nameonly.backbones.clip import ClipBackbone

    return ClipBackbone("tiny", device="cpu", dtype="float32", batch_size=16)


@pytest.fixture(scope="session")
def undisturbed(all_digits, tiny, tmp_path_factory):
    """The table of a run on 48 digits that nothing happened to, their folder, and the run's."""
    from nameonly.jobs import label
    from nameonly.tiny.digits import CLASS_NAMES

    root = tmp_path_factory.mktemp("undisturbed")
    (root / "photos").mkdir()
    for path in sorted(all_digits[0].iterdir())[:48]:
        shutil.copy(path, root / "photos")
    kept = {"cache": root / "cache", "out": root / "run"}
    run = label(root / "photos", CLASS_NAMES, backbone=tiny, **kept)
    return run.table, root / "photos", root / "run"


@pytest.fixture
def photos(undisturbed, tmp_path):
    """A copy of those digits that a test may change."""
    shutil.copytree(undisturbed[1], tmp_path / "photos")
    return tmp_path / "photos"


@pytest.fixture
def run(undisturbed, tmp_path):
    """A copy of that run that a test may change."""
    shutil.copytree(undisturbed[2], tmp_path / "run")
    return tmp_path / "run"
