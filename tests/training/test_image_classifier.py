import os
import tempfile
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from nameonly import methods
from nameonly.backbones._network import NetworkBackbone, build_network, pretrained_weights
from nameonly.classifier import Classifier, load
from nameonly.decisions.argmax import Argmax
from nameonly.images import open_images
from nameonly.loop import Schedule, with_short_warmup
from nameonly.ops.labelling import hard_candidates
from nameonly.ops.room import reserve
from nameonly.training import _pixels
from nameonly.training._pixels import cut, random_crops, store_pixels
from nameonly.training._targets import image_weights, mix, training_targets
from nameonly.training.image_classifier import MODERN, ImageClassifier
from nameonly.types import ImageSet, LabelSpace, PseudoLabels

NAMES = ("red", "green", "blue")
# of each family, the smallest that 32 pixels are enough for
FAMILIES = {
    "resnet10t": {},
    "mobilenetv3_small_050": {},
    "test_vit": {"patch_size": 8},
    "test_convnext": {},
    "test_efficientnet": {},
}
QUICK = ImageClassifier(
    "test_resnet", size=32, schedule=Schedule(6, 8, 3e-3), dtype="float32", device="cpu", flip=False
)


def colours(folder, n=24, seed=0):
    """Write noisy images that are mostly of one colour, and return them with their labels."""
    generator = torch.Generator().manual_seed(seed)
    folder.mkdir(exist_ok=True)
    for i in range(n):
        pixels = torch.randint(60, (32, 40, 3), generator=generator, dtype=torch.uint8)
        pixels[..., i % 3] += 150
        Image.fromarray(pixels.numpy()).save(folder / f"{i:02d}.png")
    images, _ = open_images(folder)
    return images, labelled(images.ids, torch.tensor([int(s[-6:-4]) % 3 for s in images.sources]))


def labelled(ids, labels, c=3):
    candidates = hard_candidates(labels, c)
    probs = candidates.float().clamp(min=0.1)
    return PseudoLabels(
        ids, probs / probs.sum(dim=1, keepdim=True), candidates, torch.ones(len(ids))
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return colours(tmp_path_factory.mktemp("train") / "images")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    images, labels = colours(tmp_path_factory.mktemp("test") / "images", 12, seed=1)
    found = [Image.open(location.path).convert("RGB") for location in images.locations]
    return found, labels.labels


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_it_has_the_papers_settings():
    made = ImageClassifier()
    assert made.schedule == Schedule(50, 64, 1e-4, weight_decay=0.9)
    assert (made.operations, made.mixup, made.smoothing, made.average) == (0, 0.0, 0.0, 0.0)
    modern = methods.reconfigure(made, MODERN)
    assert modern.schedule.spare_vectors and modern.mixup and modern.average


@pytest.mark.parametrize("architecture", FAMILIES)
def test_five_families_learn_what_is_there(data, pictures, architecture):
    images, labels = data
    wanted = replace(
        QUICK,
        architecture=architecture,
        options=FAMILIES[architecture],
        schedule=Schedule(12, 8, 3e-3),
    )
    made = wanted.fit(images, labels, NAMES)
    logits = made.backbone_.encode_images(pictures[0])
    assert logits.shape == (12, 3) and made.losses_[-1] < 0.9 * made.losses_[0]
    # the running means of these two need more steps than that
    if architecture not in ("test_efficientnet", "mobilenetv3_small_050"):
        assert (logits.argmax(dim=1) == pictures[1]).float().mean() > 0.8


def test_the_modern_recipe_learns_too(data, pictures):
    images, labels = data
    modern = methods.reconfigure(QUICK, MODERN | {"schedule.epochs": 30, "softness": 0.0})
    made = modern.fit(images, labels, NAMES)
    right = made.backbone_.encode_images(pictures[0]).argmax(dim=1) == pictures[1]
    assert right.float().mean() > 0.8


def test_the_order_of_images_changes_nothing_and_the_seed_does(data):
    images, labels = data
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(3))
    first = replace(QUICK).fit(images, labels, NAMES).backbone_.state
    shuffled = replace(QUICK).fit(images.subset(order.tolist()), labels.subset(order), NAMES)
    assert same(first, shuffled.backbone_.state)
    other = replace(QUICK, seed=1).fit(images, labels, NAMES).backbone_.state
    assert not same(first, other)
    untrained = replace(QUICK, schedule=Schedule(0, 8, 3e-3))
    begun = [replace(untrained, seed=seed).fit(images, labels, NAMES) for seed in (0, 1)]
    assert not same(begun[0].backbone_.state, begun[1].backbone_.state)


class StoppedError(Exception):
    pass


def test_a_stopped_training_ends_as_if_it_had_not_been(data, tmp_path):
    images, labels = data
    modern = methods.reconfigure(QUICK, MODERN | {"schedule.epochs": 4, "architecture": "test_vit"})
    modern = replace(modern, options={"patch_size": 8, "drop_path_rate": 0.2})
    for trained in (QUICK, modern):
        path = tmp_path / f"{trained.architecture}.safetensors"
        whole = replace(trained).fit(images, labels, NAMES)

        def stop(epoch, loss):
            if epoch == 2:
                raise StoppedError

        with pytest.raises(StoppedError):
            replace(trained).fit(images, labels, NAMES, checkpoint=path, on_epoch=stop)
        resumed = replace(trained).fit(images, labels, NAMES, checkpoint=path)
        assert same(whole.backbone_.state, resumed.backbone_.state)
        assert resumed.losses_ == whole.losses_


# a training, and what differs in another that must not end the same
HEEDED = {
    "architecture": ({}, {"architecture": "test_efficientnet"}),
    "options": ({}, {"options": {"drop_rate": 0.5}}),
    # takes no images of another size than it was made for
    "size": (
        {"architecture": "test_vit", "options": {"patch_size": 8, "dynamic_img_size": False}},
        {"size": 40},
    ),
    "schedule": ({}, {"schedule": Schedule(1, 8, 0.02)}),
    "operations": ({}, {"operations": 2}),
    "magnitude": ({"operations": 2}, {"magnitude": 0.9}),
    "least_area": ({}, {"least_area": 0.9}),
    "flip": ({}, {"flip": True}),
    "mixup": ({}, {"mixup": 0.4}),
    "smoothing": ({}, {"smoothing": 0.1}),
    "softness": ({}, {"softness": 0.5}),
    "average": ({}, {"average": 0.999}),
    "balanced": ({}, {"balanced": False}),
    "dtype": ({}, {"dtype": "bfloat16"}),
    "seed": ({}, {"seed": 1}),
}
# AdamW would make much of the last bit of a gradient
ONCE = replace(QUICK, schedule=Schedule(1, 8, 0.02, optimiser="sgd"))


def uneven(data):
    """Return five images of the first class and two of each other, under their labels."""
    images, labels = data
    order = labels.labels.argsort(stable=True)
    rows = order[[0, 1, 2, 3, 4, 8, 9, 16, 17]]
    return images.subset(rows.tolist()), labels.subset(rows)


def state_of(trainer, images, labels):
    return replace(trainer).fit(images, labels, NAMES).backbone_.state


@pytest.mark.parametrize("name", HEEDED)
def test_every_setting_is_heeded(data, name):
    images, labels = uneven(data)
    first = replace(ONCE, **HEEDED[name][0])
    assert name in HEEDED[name][1]
    assert not same(
        state_of(first, images, labels),
        state_of(replace(first, **HEEDED[name][1]), images, labels),
    )


def test_no_setting_is_left_out_of_those_tested():
    names = {field.name for field in fields(ImageClassifier) if field.init}
    # pretrained has a test of its own, and there may be no second device
    assert names - {"pretrained", "device"} == set(HEEDED)


def assert_close(a, b):
    assert a.keys() == b.keys()
    for key, value in a.items():
        torch.testing.assert_close(value, b[key], rtol=1e-4, atol=1e-5)


def test_the_average_of_one_step_is_a_tenth_of_where_it_began(data):
    step = replace(ONCE, schedule=Schedule(1, 24, 3e-3))
    before = state_of(replace(step, schedule=Schedule(0, 24, 3e-3)), *data)
    after, averaged = state_of(step, *data), state_of(replace(step, average=0.999), *data)
    counted = {key for key, value in after.items() if not value.is_floating_point()}
    assert all(averaged[key] == 1 for key in counted)
    means = {key: before[key].lerp(after[key], 0.9) for key in after.keys() - counted}
    assert_close({key: averaged[key] for key in means}, means)


def test_wholly_soft_targets_are_the_probabilities(data):
    images, labels = uneven(data)
    open_to_all = replace(labels, candidates=torch.ones_like(labels.candidates))
    plain = replace(ONCE, balanced=False)
    wanted = state_of(plain, images, open_to_all)
    assert_close(state_of(replace(plain, softness=1.0), images, labels), wanted)


def test_the_loss_is_mixed_as_the_targets_are(data):
    images, labels = data
    even = replace(labels, probs=torch.full((24, 3), 1 / 3))

    def loss(labels, **settings):
        still = replace(QUICK, schedule=Schedule(1, 24, 0.0), balanced=False, **settings)
        return still.fit(images, labels, NAMES).losses_[0]

    hard, soft, any_class = loss(labels), loss(labels, softness=1.0), loss(even, softness=1.0)
    assert loss(labels, softness=0.25) == pytest.approx(0.75 * hard + 0.25 * soft, rel=1e-4)
    assert loss(labels, smoothing=0.25) == pytest.approx(0.75 * hard + 0.25 * any_class, rel=1e-4)
    assert abs(soft - hard) > 1e-3 and abs(any_class - hard) > 1e-3


def test_a_rare_class_counts_as_much_as_a_frequent_one(data):
    images, labels = uneven(data)
    weights = torch.where(labels.labels == labels.labels[0], 1 / 5, 1 / 2)
    by_hand = replace(labels, weights=weights)
    wanted = state_of(replace(ONCE, balanced=False), images, by_hand)
    assert_close(state_of(ONCE, images, labels), wanted)
    alike = replace(labels, weights=torch.full((9,), 0.7))
    plain = replace(ONCE, balanced=False)
    assert_close(state_of(plain, images, alike), state_of(plain, images, labels))


def test_a_warm_up_is_at_most_a_quarter_of_the_training(data):
    modern = methods.reconfigure(ImageClassifier(), MODERN)
    assert modern.schedule.epochs == 50 and modern.schedule.warmup_epochs == 5
    for epochs, warmup in {50: 5.0, 20: 5.0, 5: 1.25, 1: 0.25, 0: 0.0}.items():
        cut_short = with_short_warmup(replace(modern.schedule, epochs=epochs))
        assert cut_short == replace(modern.schedule, epochs=epochs, warmup_epochs=warmup)
    short = methods.reconfigure(QUICK, MODERN | {"schedule.epochs": 4})
    by_hand = methods.reconfigure(short, {"schedule.warmup_epochs": 1.0})
    none = methods.reconfigure(short, {"schedule.warmup_epochs": 0.0})
    found = state_of(short, *data)
    assert same(found, state_of(by_hand, *data)) and not same(found, state_of(none, *data))


def test_only_selected_images_are_learnt_from(data):
    images, labels = data
    some = replace(labels, candidates=labels.candidates & (torch.arange(24) < 12)[:, None])
    chosen = torch.arange(12)
    a = replace(QUICK).fit(images, some, NAMES)
    b = replace(QUICK).fit(images.subset(range(12)), labels.subset(chosen), NAMES)
    assert same(a.backbone_.state, b.backbone_.state)


def test_one_bad_image_does_not_lose_the_others(tmp_path):
    images, labels = colours(tmp_path / "images")
    names = [source.rsplit("/", 1)[-1] for source in images.sources]
    good = torch.tensor([row for row, name in enumerate(names) if name != "05.png"])
    without = replace(QUICK).fit(images.subset(good.tolist()), labels.subset(good), NAMES)
    (tmp_path / "images" / "05.png").write_bytes(b"no longer an image")
    made = replace(QUICK).fit(images, labels, NAMES)
    assert [q.source.rsplit("/", 1)[-1] for q in made.unreadable_] == ["05.png"]
    assert same(made.backbone_.state, without.backbone_.state)
    stored = store_pixels(images, 32, tmp_path)
    assert isinstance(stored.pixels, np.memmap), "still in the file, not in memory"
    assert stored.rows.tolist() == good.tolist()
    whole = store_pixels(images.subset(good.tolist()), 32, tmp_path)
    rows = torch.tensor([22, 0, 5, 4])
    assert np.array_equal(stored.batch(rows), whole.pixels[rows.numpy()])
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="none of the 24 images can be read"):
        replace(QUICK).fit(images, labels, NAMES)


def test_one_image_is_enough(data):
    images, labels = data
    made = replace(QUICK).fit(images.subset([0]), labels.subset(torch.tensor([0])), NAMES)
    assert all(torch.isfinite(v).all() for v in made.backbone_.state.values())


def test_a_bundle_gives_the_same_answers_elsewhere(data, pictures, tmp_path):
    images, labels = data
    made = replace(QUICK).fit(images, labels, NAMES)
    space = LabelSpace(NAMES)
    Classifier(made.backbone_, made.scorer_, Argmax(), space, made.backbone_.digest).save(tmp_path)
    loaded = load(tmp_path)
    assert torch.equal(
        loaded.predict_proba(pictures[0]),
        made.backbone_.encode_images(pictures[0]).softmax(dim=1),
    )
    with pytest.raises(ValueError, match="leave --backbone out"):
        load(tmp_path, model="tiny")
    tensors = load_file(tmp_path / "classifier.safetensors")
    key = next(key for key in tensors if key.endswith("fc.weight"))
    save_file(tensors | {key: tensors[key] + 1}, tmp_path / "classifier.safetensors")
    with pytest.raises(ValueError, match="not those that were saved"):
        load(tmp_path)
    with pytest.raises(ValueError, match="knows no texts"):
        loaded.backbone.encode_texts(["a cat"])


def test_pretrained_weights_are_where_training_begins(data, tmp_path):
    images, labels = data
    torch.manual_seed(5)
    other = build_network("test_resnet", 7, 32, {})
    save_file(other.state_dict(), tmp_path / "w.safetensors")
    still = replace(QUICK, pretrained=str(tmp_path / "w.safetensors"), schedule=Schedule(0, 8, 0.1))
    state = still.fit(images, labels, NAMES).backbone_.state
    kept = {k: v for k, v in other.state_dict().items() if not k.startswith("fc.")}
    assert kept and all(torch.equal(state[k], v) for k, v in kept.items())
    assert state["fc.weight"].shape[0] == 3
    with pytest.raises(ValueError, match=r"expected a \.safetensors file"):
        pretrained_weights("test_resnet", str(tmp_path / "none.bin"))
    (tmp_path / "bad.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"cannot be made .* from .*bad"):
        replace(QUICK, pretrained=str(tmp_path / "bad.safetensors")).fit(images, labels, NAMES)


def test_what_cannot_be_is_told(data):
    images, labels = data
    with pytest.raises(ValueError, match="did you mean 'resnet50'"):
        replace(QUICK, architecture="resnet500").fit(images, labels, NAMES)
    with pytest.raises(ValueError, match="test_vit cannot be made for 3 classes"):
        replace(QUICK, architecture="test_vit", size=10).fit(images, labels, NAMES)
    none = replace(labels, candidates=torch.zeros_like(labels.candidates))
    with pytest.raises(ValueError, match="none of the 24 images has a pseudo-label"):
        replace(QUICK).fit(images, none, NAMES)
    with pytest.raises(ValueError, match=r"magnitude must lie in \[0, 1\]"):
        ImageClassifier(magnitude=2.0)
    with pytest.raises(FloatingPointError, match="the loss became nan"):
        far = replace(QUICK, schedule=Schedule(20, 8, 1e30))
        far.fit(images, labels, NAMES)
    broken = {
        k: v * float("nan") for k, v in build_network("test_resnet", 3, 32, {}).state_dict().items()
    }
    with pytest.raises(FloatingPointError, match="not finite"):
        NetworkBackbone("test_resnet", 3, 32, broken).encode_images([Image.new("RGB", (9, 9))])


def test_targets_and_weights_by_hand():
    labels = PseudoLabels(
        ("a", "b", "c"),
        torch.tensor([[0.7, 0.3], [0.6, 0.4], [0.1, 0.9]]),
        torch.tensor([[True, False], [True, False], [False, True]]),
        torch.ones(3),
    )
    assert torch.equal(training_targets(labels, 0.0, 0.0), labels.candidates.float())
    torch.testing.assert_close(training_targets(labels, 0.5, 0.2)[0], torch.tensor([0.78, 0.22]))
    torch.testing.assert_close(image_weights(labels, True), torch.tensor([0.75, 0.75, 1.5]))
    assert image_weights(labels, False).tolist() == [1.0] * 3
    weighed = replace(labels, weights=torch.tensor([3.0, 1.0, 4.0]))
    torch.testing.assert_close(image_weights(weighed, True), torch.tensor([1.125, 0.375, 1.5]))


def test_mixed_images_and_targets_have_one_share():
    pixels = torch.arange(4.0)[:, None, None, None].expand(4, 3, 2, 2)
    targets = torch.eye(4)
    mixed, wanted = mix(pixels, targets, 0.4, torch.Generator().manual_seed(0))
    torch.testing.assert_close(mixed[:, 0, 0, 0], wanted @ torch.arange(4.0))
    torch.testing.assert_close(wanted.sum(dim=1), torch.ones(4))
    assert not torch.equal(wanted, targets)


def test_crops_have_the_areas_and_aspects_that_were_asked_for():
    generator = torch.Generator().manual_seed(0)
    aspects = torch.full((4000,), 1.5)
    maps = random_crops(aspects, 0.25, True, generator)
    width, height = maps[:, 0, 0].abs(), maps[:, 1, 1]
    assert (width * height).min() > 0.25 - 1e-5 and (width * height).max() <= 1 + 1e-5
    shape = width * 1.5 / height
    assert shape.min() > 0.749 and shape.max() < 1.334
    assert (maps[:, 0, 2].abs() + width).max() <= 1 + 1e-5
    assert (maps[:, 1, 2].abs() + height).max() <= 1 + 1e-5
    assert 0.45 < (maps[:, 0, 0] < 0).float().mean() < 0.55
    # an image too wide for any such crop gives its middle
    strip = random_crops(torch.tensor([10.0]), 0.9, False, generator)[0]
    torch.testing.assert_close(strip, torch.tensor([[4 / 30, 0, 0], [0, 1, 0]]))


def test_the_whole_image_is_cut_as_it_is(data, tmp_path):
    stored = store_pixels(data[0], 32, tmp_path)
    pixels = torch.from_numpy(stored.pixels[:2])
    whole = torch.eye(2, 3).expand(2, 2, 3)
    torch.testing.assert_close(cut(pixels, whole, 32), pixels.permute(0, 3, 1, 2).float())
    mirrored = whole * torch.tensor([[-1.0], [1.0]])
    flipped = pixels.permute(0, 3, 1, 2).float().flip(3)
    torch.testing.assert_close(cut(pixels, mirrored, 32), flipped)
    assert stored.aspects.tolist() == [1.25] * 24


def test_decoding_tells_how_far_it_is(data, tmp_path, monkeypatch):
    monkeypatch.setattr(_pixels, "AT_ONCE", 10)
    heard = []
    store_pixels(data[0], 32, tmp_path, lambda *told: heard.append(told))
    assert heard == [(10, 24), (20, 24), (24, 24)]


def test_images_larger_than_crops_are_kept_larger(tmp_path):
    Image.new("RGB", (80, 60)).save(tmp_path / "a.png")
    images, _ = open_images(tmp_path / "a.png")
    (tmp_path / "f").mkdir()
    assert store_pixels(images, 56, tmp_path / "f").pixels.shape == (1, 64, 64, 3)
    assert isinstance(images, ImageSet)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux tells what is mapped")
def test_decoded_images_lie_nameless_beside_the_checkpoint(data, tmp_path):
    folder, heard = tmp_path / "deep" / "state", []

    def look(*_):
        maps = Path("/proc/self/maps").read_text().splitlines()
        assert any(f" {folder}/" in line and line.endswith(" (deleted)") for line in maps)
        heard.append([path.name for path in folder.iterdir()])

    path = folder / "network.safetensors"
    ONCE.fit(*data, NAMES, checkpoint=path, on_epoch=look)
    assert heard == [["network.safetensors"]]
    assert f" {folder}/" not in Path("/proc/self/maps").read_text(), "let go at the end"


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="cannot be had beforehand here")
def test_the_room_for_decoded_images_is_taken_at_once(data, tmp_path):
    with tempfile.TemporaryFile(dir=tmp_path) as file:
        reserve(file.fileno(), 1_000_000)
        held = os.fstat(file.fileno())
    assert held.st_size == 1_000_000 and held.st_blocks * 512 >= 1_000_000
    # no file may be longer than this: a disk that is nearly full
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(OSError, match="no room for 24 decoded images of 73,728 bytes") as told:
            store_pixels(data[0], 32, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert told.value.filename == str(tmp_path) and not any(tmp_path.iterdir())
