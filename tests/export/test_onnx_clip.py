import json
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from nameonly.adapters.prototype_adapter import PrototypeAdapter
from nameonly.backbones.clip import ClipBackbone
from nameonly.backbones.precomputed import PrecomputedBackbone
from nameonly.classifier import Classifier, load
from nameonly.decisions.argmax import Argmax
from nameonly.export.onnx_clip import (
    _processing,
    compare_clip,
    export_classifier,
    export_clip,
)
from nameonly.tiny import MODEL
from nameonly.tiny.digits import CLASS_NAMES
from nameonly.types import LabelSpace, TextClassifier

SMALL = {"height": 24, "width": 32}


def classifier(backbone):
    """An adapter beside the text, as a run saves it."""
    g = torch.Generator().manual_seed(0)
    weights = normalize(backbone.encode_texts([f"the digit {n}" for n in CLASS_NAMES]), dim=1)
    adapter = PrototypeAdapter()
    adapter.text_ = TextClassifier(weights, 20.0, CLASS_NAMES)
    adapter.prototypes_ = normalize(weights + 0.3 * torch.randn(weights.shape, generator=g), dim=1)
    adapter.residual_scale_ = 5.0
    made = {"recipe": "up_adapter", "nameonly": "9.8.7"}
    return Classifier(backbone, adapter, Argmax(), LabelSpace(CLASS_NAMES), "", made)


@pytest.fixture(scope="module")
def exported(all_digits, tmp_path_factory):
    """A saved classifier, the folder of its ONNX file, and what was said of it."""
    folder = tmp_path_factory.mktemp("clip")
    backbone = ClipBackbone("tiny", device="cpu", dtype="float32")
    classifier(backbone).save(folder / "run" / "classifier")
    files = [str(path) for path in sorted(all_digits[0].iterdir())[:40]]
    (folder / "out").mkdir()
    return folder / "run", folder / "out", export_classifier(folder / "run", folder / "out", files)


@pytest.mark.slow
def test_it_says_what_the_classifier_says(exported, all_digits):
    run, out, found = exported
    assert found["parity"]["images"] == 40 and found["parity"]["same_labels"] == 1.0
    assert found["parity"]["max_difference"] < 1e-4 and found["notes"] == []
    assert (found["recipe"], found["backbone"], found["nameonly"]) == (
        "up_adapter",
        "tiny",
        "9.8.7",
    )
    loaded = load(run, dtype="float32", device="cpu")
    sizes = np.random.default_rng(0).integers(20, 200, (12, 2)).tolist()
    shown = []
    for path, size in zip(sorted(all_digits[0].iterdir()), sizes, strict=False):
        with Image.open(path) as image:
            shown.append(image.convert("RGB").resize(tuple(size), Image.Resampling.BICUBIC))
    assert loaded.predict_proba(shown).argmax(dim=1).unique().numel() > 3
    parity = compare_clip(out / "model.onnx", loaded, shown)
    assert parity.max_difference < 0.01 and parity.same_labels == 1.0


@pytest.mark.slow
def test_the_file_stands_alone(exported):
    """No code of ours: a decoded image of any size in, probabilities out."""
    _, out, _ = exported
    onnx.checker.check_model(out / "model.onnx")
    session = onnxruntime.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["nameonly.image_classes"]) == list(CLASS_NAMES)
    assert about["nameonly.backbone"] == "tiny" and about["nameonly.recipe"] == "up_adapter"
    for shape in ((40, 60, 3), (33, 32, 3)):
        image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        (probs,) = session.run(None, {"image": image})
        assert probs.shape == (10,) and probs.sum() == pytest.approx(1, abs=1e-5)
    with pytest.raises(ValueError, match="none of the files that `nameonly train` writes"):
        load(out / "model.onnx").backbone.encode_images([Image.new("RGB", (8, 8))])


def with_processor(folder, **changes):
    """The bundled model with another image processor."""
    shutil.copytree(MODEL, folder)
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return ClipBackbone(str(folder), device="cpu", dtype="float32")


# Pillow shrinks one axis, rounds, and shrinks the other; onnxruntime the other way round
@pytest.mark.parametrize(
    ("most", "mean", "changes"),
    [
        (1, 0.01, {}),
        (1, 0.01, {"size": {"shortest_edge": 40}}),
        (1, 0.3, {"size": {"shortest_edge": 40}, "crop_size": SMALL, "resample": 2}),
        # as SigLIP's
        (5, 0.3, {"size": {"height": 32, "width": 32}, "do_center_crop": False}),
        (1, 0.3, {"size": {"height": 32, "width": 32}, "do_center_crop": False, "resample": 2}),
    ],
)
def test_pixels_are_those_of_the_image_processor(most, mean, changes, tmp_path):
    backbone = with_processor(tmp_path / "m", **changes)
    model, _ = _processing(onnx, backbone)
    model.ir_version = 10
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for width, height in [(32, 32), (50, 33), (77, 100), (333, 200), (20, 25), (31, 200)]:
        noise = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
        (got,) = session.run(None, {"image": noise})
        want = backbone.preprocess(Image.fromarray(noise)).numpy() * 127.5 + 127.5
        off = np.abs(got[0] - want)
        assert off.max() < most + 0.01 and off.mean() < mean


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"resample": 1}, "expected bilinear or bicubic resizing .* got resample 1"),
        ({"do_resize": False}, "do_resize False"),
        ({"rescale_factor": 1.0}, "rescale_factor 1.0"),
        ({"crop_size": {"height": 64, "width": 64}}, "would need a border"),
    ],
)
def test_what_the_graph_cannot_do_is_told(changes, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        _processing(onnx, with_processor(tmp_path / "m", **changes))


def test_only_clip_is_written(feature_file, tmp_path):
    own = PrecomputedBackbone(str(feature_file[0]))
    text = TextClassifier(torch.eye(4, 16), 20.0, ("a", "b", "c", "d"))
    made = Classifier(own, text, Argmax(), LabelSpace(("a", "b", "c", "d")))
    with pytest.raises(ValueError, match=r"CLIP and SigLIP models .* got the backbone"):
        export_clip(made, tmp_path / "model.onnx")
    assert list(tmp_path.glob("*.onnx")) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(("--link",), "it goes with --images and --column alone"), ((), "is not a classifier")],
)
def test_the_command_refuses_in_one_line(arguments, words, tmp_path, nameonly):
    ended = nameonly("export", tmp_path, "--to", "onnx", "--out", tmp_path / "x", *arguments)
    assert ended.returncode == 2 and words in ended.stderr
    assert not (tmp_path / "x").exists()
