"""The memory is really short: the address space of a process is limited before it encodes."""

import json
import subprocess
import sys

import pytest
import torch

from nameonly.backbones._devices import in_halves

PROGRAM = """
import json, resource, sys
import torch
from nameonly.backbones.clip import ClipBackbone

torch.set_num_threads(1)
backbone = ClipBackbone("tiny", device="cpu", dtype="float32")
pixels = torch.rand(2048, 3, 32, 32, generator=torch.Generator().manual_seed(0))
whole = backbone.encode_pixels(pixels)
sizes = []
forward = type(backbone.network).get_image_features

def counted(self, pixel_values):
    sizes.append(len(pixel_values))
    return forward(self, pixel_values=pixel_values)

type(backbone.network).get_image_features = counted
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[1]),) * 2)
short = backbone.encode_pixels(pixels)
found = {"sizes": sizes, "error": float((short - whole).abs().max()), "rows": len(short)}
print(json.dumps(found))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited on Linux alone")
def test_a_batch_that_memory_does_not_hold_is_halved():
    command = [sys.executable, "-c", PROGRAM, str(60 << 20)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["sizes"][:2] == [2048, 1024] and found["rows"] == 2048
    assert found["error"] < 1e-5


def test_one_image_that_it_does_not_hold_is_told_and_other_errors_pass():
    tried = []

    def greedy(pixels):
        tried.append(len(pixels))
        return torch.empty(len(pixels), 2**50)

    pixels = torch.zeros(4, 3, 2, 2)
    with pytest.raises(ValueError, match="one image does not fit the memory of cpu"):
        in_halves(greedy, pixels, torch.device("cpu"))
    assert tried == [4, 2, 1]
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        in_halves(lambda p: p.flatten(1) @ torch.zeros(5, 5), pixels, torch.device("cpu"))
