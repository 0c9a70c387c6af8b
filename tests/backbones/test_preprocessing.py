import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from nameonly.backbones._preprocessing import preprocessing_of
from nameonly.backbones.clip import ClipBackbone

PROCESSORS = {
    "clip": CLIPImageProcessorPil(),
    "clip 336": CLIPImageProcessorPil(
        size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}
    ),
    "clip squashed": CLIPImageProcessorPil(
        size={"height": 96, "width": 64}, do_center_crop=False, image_mean=[0.5, 0.4, 0.3]
    ),
    "odd crop": CLIPImageProcessorPil(
        size={"shortest_edge": 65}, crop_size={"height": 64, "width": 63}, resample=2
    ),
    "siglip": SiglipImageProcessorPil(),
}
SIZES = [(224, 224), (32, 32), (1, 1), (640, 427), (427, 641), (225, 1000), (7, 300)]


def picture(width, height):
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("name", PROCESSORS)
def test_it_does_what_the_processor_does_bit_for_bit(name):
    processor = PROCESSORS[name]
    fast = preprocessing_of(processor.to_dict())
    for size in SIZES:
        image = picture(*size)
        want = processor(images=image, return_tensors="np")["pixel_values"][0]
        assert np.array_equal(fast(image).numpy(), want.astype(np.float32))


@pytest.mark.parametrize(
    "change",
    [
        {"do_rescale": False},
        {"do_normalize": False},
        {"do_resize": False},
        {"do_pad": True, "pad_size": {"height": 300, "width": 300}},
        {"crop_size": {"height": 300, "width": 300}},
        {"size": {"shortest_edge": 224, "longest_edge": 400}},
        {"image_mean": 0.5},
    ],
    ids=str,
)
def test_what_it_does_not_know_is_left_to_the_processor(change):
    settings = CLIPImageProcessorPil().to_dict()
    assert preprocessing_of(settings) is not None
    assert preprocessing_of({**settings, **change}) is None
    assert preprocessing_of({**settings, "image_processor_type": "ViTImageProcessor"}) is None


def test_the_backbone_falls_back_on_it(tmp_path):
    import json
    import shutil

    folder = tmp_path / "padded"
    shutil.copytree(ClipBackbone("tiny").folder, folder)
    path = folder / "preprocessor_config.json"
    settings = json.loads(path.read_text())
    settings |= {"size": {"shortest_edge": 16}, "crop_size": {"height": 32, "width": 32}}
    path.write_text(json.dumps({**settings, "do_center_crop": True}))
    backbone = ClipBackbone(str(folder))
    assert backbone.preprocessing is None
    image = picture(50, 40)
    want = backbone.processor(images=image, return_tensors="pt")["pixel_values"][0]
    assert torch.equal(backbone.preprocess(image), want)
    assert backbone.preprocess(image)[0, 0, 16] != backbone.preprocess(image)[0, 16, 16]
