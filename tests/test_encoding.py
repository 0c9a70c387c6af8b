import pytest
import torch
from PIL import Image

from nameonly.backbones.clip import ClipBackbone
from nameonly.encoding import (
    Views,
    build_text_classifier,
    encode_image_set,
    encode_texts,
    encode_views,
    features_in_order,
    open_store,
)
from nameonly.images import load, open_images
from nameonly.ops.views import make_view, view_generator
from nameonly.store import FeatureStore
from nameonly.types import LabelSpace


@pytest.fixture
def backbone():
    return ClipBackbone("tiny", device="cpu", dtype="float32", batch_size=16)


@pytest.fixture
def passes(backbone):
    """Count forward passes of the real towers, and the rows in them."""
    seen = {"images": 0, "texts": 0}

    def count(name):
        def hook(module, args, kwargs, output):
            given = args[0] if args else next(iter(kwargs.values()))
            seen[name] += len(given)

        return hook

    backbone.network.vision_model.register_forward_hook(count("images"), with_kwargs=True)
    backbone.network.text_model.register_forward_hook(count("texts"), with_kwargs=True)
    return seen


def test_nothing_is_encoded_twice(digits, backbone, passes, tmp_path):
    images, _ = open_images(digits)
    first = encode_image_set(images, backbone, tmp_path)
    assert passes["images"] == first.n_encoded == 120
    again = encode_image_set(images, backbone, tmp_path)
    assert passes["images"] == 120 and again.n_encoded == 0
    assert torch.equal(first.features.values, again.features.values)


def test_rows_are_unique_images_in_order_of_id(digits, backbone, passes, tmp_path):
    copy = digits / "sub" / "copy.png"
    copy.parent.mkdir()
    copy.write_bytes((digits / "digit-0003.png").read_bytes())
    images, _ = open_images(digits)
    encoded = encode_image_set(images, backbone, tmp_path)
    assert len(images) == 121 and passes["images"] == 120
    assert list(encoded.features.ids) == sorted(set(images.ids))


def test_a_bad_image_harms_no_other(digits, backbone, tmp_path):
    images, _ = open_images(digits)
    clean = encode_image_set(images, backbone, tmp_path / "a")
    for name in ("digit-0000.png", "digit-0050.png"):
        path = digits / name
        path.write_bytes(path.read_bytes()[:60])
    (digits / "zz.jpg").write_text("hello")
    images, _ = open_images(digits)
    encoded = encode_image_set(images, backbone, tmp_path / "b")
    bad = [q.source for q in encoded.quarantined]
    assert bad == ["digit-0000.png", "digit-0050.png", "zz.jpg"]
    row = {i: r for r, i in enumerate(clean.features.ids)}
    kept = clean.features.values[[row[i] for i in encoded.features.ids]]
    torch.testing.assert_close(encoded.features.values, kept, atol=1e-5, rtol=0)


def test_images_that_vanish_or_change_while_running_are_set_aside(digits, backbone, tmp_path):
    images, _ = open_images(digits)
    (digits / "digit-0007.png").unlink()
    Image.new("RGB", (9, 9)).save(digits / "digit-0008.png")
    encoded = encode_image_set(images, backbone, tmp_path)
    reasons = {q.source: q.reason for q in encoded.quarantined}
    assert set(reasons) == {"digit-0007.png", "digit-0008.png"}
    assert "changed" in reasons["digit-0008.png"]


def test_a_duplicate_stands_in_for_one_that_vanished(digits, backbone, tmp_path):
    (digits / "a-copy.png").write_bytes((digits / "digit-0003.png").read_bytes())
    images, _ = open_images(digits)
    (digits / "a-copy.png").unlink()
    encoded = encode_image_set(images, backbone, tmp_path)
    assert encoded.quarantined == [] and len(encoded.features) == 120


def test_no_readable_image_is_one_clear_error(backbone, tmp_path):
    folder = tmp_path / "bad"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.jpg").write_text(f"text {i}")
    images, _ = open_images(folder)
    with pytest.raises(ValueError, match="none of the 3 images could be read"):
        encode_image_set(images, backbone, tmp_path / "cache")


def test_a_damaged_store_is_made_again_with_a_word(digits, backbone, passes, tmp_path):
    images, _ = open_images(digits)
    first = encode_image_set(images, backbone, tmp_path)
    shard = next(open_store(tmp_path, "images", backbone).folder.glob("*.npy"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 255
    shard.write_bytes(content)
    again = encode_image_set(images, backbone, tmp_path)
    assert passes["images"] == 240 and "damaged" in again.repairs[0]
    assert torch.equal(first.features.values, again.features.values)


def test_another_dtype_has_its_own_features(digits, backbone, tmp_path):
    images, _ = open_images(digits)
    encode_image_set(images, backbone, tmp_path)
    other = ClipBackbone("tiny", device="cpu", dtype="bfloat16", batch_size=16)
    assert encode_image_set(images, other, tmp_path).n_encoded == 120


def test_progress_reaches_the_total(digits, backbone, tmp_path):
    seen = []
    images, _ = open_images(digits)
    encode_image_set(images, backbone, tmp_path, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (120, 120) and seen == sorted(seen)


def test_texts_are_encoded_once_each(backbone, passes, tmp_path):
    def rows(*texts):
        store = open_store(tmp_path, "texts", backbone)
        return store.get(encode_texts(texts, backbone, store))

    a = rows("one", "two", "one")
    assert passes["texts"] == 2 and torch.equal(a[0], a[2])
    b = rows("two", "three")
    assert passes["texts"] == 3 and torch.equal(a[1], b[0])


def test_text_weights_are_the_mean_of_each_class(backbone, tmp_path):
    texts = [["a zero", "the zero"], ["a one"]]
    got = build_text_classifier(texts, LabelSpace(("zero", "one")), backbone, tmp_path)
    rows = backbone.encode_texts(["a zero", "the zero", "a one"])
    mean = rows[:2].mean(dim=0)
    torch.testing.assert_close(got.weights[0], mean / mean.norm(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(got.weights[1], rows[2], atol=1e-5, rtol=1e-5)
    assert got.logit_scale == backbone.logit_scale


def test_few_classes_at_once_make_the_same_weights(backbone, tmp_path, monkeypatch):
    names = tuple(f"thing {j}" for j in range(7))
    texts = [[f"a {name}", f"the {name}"][: 1 + j % 2] for j, name in enumerate(names)]
    want = build_text_classifier(texts, LabelSpace(names), backbone, tmp_path)
    asked = []
    get = FeatureStore.get

    def counted(self, ids):
        asked.append(len(ids))
        return get(self, ids)

    monkeypatch.setattr(FeatureStore, "get", counted)
    monkeypatch.setattr("nameonly.encoding.CLASSES_AT_ONCE", 2)
    got = build_text_classifier(texts, LabelSpace(names), backbone, tmp_path)
    assert torch.equal(got.weights, want.weights) and asked == [3, 3, 3, 1]


def test_a_ctrl_c_keeps_what_was_encoded(digits, backbone, tmp_path):
    def stop(done, total):
        if done >= 64:
            raise KeyboardInterrupt

    images, _ = open_images(digits)
    with pytest.raises(KeyboardInterrupt):
        encode_image_set(images, backbone, tmp_path, stop)
    assert encode_image_set(images, backbone, tmp_path).n_encoded == 120 - 64


def test_views_are_those_of_each_image_in_the_order_of_the_ids(digits, backbone, tmp_path):
    (digits / "a-copy.png").write_bytes((digits / "digit-0003.png").read_bytes())
    images, _ = open_images(digits)
    images = images.subset(list(range(20))[::-1])
    got = encode_views(images, backbone, Views(2, "strong", 5), tmp_path)
    ids = list(dict.fromkeys(images.ids))
    assert len(ids) == 19 and got.shape == (2, 19, backbone.dim)
    for number in range(2):
        views = [
            make_view(
                load(images, images.ids.index(i)), "strong", view_generator(i, "strong", number, 5)
            )
            for i in ids
        ]
        torch.testing.assert_close(got[number], backbone.encode_images(views), atol=1e-5, rtol=0)
    torch.testing.assert_close(got.norm(dim=2), torch.ones(2, 19))


def test_no_view_is_encoded_twice(digits, backbone, passes, tmp_path):
    images = open_images(digits)[0].subset(range(30))
    first = encode_views(images, backbone, Views(2, "weak"), tmp_path)
    assert passes["images"] == 60
    assert torch.equal(encode_views(images, backbone, Views(2, "weak"), tmp_path), first)
    assert passes["images"] == 60
    more = encode_views(images, backbone, Views(3, "weak"), tmp_path)
    assert passes["images"] == 90 and torch.equal(more[:2], first)
    few = encode_views(images.subset(range(5)), backbone, Views(3, "weak"), tmp_path)
    assert passes["images"] == 90 and torch.equal(few, more[:, :5])


def test_views_of_another_kind_or_seed_and_the_images_have_their_own_features(
    digits, backbone, passes, tmp_path
):
    images = open_images(digits)[0].subset(range(10))
    made = [
        encode_views(images, backbone, Views(1, kind, seed), tmp_path)
        for kind, seed in (("weak", 0), ("strong", 0), ("weak", 1))
    ]
    clean = encode_image_set(images, backbone, tmp_path)
    assert passes["images"] == 40 and clean.n_encoded == 10
    row = {i: r for r, i in enumerate(clean.features.ids)}
    made.append(clean.features.values[None, [row[i] for i in images.ids]])
    for i, a in enumerate(made):
        assert not any(torch.allclose(a, b, atol=1e-3) for b in made[:i])


def test_no_order_and_no_batch_changes_a_view(digits, backbone, tmp_path):
    images = open_images(digits)[0].subset(range(30))
    a = encode_views(images, backbone, Views(1, "strong"), tmp_path / "a")
    other = ClipBackbone("tiny", device="cpu", dtype="float32", batch_size=7)
    b = encode_views(images.subset(range(29, -1, -1)), other, Views(1, "strong"), tmp_path / "b")
    torch.testing.assert_close(a, b.flip(1), atol=1e-5, rtol=0)


def test_views_that_were_broken_off_go_on_where_they_stood(digits, backbone, passes, tmp_path):
    def stop(done, total):
        seen.append((done, total))
        if done >= 46:
            raise KeyboardInterrupt

    seen = []
    images = open_images(digits)[0].subset(range(30))
    with pytest.raises(KeyboardInterrupt):
        encode_views(images, backbone, Views(3, "weak"), tmp_path, on_progress=stop)
    assert seen == [(16, 90), (30, 90), (46, 90)] and passes["images"] == 46
    encode_views(images, backbone, Views(3, "weak"), tmp_path)
    assert passes["images"] == 90


def test_without_a_cache_views_leave_nothing_behind(digits, backbone, tmp_path, monkeypatch):
    images = open_images(digits)[0].subset(range(10))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    before = sorted(tmp_path.rglob("*"))
    a = encode_views(images, backbone, Views(1, "weak"), None)
    assert sorted(tmp_path.rglob("*")) == before
    assert torch.equal(a, encode_views(images, backbone, Views(1, "weak"), tmp_path / "kept"))


def test_views_that_cannot_be_made_are_refused(digits, backbone, tmp_path):
    images, _ = open_images(digits)
    with pytest.raises(ValueError, match="at least one view"):
        encode_views(images, backbone, Views(0, "weak"), tmp_path)
    (digits / "digit-0004.png").unlink()
    with pytest.raises(ValueError, match=r"1 images cannot be read, first digit-0004.png"):
        encode_views(images, backbone, Views(1, "weak"), tmp_path)


def test_features_in_order_follow_the_images_and_name_what_cannot_be_read(digits, tmp_path):
    backbone = ClipBackbone("tiny", device="cpu", dtype="float32")
    images, _ = open_images(digits)
    turned = images.subset([5, 0, 3, 0 + 1])
    found = features_in_order(turned, backbone, tmp_path / "cache")
    assert found.ids == turned.ids
    for row in range(4):
        want = backbone.encode_images([load(turned, row)])[0]
        torch.testing.assert_close(found.values[row], want, atol=1e-5, rtol=0)
    (digits / "bad.png").write_bytes(b"no image")
    images, _ = open_images(digits)
    with pytest.raises(
        ValueError, match=r"1 images cannot be read, first bad\.png: .*put them right"
    ):
        features_in_order(images, backbone, tmp_path / "cache")
