import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from nameonly import doctor
from nameonly.tiny import MODEL


@pytest.fixture
def model(tmp_path):
    """A copy of the bundled model that a test may change."""
    return shutil.copytree(MODEL, tmp_path / "model")


def test_the_bundled_model_gives_its_reference():
    assert not doctor.verify_backbone("tiny").failed


def test_other_weights_fail(model):
    tensors = load_file(model / "model.safetensors")
    tensors["visual_projection.weight"] = tensors["visual_projection.weight"].flip(0).contiguous()
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    check = doctor.verify_backbone(str(model))
    assert check.failed and "not those of the reference" in check.advice


def test_other_preprocessing_fails(model):
    path = model / "preprocessor_config.json"
    settings = json.loads(path.read_text())
    settings["image_mean"] = [0.9, 0.9, 0.9]
    path.write_text(json.dumps(settings))
    assert doctor.verify_backbone(str(model)).failed


def test_a_reference_is_written_and_fits(model):
    (model / "reference.json").unlink()
    with pytest.raises(ValueError, match=r"no reference\.json.*--write-reference"):
        doctor.verify_backbone(str(model))
    doctor.write_reference(str(model))
    assert not doctor.verify_backbone(str(model)).failed


def test_a_damaged_reference_is_told(model):
    (model / "reference.json").write_text('{"texts": ["a"]')
    with pytest.raises(ValueError, match="is damaged"):
        doctor.verify_backbone(str(model))


def test_a_cache_that_cannot_be_written_fails(tmp_path):
    (tmp_path / "file").write_text("x")
    checks = {check.name: check for check in doctor.examine(tmp_path / "file")}
    assert checks["cache"].failed and "--cache" in checks["cache"].advice
    assert checks["model hub"].found.startswith("not reachable")
    assert not checks["torchvision fits torch"].failed
