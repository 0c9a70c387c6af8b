from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from nameonly.report.html import write_report

VOID = {"meta", "link", "img", "br"}
MEGABYTES = 1_000_000


class Page(HTMLParser):
    """Text, tags and attributes of a page; complains about tags that do not close."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.attributes, self.text, self.open_tags = Counter(), [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        assert self.open_tags == []

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), f"<{tag}> repeats an attribute"
        if tag not in VOID:
            self.open_tags.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open_tags.pop() == tag

    def handle_data(self, data):
        if self.open_tags[-1:] != ["style"]:
            self.text.append(" ".join(data.split()))

    def values(self, name):
        return [attrs[name] for _, attrs in self.attributes if name in attrs]

    def prose(self):
        return " ".join(" ".join(self.text).split())


@pytest.fixture
def write(tmp_path, make_report):
    def write_and_read(**changes) -> Page:
        path = tmp_path / "report.html"
        write_report(path, make_report(**changes))
        return Page(path)

    return write_and_read


def _noise(row: int) -> Image.Image:
    pixels = np.random.default_rng(row).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def _one_hot(labels: np.ndarray, n_classes: int) -> np.ndarray:
    probs = np.full((len(labels), n_classes), 0.1 / n_classes, dtype=np.float32)
    probs[np.arange(len(labels)), labels] += 0.9
    return probs


def test_the_page_says_what_was_done_and_what_nobody_knows(write, digits_report):
    prose = write().prose()
    n_labelled = int((digits_report.labels >= 0).sum())
    assert (
        f"{n_labelled} images of 300 from digits/ were given one of 10 classes by the recipe "
        "up_adapter on the backbone tiny ." in prose
    )
    assert "No labels were used" in prose
    assert "not calibrated" in prose
    assert "knows glyphs only" in prose


def test_the_sections_stand_in_order(write):
    page = write()
    ids = page.values("id")
    wanted = ["honesty", "counts", "classes", "confidence", "confusable", "images", "changes"]
    wanted += ["set-aside", "made"]
    assert [name for name in ids if name in wanted] == wanted
    assert len(set(ids)) == len(ids)
    links = [href[1:] for href in page.values("href") if href.startswith("#")]
    assert set(links) <= set(ids)


def test_the_page_asks_nothing_of_the_network(write):
    page = write()
    assert page.tags["script"] == 0
    assert {value.partition(":")[0] for value in page.values("src")} == {"data"}
    assert all(value.startswith(("#", "data:")) for value in page.values("href"))


def test_hostile_names_and_sources_are_shown_as_text(write, digits_report):
    names = ("<script>alert(1)</script>", "</style><img src=x onerror=alert(2)>", "{{ 7 * 7 }}")
    sources = [f'"\'><svg onload="alert({i})">/\U0001f600 {i}.png' for i in range(300)]
    sources[0] = "broken\udcff\n\x00name.png"
    page = write(
        class_names=names + digits_report.class_names[3:],
        sources=tuple(sources),
        quarantine=((sources[0], "<b>bold</b>"), (sources[1], "{% if %}")),
        duplicates=((sources[1], "javascript:alert(3)"),),
        run={
            "input": '"><h1>',
            "recipe": "<i>",
            "settings": {"<u>": ["</details>"]},
            "seed": "\x0b",
        },
    )
    assert page.tags["script"] == page.tags["i"] == page.tags["u"] == 0
    assert page.tags["h1"] == 1
    assert not [name for _, attrs in page.attributes for name in attrs if name.startswith("on")]
    assert names[0] in page.text
    assert names[2] in page.text
    assert sources[1] in page.text
    assert any(sources[i] in page.values("title") for i in range(1, 300))
    assert "broken\ufffd\ufffd\ufffdname.png" in page.text
    assert "<b>bold</b>" in page.text


def test_every_picture_is_named(write):
    page = write()
    pictures = [attrs for tag, attrs in page.attributes if tag == "img"]
    assert len(pictures) > 50
    assert all(attrs["alt"].count(": digits/") == 1 for attrs in pictures)
    assert all(attrs.get("class") == "pixelated" for attrs in pictures)


def test_images_that_vanished_leave_a_place(write, digits_report):
    def open_image(row: int) -> Image.Image:
        if row % 2:
            raise ValueError("the file is gone")
        return digits_report.open_image(row)

    page = write(open_image=open_image)
    places = [attrs for _, attrs in page.attributes if attrs.get("class") == "missing"]
    assert page.tags["img"] > 10
    assert len(places) > 10
    assert all("(could not be opened)" in attrs["aria-label"] for attrs in places)


def test_a_run_of_features_has_all_but_pictures(write):
    page = write(open_image=None)
    assert page.tags["img"] == 0
    assert "images" not in page.values("id")
    assert {"classes", "confidence", "confusable", "changes"} <= set(page.values("id"))
    assert "features only" in page.prose()


def test_all_abstained(write):
    page = write(labels=np.full(300, -1))
    prose = page.prose()
    assert "0 images of 300" in prose
    assert "its most probable class is compared" in prose
    assert "10 classes got none." in prose
    assert page.tags["img"] == 6 + 24


def test_one_image_and_two_classes(write):
    page = write(
        sources=("a.png",),
        class_names=("cat", "dog"),
        probs=np.array([[0.25, 0.75]], dtype=np.float32),
        labels=np.array([1]),
        zero_shot=np.array([0]),
    )
    prose = page.prose()
    assert "1 image from digits/ was given one of 2 classes" in prose
    assert "1 image (100 %) got another class" in prose
    assert "All images, most confident first" in prose
    assert "Least confident" not in page.text


def test_one_class_has_neither_runner_up_nor_close_calls(write):
    page = write(
        class_names=("cat",),
        probs=np.ones((300, 1), dtype=np.float32),
        labels=np.zeros(300, dtype=np.int64),
        zero_shot=np.zeros(300, dtype=np.int64),
    )
    prose = page.prose()
    assert "were given the only class by" in prose
    assert "No image has a runner-up" in prose
    assert "runner-up" not in page.text


def test_no_image_at_all(write):
    page = write(
        sources=(),
        probs=np.zeros((0, 10), dtype=np.float32),
        labels=np.zeros(0, dtype=np.int64),
        zero_shot=np.zeros(0, dtype=np.int64),
    )
    assert "No image could be used, so nothing was labelled." in page.prose()
    assert "confidence" not in page.values("id")


def test_a_run_without_zero_shot_claims_no_comparison(write):
    page = write(zero_shot=np.full(300, -1))
    assert "This run has no zero-shot answers to compare with." in page.text
    assert "another class than zero-shot" not in page.prose()
    assert "Zero-shot" not in page.text
    assert page.values("data-count").count("changed") == 0


def test_no_change_no_quarantine_no_duplicates(write, digits_report):
    zero_shot = digits_report.probs.argmax(axis=1)
    page = write(zero_shot=zero_shot, quarantine=(), duplicates=())
    assert "No image got another class than zero-shot gives." in page.prose()
    assert "No file was quarantined." in page.text
    assert "No two sources have equal bytes." in page.text


def test_what_the_run_does_not_say_is_left_out(write):
    page = write(run={})
    assert "images of 300 were given one of 10 classes." in " ".join(page.prose().split()).replace(
        "classes .", "classes."
    )
    assert "made" not in page.values("id")
    odd = write(run={"backbone": "tiny", "settings": None, "title": None, "input": 7})
    assert "from 7 were given" in odd.prose()


def test_the_same_run_gives_the_same_bytes(tmp_path, make_report):
    for name in ("a", "b"):
        write_report(tmp_path / "new folder" / name, make_report())
    assert (tmp_path / "new folder/a").read_bytes() == (tmp_path / "new folder/b").read_bytes()


def test_a_hundred_thousand_images_stay_small(write, tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 100_000)
    page = write(
        sources=tuple(f'{i} {chr(34) * 300} "deep folder".png' for i in range(100_000)),
        probs=_one_hot(labels, 10),
        labels=np.where(rng.random(100_000) < 0.1, -1, labels),
        zero_shot=rng.integers(0, 10, 100_000),
        quarantine=tuple((f"{i}{'&' * 900}", "'" * 900) for i in range(5000)),
        duplicates=tuple((f"{i}{'<' * 900}",) * 50 for i in range(5000)),
        open_image=_noise,
    )
    assert (tmp_path / "report.html").stat().st_size < 5 * MEGABYTES
    assert "4,800 further files left out." in page.text


def test_twenty_thousand_classes_stay_small(write, tmp_path):
    names = tuple(f"class {i} {'<' * (30_000 if i < 60 else 300)}" for i in range(20_000))
    labels = np.random.default_rng(0).integers(0, 20_000, 400)
    labels[:320] = np.repeat(np.arange(40), 8)
    page = write(
        run={"counts": {"pseudo_labels": dict.fromkeys(names, 1)}, "settings": {"names": names}},
        class_names=names,
        sources=tuple(f"{i}/{chr(34) * 30_000}.png" for i in range(400)),
        probs=_one_hot(labels, 20_000),
        labels=labels,
        zero_shot=(labels + 1) % 20_000,
        open_image=_noise,
    )
    assert (tmp_path / "report.html").stat().st_size < 5 * MEGABYTES
    assert page.tags["img"] == 40 * 6 + 24
    n_others = 20_000 - 40
    assert f"{n_others:,} further classes with" in page.prose()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": ()}, "at least one class name"),
        ({"sources": ("a",)}, r"1 sources and 10 class names need probs of shape \(1, 10\)"),
        ({"labels": np.zeros(3, dtype=int)}, "labels needs 300 integers"),
        ({"labels": np.zeros(300)}, "labels needs 300 integers, got float64"),
        ({"zero_shot": np.full(300, 10)}, "zero_shot lie between -1 .* and 9, got 10 to 10"),
        ({"labels": np.full(300, -2)}, "got -2 to -2"),
        ({"probs": np.full((300, 10), np.nan)}, "row 0 sums to nan"),
        ({"probs": np.full((300, 10), 3.0)}, "row 0 sums to 30; give probabilities, not logits"),
        ({"probs": np.tile([2.0, -1.0] + [0.0] * 8, (300, 1))}, "not negative, got -1"),
    ],
)
def test_bad_input_is_refused(make_report, changes, message):
    with pytest.raises(ValueError, match=message):
        make_report(**changes)
