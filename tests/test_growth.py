"""How much more memory more images take, told by runs in processes of their own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

GROWTH = Path(__file__).parents[1] / "benchmarks" / "growth.py"
WIDTH = 512


def child(*arguments):
    command = [sys.executable, str(GROWTH), "--child", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=300)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's own memory")
@pytest.mark.parametrize(
    ("case", "n", "bytes_per_image"),
    # features that are mapped count for nothing; own ones are read and made unit rows
    [("store", 10_000, 2_500), ("own", 5_000, 5 * 4 * WIDTH)],
)
def test_memory_grows_by_less_than_a_few_rows_an_image(tmp_path, case, n, bytes_per_image):
    most = {}
    for size in (n, 4 * n):
        folder = tmp_path / str(size)
        folder.mkdir()
        child("make", case, size, "up_adapter", folder)
        most[size] = child("measure", case, size, "up_adapter", folder)["own MB"] * 2**20
    assert (most[4 * n] - most[n]) / (3 * n) < bytes_per_image, most
