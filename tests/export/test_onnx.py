import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from PIL.ImageOps import fit

from nameonly.backbones._network import NetworkBackbone, build_network
from nameonly.classifier import load
from nameonly.export.onnx import compare_with_torch, export_onnx, quantise_onnx, some_images
from nameonly.images import load as load_image
from nameonly.images import open_images
from nameonly.jobs import predict
from nameonly.sources.decoding import upright_rgb
from nameonly.tiny.digits import CLASS_NAMES

SIZE = 32


def network(architecture="test_resnet", **options):
    torch.manual_seed(0)
    state = build_network(architecture, 10, SIZE, options).state_dict()
    return NetworkBackbone(architecture, 10, SIZE, state, options=options, device="cpu")


@pytest.fixture(scope="module")
def pictures(all_digits):
    paths = sorted(all_digits[0].iterdir())[:40]
    return [upright_rgb(Image.open(path)) for path in paths]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_onnx(network(), CLASS_NAMES, path)
    return path


@pytest.mark.parametrize(
    ("architecture", "options"), [("test_vit", {"patch_size": 8}), ("test_convnext", {})]
)
def test_it_says_what_the_network_says(architecture, options, pictures, tmp_path):
    made = network(architecture, **options)
    export_onnx(made, CLASS_NAMES, tmp_path / "model.onnx")
    parity = compare_with_torch(tmp_path / "model.onnx", made, pictures)
    assert parity.images == 40 and parity.max_difference < 1e-5 and parity.same_labels == 1.0


def test_the_file_stands_alone(exported, pictures):
    """No code of ours: bytes of any number of images in, probabilities out."""
    onnx.checker.check_model(exported)
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["nameonly.class_names"]) == list(CLASS_NAMES)
    squares = [torch.from_numpy(np.array(fit(p, (SIZE, SIZE)))) for p in pictures]
    for n in (1, 3):
        given = torch.stack(squares[:n]).numpy()
        (probs,) = session.run(None, {"pixels": given})
        want = network().encode_images(pictures[:n]).softmax(dim=1)
        torch.testing.assert_close(torch.from_numpy(probs), want, atol=1e-5, rtol=1e-4)


def test_predict_labels_images_by_the_file(exported, digits, tmp_path):
    run = predict(exported, str(digits), out=tmp_path / "out", limit=20)
    assert run.summary["counts"]["labelled"] == 20
    assert set(run.table["label"].to_pylist()) <= set(CLASS_NAMES)
    again = predict(tmp_path / "out", str(digits), limit=20)
    assert again.table["label"].to_pylist() == run.table["label"].to_pylist()
    with pytest.raises(ValueError, match="whose dtype and model cannot be chosen"):
        load(exported, dtype="bfloat16", model="tiny")
    loaded = load(exported)
    assert loaded.label_space.class_names == CLASS_NAMES
    with pytest.raises(ValueError, match="knows no texts"):
        loaded.backbone.encode_texts(["a"])


def test_int8_is_smaller_and_close(exported, pictures, tmp_path):
    small = tmp_path / "small.onnx"
    quantise_onnx(exported, small, pictures)
    assert small.stat().st_size < 0.5 * exported.stat().st_size
    parity = compare_with_torch(small, network(), pictures)
    assert 0 < parity.max_difference < 0.05
    assert load(small).backbone.size == SIZE
    with pytest.raises(ValueError, match="needs images"):
        quantise_onnx(exported, small, [])


@pytest.mark.parametrize("n", [5, 256, 300, 511])
def test_compared_images_are_spread_over_all(all_digits, n):
    images, _ = open_images(str(all_digits[0]))
    rows = list(range(n))
    chosen, shown = some_images(images, rows)
    assert chosen[0] == 0 and chosen[-1] == n - 1 and len(set(chosen)) == len(shown)
    assert len(shown) == min(n, 256)
    first, last = (np.asarray(load_image(images, row)) for row in (rows[0], rows[-1]))
    assert np.array_equal(np.asarray(shown[0]), first)
    assert np.array_equal(np.asarray(shown[-1]), last)


def test_files_that_are_none_of_ours_are_refused(exported, tmp_path):
    with pytest.raises(ValueError, match="no ONNX file"):
        load(tmp_path / "absent.onnx")
    (tmp_path / "bad.onnx").write_bytes(exported.read_bytes()[:1000])
    with pytest.raises(ValueError, match="cannot be read as an ONNX file"):
        load(tmp_path / "bad.onnx")
    foreign = onnx.load(exported)
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    with pytest.raises(ValueError, match="does not name its classes"):
        load(tmp_path / "foreign.onnx")
    with pytest.raises(ValueError, match="cannot use device 'tpu'"):
        load(exported, device="tpu").backbone.encode_images([Image.new("RGB", (8, 8))])
