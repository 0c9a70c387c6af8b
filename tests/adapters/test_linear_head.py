import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize, one_hot

from nameonly.adapters.linear_head import LinearHead, noisy_texts
from nameonly.backbones.precomputed import PrecomputedBackbone
from nameonly.classifier import Classifier, load
from nameonly.decisions.argmax import Argmax
from nameonly.pseudo_labels.top_k_per_class import TopKPerClass
from nameonly.types import Features, LabelSpace, PseudoLabels, TextClassifier

# short and steep, where the length of training is not what is tested
QUICK = {"text_steps": 100, "learning_rate": 0.005, "epochs": 40}


def labels_of(features, text, space, given=None, k=60):
    return TopKPerClass(k).label(features, text.predict_logits(features), space, given)


def test_noise_has_its_length_and_is_a_function_of_the_rows(toy):
    weights = toy[1].weights
    rows = torch.arange(4000)
    noise = noisy_texts(weights, rows, 2.26, 0) - weights[rows % 4]
    assert noise.square().sum(dim=1).mean().sqrt().item() == pytest.approx(2.26, rel=0.02)
    a, b = noisy_texts(weights, rows[8:12], 1.0, 0), noisy_texts(weights, rows[8:12], 1.0, 0)
    assert torch.equal(a, b) and not torch.equal(a, noisy_texts(weights, rows[8:12], 1.0, 1))
    drawn = [noisy_texts(weights, rows[i : i + 4], 1.0, 0) - weights for i in (0, 4)]
    assert not torch.allclose(*drawn)
    torch.testing.assert_close(noisy_texts(weights, rows[5:7], 0.0, 0), weights[[1, 2]])


def test_the_text_stage_learns_texts_with_noise(toy):
    features, text, space, _ = toy
    labels = labels_of(features, text, space)
    fresh = torch.arange(10**6, 10**6 + 4000)
    noisy = noisy_texts(text.weights, fresh, 2.26, 0)

    def loss(**settings):
        head = LinearHead(**(settings | {"epochs": 0})).fit(features, text, labels).weights_
        return cross_entropy(noisy @ head.T, fresh % 4, label_smoothing=0.1).item()

    trained = loss()
    assert trained < loss(text_steps=20) < math.log(4)
    # the zero-shot weights do not know of the noise, nor does a head that never saw any
    assert trained < loss(text_steps=0)
    steep = {"text_steps": 200, "learning_rate": 0.03}
    assert loss(**steep) < loss(**steep, noise=0.0)


def test_without_the_text_stage_it_starts_at_zero_shot(toy):
    features, text, space, _ = toy
    head = LinearHead(text_steps=0, epochs=0).fit(features, text, labels_of(features, text, space))
    torch.testing.assert_close(head.predict_logits(features), text.predict_logits(features))


def gap():
    """Images of two classes that lie apart from their texts: both look like the first text."""
    g = torch.Generator().manual_seed(0)
    y = torch.arange(200) % 2
    centres = torch.tensor([[1.0, 0.3, 0.0], [1.0, -0.3, 0.0]])
    values = normalize(centres[y] + 0.12 * torch.randn(200, 3, generator=g), dim=1)
    texts = normalize(torch.tensor([[0.9, 0.5, 0.1], [0.8, -0.5, 0.3]]), dim=1)
    features = Features(values, tuple(f"{i:03d}" for i in range(200)), "toy")
    return features, TextClassifier(texts, 10.0, ("x", "y")), y


def test_self_training_fits_the_head_to_the_images_with_its_own_labels():
    features, text, _ = gap()
    truth = one_hot(torch.zeros(200).long(), 2).bool()
    confidence = torch.full((200,), 0.9)
    labels = PseudoLabels(features.ids, torch.full((200, 2), 0.5), truth, confidence)
    texts_only = LinearHead(**(QUICK | {"epochs": 0})).fit(features, text, labels)
    both = LinearHead(**QUICK).fit(features, text, labels)
    said = texts_only.predict_logits(features).argmax(dim=1)
    assert 20 < said.sum() < 180  # the labels that pseudo-labels bring (all zero) are not asked

    def loss(head):
        logits = head.predict_logits(features)
        return cross_entropy(logits, said, label_smoothing=0.1).item()

    assert loss(both) < loss(texts_only) - 0.05
    assert (both.predict_logits(features).argmax(dim=1) == said).float().mean() > 0.9


def test_the_text_stage_decides_what_self_training_learns():
    features, text, _ = gap()
    labels = TopKPerClass(200).label(
        features, text.predict_logits(features), LabelSpace(text.class_names)
    )
    trained = LinearHead(**QUICK).fit(features, text, labels)
    without = LinearHead(**(QUICK | {"text_steps": 0})).fit(features, text, labels)
    a, b = (h.predict_logits(features).argmax(dim=1) for h in (trained, without))
    assert (a != b).any()


def test_labels_come_from_the_clean_features_and_learning_from_the_views(toy):
    features, text, space, _ = toy
    # every view shows another class than its image
    others = features.values.roll(1, dims=0)
    swapped = replace(features, views=torch.stack([others, others]))
    labels = labels_of(features, text, space)
    head = LinearHead(**QUICK).fit(swapped, text, labels)
    said = LinearHead(**(QUICK | {"epochs": 0})).fit(features, text, labels)
    said = said.predict_logits(features)
    seen = Features(others, features.ids, "toy")
    assert (head.predict_logits(seen).argmax(dim=1) == said.argmax(dim=1)).float().mean() > 0.95


def test_every_view_takes_part(toy):
    features, text, space, _ = toy
    labels = labels_of(features, text, space)
    views = torch.stack([features.values, features.values.roll(1, dims=0)])
    one = LinearHead(**QUICK).fit(replace(features, views=views[:1]), text, labels).weights_
    two = LinearHead(**QUICK).fit(replace(features, views=views), text, labels).weights_
    none = LinearHead(**QUICK).fit(features, text, labels).weights_
    torch.testing.assert_close(one, none)
    assert not torch.allclose(one, two, atol=1e-3)


def test_views_that_blur_a_direction_take_it_out_of_the_head(toy):
    features, text, space, _ = toy
    labels = labels_of(features, text, space)
    axis = LinearHead(epochs=0).fit(features, text, labels).weights_.std(dim=0).argmax()
    g = torch.Generator().manual_seed(0)
    views = features.values.repeat(6, 1, 1)
    views[:, :, axis] = torch.randn(6, 60, generator=g)
    clean = LinearHead(**QUICK).fit(features, text, labels).weights_
    robust = LinearHead(**QUICK).fit(replace(features, views=views), text, labels).weights_
    assert robust[:, axis].std() < 0.6 * clean[:, axis].std()


def test_given_labels_are_kept(toy):
    features, text, space, y = toy
    wrong = (y + 1) % 4
    labels = labels_of(features, text, space, given=wrong)
    head = LinearHead(text_steps=40, learning_rate=0.05).fit(features, text, labels)
    assert torch.equal(head.predict_logits(features).argmax(dim=1), wrong)


def test_only_selected_images_are_learnt_from(toy):
    features, text, space, _ = toy
    labels = labels_of(features, text, space, k=3)
    rows = labels.selected.nonzero()[:, 0]
    few = features.subset(rows)
    kept = PseudoLabels(
        few.ids, labels.probs[rows], labels.candidates[rows], labels.confidence[rows]
    )
    a = LinearHead(**QUICK, batch_size=5).fit(features, text, labels).weights_
    b = LinearHead(**QUICK, batch_size=5).fit(few, text, kept).weights_
    torch.testing.assert_close(a, b, atol=1e-7, rtol=0)
    c = (
        LinearHead(**QUICK, batch_size=5)
        .fit(features, text, labels_of(features, text, space))
        .weights_
    )
    assert not torch.allclose(a, c)


@pytest.mark.parametrize(
    "settings", [{"text_steps": 0, "epochs": 60}, {"text_steps": 1000, "noise": 0.1, "epochs": 0}]
)
def test_smoothing_keeps_the_logits_small_in_both_stages(toy, settings):
    features, text, space, _ = toy
    labels = labels_of(features, text, space)
    settings = {"learning_rate": 0.1} | settings
    smooth, sharp = (
        LinearHead(smoothing=s, **settings).fit(features, text, labels).predict_logits(features)
        for s in (0.3, 0.0)
    )
    assert smooth.softmax(dim=1).max(dim=1).values.mean() < 0.85
    assert sharp.softmax(dim=1).max(dim=1).values.mean() > 0.9


def test_names_decide_the_noise_and_no_order_does(toy):
    features, text, space, _ = toy
    perm = torch.tensor([2, 0, 3, 1])
    names = tuple(text.class_names[i] for i in perm.tolist())
    other = TextClassifier(text.weights[perm], text.logit_scale, names)
    labels = labels_of(features, text, space)
    turned = replace(labels, probs=labels.probs[:, perm], candidates=labels.candidates[:, perm])
    a, b = (
        LinearHead(**(QUICK | {"epochs": 0})).fit(features, *pair).weights_
        for pair in ((text, labels), (other, turned))
    )
    assert torch.equal(a[perm], b)


def test_saved_and_loaded_it_says_the_same(toy, feature_file, tmp_path):
    _, text, space, _ = toy
    backbone = PrecomputedBackbone(str(feature_file[0]))
    features = backbone.features
    head = LinearHead(**QUICK).fit(features, text, labels_of(features, text, space))
    Classifier(backbone, head, Argmax(), space).save(tmp_path / "c")
    scorer = load(tmp_path / "c").scorer
    assert scorer == head
    assert torch.equal(scorer.predict_logits(features), head.predict_logits(features))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("text_steps", -1),
        ("noise", -0.1),
        ("epochs", -1),
        ("learning_rate", float("nan")),
        ("smoothing", 1.0),
        ("smoothing", -0.1),
        ("batch_size", 0),
    ],
)
def test_settings_that_make_no_sense_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        LinearHead(**{field: value})
