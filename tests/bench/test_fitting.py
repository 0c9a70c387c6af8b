from dataclasses import dataclass, field, replace

import pytest
import torch

from nameonly.backbones._prompted import PromptedBackbone
from nameonly.backbones.clip import ClipBackbone
from nameonly.bench.fitting import Queries, answer
from nameonly.datasets.reading import open_dataset
from nameonly.decisions.abstain import Abstain
from nameonly.decisions.argmax import Argmax
from nameonly.images import load
from nameonly.prompts.templates import Templates
from nameonly.recipes.up_adapter import UpAdapter
from nameonly.recipes.zero_shot import ZeroShot
from nameonly.sources.locations import FileLocation
from nameonly.task import Adapted, Task
from nameonly.types import Features, ImageSet, TextClassifier


@dataclass(frozen=True)
class Fixed:
    """A recipe that hands back what it was made with."""

    adapted: Adapted
    prompts: Templates = field(default_factory=Templates)
    decisions: Argmax = field(default_factory=Argmax)

    def fit(self, task: Task) -> Adapted:
        return self.adapted


def images_of(features):
    names = features.ids
    return ImageSet(names, names, tuple(FileLocation(name) for name in names))


def queries_of(features, columns=(0, 1, 2, 3)):
    return Queries(features, images_of(features), torch.tensor(columns))


def halves_of(features):
    rows = torch.arange(len(features))
    return features.subset(rows[:30]), features.subset(rows[30:])


def test_answers_are_the_scorers(toy):
    features, text, space, _ = toy
    pool, test = halves_of(features)
    got = answer(UpAdapter(), Task(pool, text, space), queries_of(test))
    fitted = UpAdapter().fit(Task(pool, text, space))
    assert torch.equal(got.labels, fitted.scorer.predict_logits(test).argmax(dim=1))
    assert torch.equal(got.pool_labels, fitted.scorer.predict_logits(pool).argmax(dim=1))
    assert torch.equal(got.zero_shot, text.predict_logits(test).argmax(dim=1))
    assert torch.equal(got.pool_zero_shot, text.predict_logits(pool).argmax(dim=1))
    assert torch.equal(got.pseudo_labels.candidates, fitted.pseudo_labels.candidates)
    assert got.seconds > 0 and got.peak_memory > 10


def test_transductive_scores_are_the_pools_answer(toy):
    features, text, space, _ = toy  # the classes are 0, 1, 2, 3, 0, ...: the scores say otherwise
    pool, test = halves_of(features)
    logits = torch.eye(4)[(torch.arange(30) + 1) % 4]
    got = answer(Fixed(Adapted(text, logits=logits)), Task(pool, text, space), queries_of(test))
    assert got.pool_labels.tolist() == [(i + 1) % 4 for i in range(30)]
    assert torch.equal(got.labels, got.zero_shot)


def test_without_queries_the_pool_is_scored(toy):
    features, text, space, _ = toy
    logits = torch.eye(4)[(torch.arange(60) + 1) % 4]
    got = answer(Fixed(Adapted(text, logits=logits)), Task(features, text, space), None)
    assert got.labels.tolist() == [(i + 1) % 4 for i in range(60)]
    assert torch.equal(got.zero_shot, text.predict_logits(features).argmax(dim=1))


def test_only_some_columns_may_be_named(toy):
    features, text, space, _ = toy
    pool, test = halves_of(features)
    got = answer(ZeroShot(), Task(pool, text, space), queries_of(test, (3, 1)))
    logits = text.predict_logits(test)
    want = [3 if row[3] > row[1] else 1 for row in logits.tolist()]
    assert got.labels.tolist() == got.zero_shot.tolist() == want


def test_the_recipes_decision_decides(toy):
    features, text, space, _ = toy
    pool, test = halves_of(features)
    recipe = replace(ZeroShot(), decisions=Abstain(threshold=0.9995))
    got = answer(recipe, Task(pool, text, space), queries_of(test, (3, 1, 0, 2)))
    probs = text.predict_logits(test).softmax(dim=1)
    assert torch.equal(got.labels < 0, probs.max(dim=1).values < 0.9995) and (got.labels < 0).any()
    kept = got.labels >= 0
    assert torch.equal(got.labels[kept], probs.argmax(dim=1)[kept])


def test_a_changed_backbone_encodes_the_queries_anew(toy):
    tiny = ClipBackbone("tiny", device="cpu", dtype="float32")
    shape = tiny.prompt_shape
    tokens = torch.randn(1, 2, shape.image_width, generator=torch.Generator().manual_seed(0))
    prompted = PromptedBackbone(tiny, tokens)
    digits = open_dataset("digits")
    rows = [5, 3, 3, 40]  # out of order of id, one of them twice
    images = ImageSet(
        ("a", "b", "c", "d"),
        tuple(digits.train.images.ids[row] for row in rows),
        tuple(digits.train.images.locations[row] for row in rows),
    )
    weights = torch.nn.functional.normalize(torch.randn(10, tiny.dim), dim=1)
    text = TextClassifier(weights, 10.0, digits.label_space.class_names)
    features = Features(torch.zeros(4, tiny.dim), images.ids, "tiny")
    recipe = Fixed(Adapted(text, logits=torch.zeros(4, 10), backbone=prompted))
    task = Task(features, text, digits.label_space)
    got = answer(recipe, task, Queries(features, images, torch.arange(10)))
    pixels = torch.stack([tiny.preprocess(load(images, row)) for row in range(4)])
    want = text.predict_logits(Features(prompted.encode_pixels(pixels), images.ids, "x"))
    assert torch.equal(got.labels, want.argmax(dim=1))
    assert got.labels[1] == got.labels[2]


@pytest.mark.parametrize("where", ["pool", "queries"])
def test_scores_that_are_not_finite_are_refused(toy, where):
    features, text, space, _ = toy
    logits = torch.full((60, 4), torch.nan) if where == "pool" else torch.zeros(60, 4)
    broken = TextClassifier(text.weights * torch.nan, 1.0, text.class_names)
    recipe = Fixed(Adapted(broken, logits=logits))
    with pytest.raises(ValueError, match="not finite"):
        answer(recipe, Task(features, text, space), queries_of(features))
