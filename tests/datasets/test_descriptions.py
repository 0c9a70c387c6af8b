"""What the descriptions say, and that docs/datasets.md says the same."""

import re
from pathlib import Path

import pytest

from nameonly.datasets import descriptions
from nameonly.datasets.descriptions import describe, names
from nameonly.prompts.templates import template_set
from nameonly.types import LabelSpace

ROOT = Path(__file__).parents[2]
# of the published protocols: seen and unseen classes are drawn by position, so the order counts
SIZES = {
    "resisc45": (45, 6_300, 25_200), "resisc45_elevater": (45, 6_300, 25_200),
    "flowers102": (102, 2_040, 6_149), "dtd": (47, 3_760, 1_880),
    "eurosat": (10, 22_000, 5_000), "eurosat_as_published": (10, 27_000, 5_000),
    "cub200": (200, 5_994, 5_794), "fgvc_aircraft": (100, 6_667, 3_333),
    "cifar10": (10, 50_000, 10_000), "cifar100": (100, 50_000, 10_000),
    "mnist": (10, 60_000, 10_000), "oxford_pets": (37, 3_680, 3_669),
    "food101": (101, 75_750, 25_250), "stanford_cars": (196, 8_144, 8_041),
    "sun397": (397, 19_850, 19_850), "ucf101": (101, 9_537, 3_783),
    "imagenet": (1_000, 1_281_167, 50_000), "imagenet_v2": (1_000, 0, 10_000),
    "imagenet_a": (200, 0, 7_500), "imagenet_r": (200, 0, 30_000), "digits": (10, 898, 899),
}  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name):
    d = describe(name)
    assert (d.n_classes, d.n_train, d.n_test) == SIZES[name]


@pytest.mark.parametrize("name", names())
def test_every_description_is_whole(name):
    d = describe(name)
    assert d.title and d.rule and d.licence
    assert re.fullmatch(r"https?://\S+", d.home) and re.search(r"\b(19|20)\d\d\.$", d.paper)
    assert set(d.templates) == {"protocol", "customary"}
    for templates in d.templates.values():
        assert templates
        LabelSpace(("a", "b"), templates=templates)
    written = d.classes.names
    if written:
        space = LabelSpace(tuple(written.values() if isinstance(written, dict) else written))
        assert len(space) == d.n_classes
    assert ("ours" in d.rule) is (
        d.layout.__class__.__name__ in {"DrawnSplit", "BundledDigits"}
    ) or (name == "eurosat_as_published")
    assert d.layout.leak is ("Every test image is a training image." in d.notes)


def test_names_are_sorted_and_files_hold_no_other_table():
    assert names() == sorted(names()) and "eurosat_as_published" in names()
    stems = {path.stem for path in descriptions.ROOT.glob("*.toml")}
    assert all(any(name.startswith(stem) for stem in stems) for name in names())


def test_templates():
    assert describe("dtd").templates["protocol"] == ("a photo of a {}",)
    assert describe("imagenet_r").templates["customary"] == template_set("openai80")
    assert describe("mnist").templates["customary"] == ('a photo of the number: "{}".',)
    assert describe("digits").templates["protocol"] == ("a photo of a {}.",)


def test_imagenets_relatives_share_its_names_and_change_what_differs():
    v2, base = describe("imagenet_v2").classes, describe("imagenet").classes
    assert (v2.files, v2.renamed, v2.order) == (base.files, base.renamed, base.order)
    assert (v2.first, v2.only_found, base.first, base.only_found) == (0, False, None, True)
    assert describe("imagenet_a").classes.files == ("README.txt",)


def row(name):
    d = describe(name)
    place = f"in `{'`, `'.join(d.inside)}` or at the top: " if d.inside else ""
    files = ", ".join(f"`{file}`".replace(" or ", "` or `") for file in d.files)
    notes = f"{d.rule[0].upper()}{d.rule[1:]}. {d.notes}".strip()
    return (
        f"| `{name}` | {d.n_classes:,} | {d.n_train:,} | {d.n_test:,} | {place}{files or 'none'} "
        f"| {d.licence} | [{d.title}]({d.home}) | {notes} |"
    )


def test_the_page_says_the_same():
    page = (ROOT / "docs/datasets.md").read_text(encoding="utf-8")
    found = [line for line in page.splitlines() if line.startswith("| `")]
    expected = [row(name) for name in names()]
    assert found == expected, "docs/datasets.md should hold:\n" + "\n".join(expected)
