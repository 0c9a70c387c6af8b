"""What a run may be told besides names: given labels, seen classes, further backbones; and how
training is found again."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nameonly import jobs
from nameonly.backbones.clip import ClipBackbone
from nameonly.label_space import with_seen
from nameonly.loop import Schedule
from nameonly.preparation import Setup, ensemble_logits, given_labels, training_folder
from nameonly.prompt_learning.multimodal_context import MultimodalContext
from nameonly.prompt_learning.text_context import TextContext
from nameonly.prompt_learning.visual_context import VisualContext
from nameonly.recipes.fpl import Fpl
from nameonly.recipes.up_adapter import UpAdapter
from nameonly.recipes.upl import Upl
from nameonly.recipes.zero_shot import ZeroShot
from nameonly.tiny.digits import CLASS_NAMES
from nameonly.types import LabelSpace


@pytest.fixture
def known(all_digits, digits, tmp_path):
    """A table of the true labels of twenty of the images."""
    with all_digits[1].open() as file:
        rows = {row["path"]: row["label"] for row in csv.DictReader(file)}
    names = sorted(path.name for path in digits.iterdir())[:20]
    table = tmp_path / "known.csv"
    table.write_text("path,label\n" + "".join(f"{name},{rows[name]}\n" for name in names))
    return table, {name: rows[name] for name in names}


def label(images, tmp_path, **options):
    options = {"recipe": "up_adapter", "backbone": "tiny", **options}
    return jobs.label(images, list(CLASS_NAMES), out=tmp_path / "out", overwrite=True, **options)


def test_given_labels_stand_beside_the_models_own(digits, known, tmp_path):
    run = label(digits, tmp_path, given=known[0])
    found = dict(
        zip(run.table["path"].to_pylist(), run.table["given_label"].to_pylist(), strict=True)
    )
    assert {k.rsplit("/", 1)[-1]: v for k, v in found.items() if v} == known[1]
    assert run.summary["counts"]["given"] == 20 and run.summary["given"] == str(known[0])
    card = (tmp_path / "out" / "classifier" / "README.md").read_text()
    assert "20 labels were given." in card and "No label was used" not in card
    page = (tmp_path / "out" / "report.html").read_text()
    assert "20 labels given, nothing measured" in page and "No labels were used" not in page
    same = label(digits, tmp_path, given=known[1])
    assert same.table["p_zero"].equals(run.table["p_zero"])
    without = label(digits, tmp_path)
    assert not without.table["p_zero"].equals(run.table["p_zero"])
    assert "given_label" not in without.table.column_names


def test_given_labels_are_found_by_image_not_by_row(digit_task):
    task, _ = digit_task
    wanted = {task.images.sources[5].rsplit("/", 1)[-1]: "seven", task.features.ids[9]: "TWO"}
    by_name = dict(list(wanted.items())[:1])
    got = given_labels(by_name, task.features, task.images, task.label_space)
    assert got[5] == 7 and (got >= 0).sum() == 1
    by_id = dict(list(wanted.items())[1:])
    got = given_labels(by_id, task.features, task.images, task.label_space)
    assert got[9] == 2 and (got >= 0).sum() == 1


def test_copies_with_two_labels_are_refused(digits, tmp_path):
    first, other = sorted(digits.iterdir())[:2]
    shutil.copy(first, digits / "copy.png")
    table = {first.name: "one", "copy.png": "two", other.name: "one"}
    with pytest.raises(ValueError, match=r"given labels: .*copy.* is 'two'|is 'one' and .*copy"):
        label(digits, tmp_path, given=table)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"given": {"x.png": "one"}}, "given labels: no image is found"),
        ({"given": {"digit-0003.png": "eleven"}}, "given labels: .*'eleven'|no image"),
        ({"given": {"digit-0003.png": "one"}, "recipe": "zero_shot"}, "learns from no labels"),
        ({"ensemble": ["tiny"], "recipe": "zero_shot"}, "makes no pseudo-labels"),
        ({"ensemble": ["tiny"], "recipe": "zlap"}, "label_propagation reads the cosines"),
    ],
)
def test_what_would_be_of_no_use_is_refused(digits, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        label(digits, tmp_path, **options)
    assert not (tmp_path / "out").exists()


def test_seen_classes_are_named_and_need_labels():
    space = LabelSpace(("cat", "grey dog", "emu"))
    assert with_seen(space, "Grey  dog,cat").seen == (True, True, False)
    assert with_seen(space, ["emu"]).seen == (False, False, True)
    for wrong in ("cow", "", "cat,cow"):
        with pytest.raises(ValueError, match="are no class names; there are: cat, grey dog, emu"):
            with_seen(space, wrong)
    with pytest.raises(ValueError, match="all classes are said to be seen"):
        with_seen(space, "cat,emu,grey dog")
    with pytest.raises(ValueError, match="pass the labels too"):
        Setup(ClipBackbone("tiny"), with_seen(space, "cat"), UpAdapter(), Path("cache"))


def test_seen_classes_from_a_file(tmp_path):
    (tmp_path / "seen.txt").write_text("cat\n\nemu\n")
    space = LabelSpace(("cat", "dog", "emu"))
    assert with_seen(space, str(tmp_path / "seen.txt")).seen == (True, False, True)


def test_an_ensemble_is_the_mean_of_probabilities(digit_task, tmp_path):
    task, _ = digit_task
    other = ClipBackbone("tiny", device="cpu", dtype="bfloat16")
    setup = Setup(task.backbone, task.label_space, UpAdapter(), tmp_path, ensemble=(other,))
    got = ensemble_logits(setup, task)
    alone = ensemble_logits(replace(setup, backbone=other, ensemble=()), task)
    torch.testing.assert_close(got.exp().sum(dim=1), torch.ones(len(got)))
    first = task.text.predict_logits(task.features).softmax(dim=1)
    assert torch.allclose(alone.exp(), first), "the first voter is the task's own"
    second = 2 * got.exp() - first
    assert (second > -1e-5).all() and not torch.allclose(second, first, atol=1e-4)
    assert (second - first).abs().max() < 0.2, "the same model, rounded"


def test_an_ensemble_is_declared(digits, tmp_path):
    run = label(digits, tmp_path, ensemble=[ClipBackbone("tiny", dtype="bfloat16")])
    (voter,) = run.summary["ensemble"]
    assert voter["model"] == "tiny" and voter["dtype"] == "bfloat16"


def quick_upl():
    schedule = Schedule(3, 32, 0.02, 1.0, optimiser="sgd")
    return Upl(prompt_learning=TextContext(n_prompts=2, schedule=schedule))


def test_training_that_was_stopped_goes_on_to_the_same_result(digits, tmp_path):
    cache = tmp_path / "cache"
    whole = label(digits, tmp_path, recipe=quick_upl(), cache=tmp_path / "other-cache")

    def stop(done, total):
        if total == 6 and done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        label(digits, tmp_path, recipe=quick_upl(), cache=cache, on_progress=stop)
    (folder,) = [p for p in (cache / "training").iterdir() if p.is_dir()]
    assert len(list(folder.iterdir())) == 2, "one prompt done, the other under way"
    heard = []
    again = label(
        digits,
        tmp_path,
        recipe=quick_upl(),
        cache=cache,
        on_progress=lambda d, t: heard.append((d, t)),
    )
    assert [d for d, t in heard if t == 6] == [1, 2], "only what was missing is trained"
    assert again.table.equals(whole.table)
    assert not any(p.is_dir() for p in (cache / "training").iterdir()), "nothing stays behind"


def test_another_training_has_another_folder(digit_task, tmp_path):
    task, _ = digit_task
    setup = Setup(task.backbone, task.label_space, UpAdapter(), tmp_path)
    folders = set()
    for changed in (
        task,
        replace(task, given=torch.zeros(160, dtype=torch.long)),
        replace(task, start=torch.zeros(160, 10)),
        replace(task, features=task.features.subset(torch.arange(100)), images=None),
        replace(task, text=replace(task.text, weights=-task.text.weights)),
    ):
        with training_folder(setup, changed) as folder:
            folders.add(folder)
    with training_folder(replace(setup, recipe=ZeroShot()), task) as folder:
        folders.add(folder)
    assert len(folders) == 6


def test_two_trainings_at_once_do_not_share_a_folder(digit_task, tmp_path):
    task, _ = digit_task
    setup = Setup(task.backbone, task.label_space, UpAdapter(), tmp_path)
    with training_folder(setup, task) as first, training_folder(setup, task) as second:
        assert first is not None and second is None


def test_own_features_take_given_labels_by_id(feature_file, tmp_path, toy):
    path, _ = feature_file
    run = jobs.label(path, recipe="up_adapter", given={"07": "dog", "11": "ant"})
    given = run.table["given_label"].to_pylist()
    assert given[7] == "dog" and given[11] == "ant" and given.count(None) == 58


def test_own_features_have_no_tower_to_learn_prompts_through(feature_file):
    with pytest.raises(ValueError, match="own features come without one"):
        jobs.label(feature_file[0], recipe=quick_upl())
    with pytest.raises(ValueError, match="needs images"):
        jobs.label(feature_file[0], recipe="up_adapter", ensemble=["tiny"])


def test_predictions_of_the_saved_classifier_are_the_tables(digits, tmp_path):
    run = label(digits, tmp_path, recipe=quick_upl())
    again = jobs.predict(tmp_path / "out", digits)
    for name in CLASS_NAMES:
        a, b = (np.array(t[f"p_{name}"]) for t in (run.table, again.table))
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("learner", [VisualContext, MultimodalContext])
def test_tokens_in_the_image_tower_travel_with_the_classifier(digits, tmp_path, learner):
    schedule = Schedule(2, 32, 0.05, 1.0, optimiser="sgd")
    recipe = Fpl(prompt_learning=learner(schedule=schedule))
    run = label(digits, tmp_path, recipe=recipe)
    assert "+tokens-" in run.summary["backbone"]["name"]
    assert run.summary["backbone"]["device"] != "none" and not run.summary["transductive"]
    again = jobs.predict(tmp_path / "out", digits)
    plain = label(digits, tmp_path, recipe="zero_shot")
    for name in CLASS_NAMES:
        a, b, c = (np.array(t[f"p_{name}"]) for t in (run.table, again.table, plain.table))
        np.testing.assert_allclose(a, b, atol=1e-4)
        assert not np.allclose(a, c, atol=1e-3)


def test_a_transductive_run_says_so(digits, tmp_path):
    run = label(digits, tmp_path, recipe="transclip")
    assert run.summary["transductive"]
    again = jobs.predict(tmp_path / "out", digits)
    assert not np.allclose(np.array(run.table["p_one"]), np.array(again.table["p_one"]), atol=1e-4)
