"""The memory is really short: the address space of a process is limited before it encodes."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from nameonly.backbones import _devices
from nameonly.backbones._devices import images_a_pass, in_halves, in_passes
from nameonly.backbones.clip import ClipBackbone

PROGRAM = """
import json, resource, sys
import torch
from nameonly.backbones import _devices
from nameonly.backbones.clip import ClipBackbone

_devices.PASS_BYTES = 1 << 40  # all in one pass, where memory holds it
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


def vision_model(patch=16, width=24, layers=1):
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        image_size=32,
        patch_size=patch,
    )
    return CLIPVisionModel(config)


def test_few_images_at_a_time_where_their_results_are_large(monkeypatch):
    pixels = torch.zeros(3, 3, 32, 32)
    each = (2 * 2 + 1) * 96 * 4
    for room, n in ((each - 1, 1), (each, 1), (7 * each, 7), (8 * each - 1, 7)):
        monkeypatch.setattr(_devices, "PASS_BYTES", room)
        assert images_a_pass(vision_model(), pixels) == n
        assert images_a_pass(vision_model().bfloat16(), pixels) == max(1, room // (each // 2))
    for tower in (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 4)), nn.Linear(3, 4)):
        assert images_a_pass(tower, pixels) is None


def test_a_batch_in_passes_is_the_batch_and_a_gpu_takes_it_at_once(monkeypatch):
    backbone, sizes = ClipBackbone("tiny", device="cpu", dtype="float32"), []
    tower, pixels = backbone.network.vision_model, torch.rand(23, 3, 32, 32)
    whole = backbone.encode_pixels(pixels)
    monkeypatch.setattr(_devices, "images_a_pass", lambda *_: 8)
    torch.testing.assert_close(backbone.encode_pixels(pixels), whole, atol=1e-6, rtol=0)

    def counted(part):
        sizes.append(len(part))
        return part.flatten(1)[:, :2]

    for kind in ("cpu", "cuda"):
        got = in_passes(counted, pixels, torch.device(kind), tower)
        assert torch.equal(got, pixels.flatten(1)[:, :2])
    assert sizes == [8, 8, 7, 23]
