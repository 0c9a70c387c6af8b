import sys
from dataclasses import replace

import pytest
import torch
from diffusion_models import generator

from nameonly import jobs
from nameonly.loop import Schedule
from nameonly.recipes.ma_zsc import MaZsc
from nameonly.synthesis.support_set import SupportSet
from nameonly.tiny.digits import CLASS_NAMES
from nameonly.training.image_classifier import ImageClassifier


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("ma-zsc-cache")


@pytest.fixture
def recipe(model):
    quick = ImageClassifier(
        "test_resnet", size=32, schedule=Schedule(2, 8, 1e-3), dtype="float32", device="cpu"
    )
    return replace(
        MaZsc(),
        text_to_image=generator(model, steps=2, batch_size=16),
        support_set=SupportSet(images_per_class=3, alone=True),
        training=quick,
    )


@pytest.fixture
def task(digit_task, cache):
    return replace(digit_task[0], cache=cache)


def test_it_has_the_papers_settings():
    recipe = MaZsc()
    assert recipe.support_set.alone and recipe.prompt_tricks.tricks == ("merged",)
    assert recipe.training.schedule.weight_decay == 0.9


def test_the_network_is_trained_on_synthetic_images_alone(recipe, task):
    adapted = recipe.fit(task)
    assert adapted.backbone.n_classes == 10 and adapted.logits.shape == (len(task.features), 10)
    few = torch.arange(9)
    part = replace(
        task,
        features=task.features.subset(few),
        images=task.images.subset(few.tolist()),
    )
    torch.testing.assert_close(recipe.fit(part).logits, adapted.logits[:9])


def test_real_images_can_be_learnt_from_beside_them(recipe, task):
    both = replace(recipe, support_set=SupportSet(images_per_class=3, alone=False))
    adapted = both.fit(task)
    assert adapted.backbone.digest != recipe.fit(task).backbone.digest
    assert adapted.pseudo_labels is not None


def test_synthetic_images_bring_what_the_backbone_says_of_them(recipe, task):
    seen = []

    class Watching(ImageClassifier):
        def fit(self, images, pseudo_labels, class_names, **options):
            seen.append(pseudo_labels)
            return super().fit(images, pseudo_labels, class_names, **options)

    quick = recipe.training
    watching = Watching(**{k: getattr(quick, k) for k in ("architecture", "size", "schedule")})
    adapted = replace(recipe, training=watching).fit(task)
    (shown,) = seen
    assert shown.selected.sum() == 30 and len(shown.ids) == len(task.features) + 30
    assert 0.1 < shown.probs[-30:].amax(dim=1).mean() < 1
    assert adapted.scorer.class_names == CLASS_NAMES
    assert adapted.pseudo_labels is None, "no real image was learnt from"


def test_an_architecture_is_asked_for_before_images_are_drawn(recipe, task, tmp_path):
    unknown = replace(recipe, training=replace(recipe.training, architecture="resnet10"))
    with pytest.raises(ValueError, match="timm has no architecture 'resnet10'"):
        unknown.fit(replace(task, cache=tmp_path))
    assert not list(tmp_path.rglob("*.webp"))


def test_what_it_needs_is_told(recipe, task):
    with pytest.raises(ValueError, match="need a backbone"):
        recipe.fit(replace(task, backbone=None))


def test_label_save_load_and_predict_also_by_its_onnx_file(labels_and_predicts):
    settings = {"architecture": "test_resnet", "size": 32, "schedule.epochs": 1}
    run = labels_and_predicts("ma_zsc", **{f"training.{k}": v for k, v in settings.items()})
    assert (run.out / "classifier" / "model.onnx").is_file()
    assert run.summary["onnx"]["model.onnx"]["max_difference"] < 1e-5


def test_labels_outlive_an_onnx_file_that_cannot_be_written(
    recipe, all_digits, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "onnx", None)
    run = jobs.label(
        all_digits[0],
        list(CLASS_NAMES),
        recipe=recipe,
        backbone="tiny",
        limit=20,
        out=tmp_path / "out",
        cache=tmp_path / "cache",
    )
    assert run.summary["counts"]["labelled"] == 20 and "onnx" not in run.summary
    (told,) = run.summary["repairs"]
    assert told.startswith("model.onnx could not be written") and "train" in told
    there = {p.name for p in (tmp_path / "out" / "classifier").iterdir()}
    assert there == {"README.md", "classifier.json", "classifier.safetensors"}
