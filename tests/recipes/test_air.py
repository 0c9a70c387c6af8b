"""On a random generator: what the synthetic images show is nothing, how they are used is all."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusion_models import generator

from nameonly import generating
from nameonly.classifier import Classifier, load, scorer_name
from nameonly.decisions.argmax import Argmax
from nameonly.generating import adapted_to_task, enriched, fused, made_support
from nameonly.images import load as load_image
from nameonly.learning import with_support
from nameonly.loop import Schedule
from nameonly.prompt_learning.visual_context import VisualContext
from nameonly.recipes.air import Air
from nameonly.synthesis._adaptation import lora_id
from nameonly.synthesis.domain_lora import DomainLora
from nameonly.synthesis.support_set import SupportSet
from nameonly.task import Adapted


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("air-cache")


@pytest.fixture
def task(digit_task, cache):
    return replace(digit_task[0], cache=cache)


@pytest.fixture
def recipe(quick, model):
    made = quick(Air(), epochs=2)
    return replace(
        made,
        domain_lora=DomainLora(2, schedule=Schedule(1, 16, 1e-2), dtype="float32", flip=False),
        text_to_image=generator(model, steps=2, batch_size=16),
        support_set=SupportSet(images_per_class=3),
    )


def weights(recipe, task):
    return recipe.fit(task).scorer.weights


def enrich(recipe, task):
    made = adapted_to_task(task, recipe.text_to_image, recipe.domain_lora, recipe.captions)
    support = made_support(task, recipe.prompt_tricks, made, recipe.support_set)
    return made, enriched(task, support, recipe.adapters)


def test_it_has_the_papers_settings():
    recipe = Air()
    assert recipe.support_set == SupportSet(120, 1.0, 0.5, alone=False)
    assert (recipe.domain_lora.rank, recipe.domain_lora.schedule.learning_rate) == (16, 1e-4)
    assert recipe.adapters.images_per_class == 16 == recipe.captions.images_per_class
    assert recipe.prompt_tricks.tricks == ("base",)
    assert recipe.prompt_tricks.template == recipe.domain_lora.template


def test_both_classifiers_are_mixed_before_images_are_labelled(recipe, task):
    made, richer = enrich(recipe, task)
    p = task.text.predict_logits(task.features).softmax(dim=1)
    want = (p + richer.auxiliary) / 2
    torch.testing.assert_close(richer.start_logits().softmax(dim=1), want)
    torch.testing.assert_close(richer.mixed(p.log()).exp(), want)
    assert lora_id(Path(made.lora)) and richer.support.features.backbone == task.features.backbone
    assert richer.support.labels.bincount().tolist() == [3] * 10


def test_synthetic_images_stand_behind_the_real_ones(recipe, task):
    _, richer = enrich(recipe, task)
    labels = recipe.pseudo_labels.label(
        task.features, richer.start_logits(), task.label_space, None
    )
    features, images, joined = with_support(richer, labels)
    assert len(features) == len(images) == len(joined.ids) == len(task.features) + 30
    assert images.ids == features.ids == joined.ids
    assert with_support(task, labels) == (task.features, task.images, labels)


@pytest.mark.parametrize(
    "without",
    [
        {"auxiliary_weight": 0.0},
        {"loss_weight": 0.0},
        {"alone": True},
        {"images_per_class": 2},
    ],
)
def test_without_any_of_its_mechanisms_the_result_is_another(recipe, task, without):
    changed = replace(recipe, support_set=replace(recipe.support_set, **without))
    assert not torch.allclose(weights(recipe, task), weights(changed, task), atol=1e-5)


def test_without_adaptation_the_result_is_another(recipe, task):
    plain = replace(recipe, domain_lora=replace(recipe.domain_lora, schedule=Schedule(0, 16, 1e-2)))
    assert not torch.allclose(weights(recipe, task), weights(plain, task), atol=1e-5)


def test_what_was_made_is_found_again_and_more_leaves_it(recipe, task, tmp_path):
    task = replace(task, cache=tmp_path)
    first = weights(recipe, task)
    made = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.webp")}
    assert len(made) == 30
    assert torch.equal(weights(recipe, task), first)
    more = replace(recipe, support_set=replace(recipe.support_set, images_per_class=5))
    weights(more, task)
    after = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.webp")}
    assert len(after) == 50 and made.items() <= after.items()


def test_the_time_is_foretold_until_all_is_there(recipe, task, tmp_path, monkeypatch):
    monkeypatch.setattr(generating, "WORTH_TRYING", 0)
    notes = []
    task = replace(task, cache=tmp_path, on_note=notes.append)
    recipe.fit(task)
    assert "training the LoRA" in notes[0] and "of drawing" in notes[0]
    assert "training the LoRA" not in notes[1] and "of drawing" in notes[1]
    recipe.fit(task)
    assert len(notes) == 2


def test_given_labels_caption_the_generator_and_are_kept(recipe, task):
    given = torch.full((len(task.features),), -1)
    given[:40] = 7
    told = replace(task, given=given)
    one, other = (
        adapted_to_task(t, recipe.text_to_image, recipe.domain_lora, recipe.captions)
        for t in (task, told)
    )
    assert one.lora != other.lora
    labels = recipe.fit(told).pseudo_labels
    assert (labels.labels[:40] == 7).all() and len(labels.ids) == len(task.features)


def test_tokens_in_the_image_tower_learn_from_both_kinds(recipe, task):
    few = task.images.subset(range(20))
    small = replace(task, features=task.features.subset(torch.arange(20)), images=few)
    learner = VisualContext(n_context=2, targets="candidates", schedule=Schedule(1, 16, 0.1))
    visual = replace(recipe, prompt_learning=learner)
    adapted = visual.fit(small)
    assert adapted.logits.shape == (20, 10) and adapted.backbone.name != task.backbone.name
    unheard = replace(visual, support_set=replace(visual.support_set, loss_weight=0.0))
    assert not torch.equal(adapted.logits, unheard.fit(small).logits)


def test_both_classifiers_may_score_new_images_too(recipe, task, tmp_path):
    settings = replace(recipe.support_set, at_test=True, auxiliary_weight=0.5)
    plain = replace(recipe, support_set=replace(settings, at_test=False)).fit(task)
    adapted = replace(recipe, support_set=settings).fit(task)
    _, richer = enrich(replace(recipe, support_set=settings), task)
    p = plain.scorer.predict_logits(task.features).softmax(dim=1)
    want = (p + 0.5 * richer.auxiliary) / 1.5
    torch.testing.assert_close(adapted.logits.softmax(dim=1), want)
    new = task.features.subset(torch.arange(7))
    torch.testing.assert_close(adapted.scorer.predict_logits(new).exp(), want[:7])
    made = Classifier(task.backbone, adapted.scorer, Argmax(), task.label_space)
    made.save(tmp_path / "saved")
    loaded = load(tmp_path / "saved")
    assert torch.equal(loaded.scorer.predict_logits(new), adapted.scorer.predict_logits(new))
    assert scorer_name(loaded.scorer) == "text and synthetic_prototypes"


def test_with_a_prompted_image_tower_both_read_its_features(recipe, task, tmp_path):
    rows = torch.arange(20)
    few = task.images.subset(rows.tolist())
    small = replace(task, features=task.features.subset(rows), images=few)
    learner = VisualContext(n_context=2, targets="candidates", schedule=Schedule(1, 16, 0.1))
    settings = replace(recipe.support_set, at_test=True)
    adapted = replace(recipe, prompt_learning=learner, support_set=settings).fit(small)
    pictures = [load_image(few, row) for row in range(20)]
    made = Classifier(adapted.backbone, adapted.scorer, Argmax(), task.label_space)
    made.save(tmp_path / "saved")
    probs = load(tmp_path / "saved", device="cpu", dtype="float32").predict_proba(pictures)
    torch.testing.assert_close(probs, adapted.logits.softmax(dim=1), atol=1e-4, rtol=1e-3)


def test_a_lora_is_not_silently_replaced(recipe, task):
    has = replace(recipe, text_to_image=replace(recipe.text_to_image, lora="some/lora"))
    with pytest.raises(ValueError, match="leave one of the two out"):
        has.fit(task)


def test_what_it_needs_is_told(recipe, task):
    with pytest.raises(ValueError, match="no synthetic images to mix"):
        fused(Adapted(task.text), task, recipe.adapters)
    with pytest.raises(ValueError, match="adapted to images, and there are features only"):
        recipe.fit(replace(task, images=None))
    with pytest.raises(ValueError, match="kept in a cache folder"):
        recipe.fit(replace(task, cache=None))
    unadapted = replace(recipe, domain_lora=DomainLora(schedule=Schedule(0, 1, 1e-2)))
    with pytest.raises(ValueError, match="need a backbone"):
        unadapted.fit(replace(task, images=None, backbone=None))


def test_the_command(digits, model, tmp_path, nameonly):
    settings = {
        "text_to_image.model": model,
        "text_to_image.steps": 2,
        "text_to_image.dtype": "float32",
        "support_set.images_per_class": 2,
        "domain_lora.rank": 2,
        "domain_lora.schedule.epochs": 1,
        "prompt_learning.schedule.epochs": 2,
        "relabelling.rounds": 2,
    }
    pairs = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    names = "zero,one,two,three,four,five,six,seven,eight,nine"
    command = ["label", digits, "-c", names, "--backbone", "tiny", "--recipe", "air", *pairs]
    out = tmp_path / "out"
    ended = nameonly(*command, "--out", out)
    assert ended.returncode == 0, ended.stderr
    told = [*command, "--dry-run", "--cache", tmp_path / "other"]
    assert "20 synthetic images would be drawn: about" in nameonly(*told).stdout
    told += ["--set", "text_to_image.model=nobody/nothing"]
    assert "nobody/nothing is not on this machine" in nameonly(*told).stdout
    assert (out / "labels.parquet").exists() and (out / "classifier").is_dir()
