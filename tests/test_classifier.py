import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from nameonly import methods
from nameonly.adapters.prototype_adapter import PrototypeAdapter
from nameonly.backbones._prompted import PromptedBackbone
from nameonly.backbones.clip import ClipBackbone
from nameonly.backbones.precomputed import PrecomputedBackbone
from nameonly.classifier import Classifier, load
from nameonly.decisions.abstain import Abstain
from nameonly.types import Features


@pytest.fixture
def fitted(toy, feature_file):
    """A classifier on own features, and the features under its backbone's name."""
    _, text, space, _ = toy
    text = replace(text, logit_scale=3.0)
    backbone = PrecomputedBackbone(str(feature_file[0]))
    features = backbone.features
    labels = methods.create("pseudo_labels", "top_k_per_class").label(
        features, text.predict_logits(features), space
    )
    adapter = PrototypeAdapter().fit(features, text, labels)
    return Classifier(backbone, adapter, Abstain(threshold=0.6), space, temperature=2.5), features


def test_saved_and_loaded_it_says_the_same(fitted, tmp_path):
    classifier, features = fitted
    classifier.save(tmp_path / "c", "card")
    before, after = classifier.predict(features), load(tmp_path / "c").predict(features)
    assert torch.equal(before.probs, after.probs) and torch.equal(before.labels, after.labels)
    assert (before.labels == -1).any() and (tmp_path / "c" / "README.md").read_text() == "card"
    again = load(tmp_path / "c")
    assert again.label_space == classifier.label_space
    assert methods.settings_of(again.decision) == {"threshold": 0.6, "deviations": 0.0}


def test_the_temperature_and_what_the_decision_learnt_are_saved(fitted, tmp_path):
    classifier, features = fitted
    logits = classifier.scorer.predict_logits(features) / 2.5
    strict = replace(classifier, decision=Abstain(0.0, deviations=0.5).fit(logits))
    for kind, made in (("bound", strict), ("none", classifier)):
        made.save(tmp_path / kind)
        again = load(tmp_path / kind)
        assert again.temperature == 2.5
        assert again.decision.energy_ == pytest.approx(made.decision.energy_)
        assert torch.equal(again.predict(features).labels, made.predict(features).labels)
        json.loads((tmp_path / kind / "classifier.json").read_text(), parse_constant=pytest.fail)
    assert (strict.predict(features).labels == -1).sum() not in (0, len(features))
    probs = classifier.predict_proba(features)
    assert torch.allclose(classifier.calibrated(probs), logits.softmax(dim=1), atol=1e-5)
    config = json.loads((tmp_path / "none" / "classifier.json").read_text())
    (tmp_path / "none" / "classifier.json").write_text(json.dumps(config | {"temperature": -1}))
    with pytest.raises(ValueError, match="a temperature is above 0, got -1"):
        load(tmp_path / "none")


INDUCTIVE = [
    name
    for name in methods.names("adapters")
    if not methods.method_class("adapters", name).transductive
]


@pytest.mark.parametrize("name", INDUCTIVE)
def test_every_adapter_that_scores_new_images_is_saved_whole(name, toy, feature_file, tmp_path):
    _, text, space, _ = toy
    backbone = PrecomputedBackbone(str(feature_file[0]))
    features = backbone.features
    labels = methods.create("pseudo_labels", "top_k_per_class").label(
        features, text.predict_logits(features), space
    )
    adapter = methods.create("adapters", name).fit(features, text, labels)
    classifier = Classifier(backbone, adapter, methods.create("decisions", "argmax"), space)
    classifier.save(tmp_path / "c")
    got = load(tmp_path / "c").predict_proba(features)
    assert torch.equal(got, classifier.predict_proba(features))


def test_what_the_files_cannot_hold_is_refused_and_not_dropped(fitted, tmp_path):
    classifier, _ = fitted
    classifier.scorer.prototypes_ = [1, 2]
    with pytest.raises(TypeError, match=r"prototype_adapter\.prototypes_ is a list"):
        classifier.save(tmp_path / "c")


def test_zero_shot_is_saved_too(toy, feature_file, tmp_path):
    _, text, space, _ = toy
    backbone = PrecomputedBackbone(str(feature_file[0]))
    classifier = Classifier(backbone, text, methods.create("decisions", "argmax"), space)
    classifier.save(tmp_path)
    got = load(tmp_path).predict_proba(backbone.features)
    assert torch.equal(got, classifier.predict_proba(backbone.features))


def test_no_file_of_it_is_a_pickle(fitted, tmp_path):
    folder = tmp_path / "c"
    fitted[0].save(folder, "card")
    assert {p.suffix for p in folder.iterdir()} == {".json", ".safetensors", ".md"}
    json.loads((folder / "classifier.json").read_text())
    load_file(folder / "classifier.safetensors")


def test_features_of_another_backbone_are_refused(fitted):
    classifier, features = fitted
    other = Features(features.values, features.ids, "another")
    with pytest.raises(ValueError, match="got features of 'another'"):
        classifier.predict(other)


@pytest.mark.parametrize("damage", ["no config", "no weights", "json", "format", "tensor", "bytes"])
def test_what_is_not_whole_is_refused(fitted, tmp_path, damage):
    fitted[0].save(tmp_path)
    config, weights = tmp_path / "classifier.json", tmp_path / "classifier.safetensors"
    if damage == "no config":
        config.unlink()
    elif damage == "no weights":
        weights.unlink()
    elif damage == "json":
        config.write_text(config.read_text()[:50])
    elif damage == "format":
        config.write_text(config.read_text().replace('"format": 1', '"format": 99'))
    elif damage == "tensor":
        save_file({"prototypes_": torch.zeros(4, 16)}, weights)
    else:
        weights.write_bytes(weights.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"is not a classifier|cannot load the classifier"):
        load(tmp_path)


def test_a_method_that_is_not_ours_is_not_imported(fitted, tmp_path):
    fitted[0].save(tmp_path)
    config = tmp_path / "classifier.json"
    config.write_text(config.read_text().replace("prototype_adapter", "../../evil"))
    with pytest.raises(ValueError, match="no method"):
        load(tmp_path)


def test_changed_weights_of_the_backbone_are_refused(toy, tmp_path):
    from nameonly.tiny import MODEL

    folder = tmp_path / "model"
    shutil.copytree(MODEL, folder)
    backbone = ClipBackbone(str(folder), device="cpu", dtype="float32")
    _, _, space, _ = toy
    from nameonly.encoding import build_text_classifier

    text = build_text_classifier([[n] for n in space.class_names], space, backbone, tmp_path)
    decision = methods.create("decisions", "argmax")
    Classifier(backbone, text, decision, space).save(tmp_path / "c")
    images = [Image.new("L", (20, 30), 7), Image.new("RGBA", (9, 9))]
    got = load(tmp_path / "c", device="cpu").predict(images)
    assert got.ids == ("0", "1") and got.probs.shape == (2, 4)
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-2] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match="weights have changed"):
        load(tmp_path / "c", device="cpu").predict(images)


def test_it_loads_where_nothing_of_the_training_is_known(fitted, tmp_path):
    classifier, features = fitted
    classifier.save(tmp_path / "c")
    save_file({"x": features.values}, tmp_path / "x.safetensors")
    code = (
        "import sys, torch; from nameonly import load; from nameonly.types import Features;"
        "from safetensors.torch import load_file;"
        f"x = load_file(r'{tmp_path}/x.safetensors')['x'];"
        f"c = load(r'{tmp_path}/c');"
        "p = c.predict(Features(x, tuple(map(str, range(60))), c.backbone.name));"
        "print(p.labels.tolist())"
    )
    got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(got.stdout) == classifier.predict(features).labels.tolist()


def test_pillow_images_are_read_as_files_are(digits, tmp_path):
    """EXIF turns, 16 bits and transparency, through ``predict`` and through the files."""
    import numpy as np

    from nameonly import label, predict
    from nameonly.tiny.digits import CLASS_NAMES

    folder = tmp_path / "kinds"
    folder.mkdir()
    grey = Image.open(digits / "digit-0003.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    grey.rotate(90, expand=True).convert("RGB").save(folder / "a.jpg", exif=turned, quality=95)
    Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(folder / "b.png")
    clear = Image.new("RGBA", grey.size)
    clear.putalpha(Image.fromarray(255 - np.asarray(grey)))
    clear.save(folder / "c.png")
    label(digits, CLASS_NAMES, backbone="tiny", out=tmp_path / "out")
    by_file = predict(tmp_path / "out", folder).table
    classifier = load(tmp_path / "out")
    opened = [Image.open(folder / name) for name in ("a.jpg", "b.png", "c.png")]
    got = classifier.predict(opened)
    names = [CLASS_NAMES[i] for i in got.labels]
    assert names == by_file["label"].to_pylist()
    want = torch.tensor(by_file["probability"].to_pylist())
    torch.testing.assert_close(got.probs.max(dim=1).values, want, atol=2e-2, rtol=0)


def test_arrays_that_do_not_fit_are_refused(fitted, tmp_path):
    fitted[0].save(tmp_path)
    tensors = load_file(tmp_path / "classifier.safetensors")
    tensors["prototypes_"] = tensors["prototypes_"][:3].contiguous()
    save_file(tensors, tmp_path / "classifier.safetensors")
    with pytest.raises(ValueError, match="cannot load the classifier"):
        load(tmp_path)


def test_names_come_with_the_labels(fitted):
    classifier, features = fitted
    labels = classifier.predict(features).labels.tolist()
    names = classifier.label_space.class_names
    assert classifier.predict_names(features) == [None if i < 0 else names[i] for i in labels]


def test_what_is_no_image_is_told(digits, tmp_path):
    """In a program of its own, where no type check stands before the library's own word."""
    from nameonly import label

    label(digits, ["zero", "one"], backbone="tiny", out=tmp_path / "out")
    code = f"from nameonly import load; load(r'{tmp_path}/out').predict(['x.png'])"
    got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ValueError: expected Pillow images, got a str" in got.stderr


@pytest.fixture
def prompted(toy, tmp_path):
    """A saved classifier whose backbone has learned tokens, and the folder of the model."""
    from nameonly.encoding import build_text_classifier
    from nameonly.tiny import MODEL

    folder = tmp_path / "model"
    shutil.copytree(MODEL, folder)
    base = ClipBackbone(str(folder), device="cpu", dtype="float32")
    space = toy[2]
    text = build_text_classifier([[n] for n in space.class_names], space, base, tmp_path)
    tokens = torch.randn(1, 4, 128, generator=torch.Generator().manual_seed(0))
    backbone = PromptedBackbone(base, tokens)
    fingerprint = str(base.reference()["fingerprint"])
    decision = methods.create("decisions", "argmax")
    classifier = Classifier(backbone, text, decision, space, fingerprint)
    classifier.save(tmp_path / "c")
    return classifier, tmp_path / "c", folder


def test_learned_tokens_are_saved_with_it(prompted):
    classifier, folder, _ = prompted
    again = load(folder, device="cpu", batch_size=7)
    assert again.backbone.name == classifier.backbone.name and again.backbone.batch_size == 7
    assert torch.equal(again.backbone.tokens, classifier.backbone.tokens)
    pictures = [Image.effect_noise((32, 32), 90.0) for _ in range(3)]
    before, after = classifier.predict_proba(pictures), again.predict_proba(pictures)
    assert torch.equal(before, after)
    plain = replace(classifier, backbone=classifier.backbone.base).predict_proba(pictures)
    assert not torch.allclose(before, plain, atol=1e-3)
    made = Features(torch.zeros(1, 128), ("0",), classifier.backbone.base.name)
    with pytest.raises(ValueError, match="got features of"):
        again.predict(made)


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_other_tokens_than_those_saved_are_refused(prompted, damage):
    _, folder, _ = prompted
    tensors = load_file(folder / "classifier.safetensors")
    tokens = tensors.pop("backbone.tokens")
    if damage == "changed":
        tensors["backbone.tokens"] = tokens + 1e-3
    save_file(tensors, folder / "classifier.safetensors")
    with pytest.raises(ValueError, match=r"tokens"):
        load(folder)


def test_changed_weights_below_the_tokens_are_refused(prompted):
    classifier, folder, model = prompted
    classifier.check_weights()
    data = bytearray((model / "model.safetensors").read_bytes())
    data[-2] ^= 1
    (model / "model.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match="weights have changed"):
        load(folder, device="cpu").check_weights()


def test_what_is_of_the_fitted_images_alone_is_not_saved(toy, feature_file, tmp_path):
    features, text, space, _ = toy
    labels = methods.create("pseudo_labels", "top_k_per_class").label(
        features, text.predict_logits(features), space
    )
    adapter = methods.create("adapters", "transclip").fit(features, text, labels)
    assert adapter.logits_.shape == (60, 4)
    backbone = PrecomputedBackbone(str(feature_file[0]))
    decision = methods.create("decisions", "argmax")
    Classifier(backbone, adapter, decision, space).save(tmp_path / "c")
    assert "logits_" not in load_file(tmp_path / "c" / "classifier.safetensors")
    again = load(tmp_path / "c").scorer
    assert not hasattr(again, "logits_")
    assert torch.equal(again.predict_logits(features), adapter.predict_logits(features))
