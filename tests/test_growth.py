"""How much more memory more images take, told by runs in processes of their own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
# features that are mapped count for nothing
CASES = {"store": (10_000, 2_500), "predict": (20_000, 2_000), "predict-many": (20_000, 1_000)}
# torch's threads do not survive the forks in which it measures, so pytest's process cannot
PROGRAM = """
import json, sys
from growth import measure
cases = json.loads(sys.argv[1])
peaks = {
    case: [measure(case, size, "up_adapter")[case]["own MB"] * 2**20 for size in (n, 4 * n)]
    for case, n in cases.items()
}
print(json.dumps(peaks))
"""


@pytest.fixture(scope="module")
def peaks():
    cases = json.dumps({case: n for case, (n, _) in CASES.items()})
    command = [sys.executable, "-c", PROGRAM, cases]
    done = subprocess.run(command, cwd=BENCHMARKS, stdout=subprocess.PIPE, text=True, timeout=300)
    assert done.returncode == 0
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's own memory")
@pytest.mark.parametrize("case", CASES)
def test_memory_grows_by_less_than_a_few_rows_an_image(peaks, case):
    n, bytes_per_image = CASES[case]
    few, many = peaks[case]
    assert (many - few) / (3 * n) < bytes_per_image, peaks
