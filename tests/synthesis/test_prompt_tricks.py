import math
from collections import Counter

import pytest

from nameonly.synthesis.prompt_tricks import DOMAINS, PromptTricks
from nameonly.types import LabelSpace

CLASSES = LabelSpace(("cat", "hot dog"))


def of_class(found, name):
    return [request for request in found if request.class_name == name]


def test_the_papers_prompts_by_hand():
    base, bare, domain, drawn = PromptTricks().requests(CLASSES, 4)[4:]
    assert [base.prompt, bare.prompt] == ["an image of a hot dog", "hot dog"]
    assert [domain.prompt, drawn.prompt] == ["a photo of a hot dog", "an image of a hot dog"]
    assert base.guidance_scale == bare.guidance_scale == domain.guidance_scale == 7.5
    assert [r.trick for r in (base, bare, domain, drawn)] == [
        "base",
        "class_prompt",
        "multi_domain",
        "random_guidance",
    ]


def test_merged_deals_equal_shares_of_the_same_total():
    found = PromptTricks().requests(CLASSES, 120)
    assert len(found) == 240
    assert set(Counter(r.trick for r in of_class(found, "cat")).values()) == {30}


def test_every_domain_has_its_turn():
    found = PromptTricks(("multi_domain",)).requests(CLASSES, 20)
    assert [r.prompt for r in of_class(found, "cat")] == [f"a {d} of a cat" for d in DOMAINS] * 2


def test_guidance_is_drawn_from_the_choices_for_every_image():
    found = PromptTricks(("random_guidance",)).requests(CLASSES, 200)
    counts = Counter(r.guidance_scale for r in found)
    assert set(counts) == {1.0, 2.0, 3.0, 4.0, 5.0}
    assert min(counts.values()) > 50, "about eighty of each"
    one, other = (
        tuple(r.guidance_scale for r in of_class(found, name)) for name in ("cat", "hot dog")
    )
    assert one != other


def test_fewer_images_are_the_first_of_more():
    tricks = PromptTricks()
    for name in CLASSES.class_names:
        few, many = (of_class(tricks.requests(CLASSES, n), name) for n in (7, 50))
        assert many[:7] == few


def test_neither_order_nor_number_of_classes_changes_an_image():
    more = LabelSpace(("bee", "hot dog", "ant", "cat"))
    tricks = PromptTricks()
    assert of_class(tricks.requests(more, 9), "cat") == of_class(tricks.requests(CLASSES, 9), "cat")


def test_every_image_has_a_noise_of_its_own():
    found = PromptTricks().requests(CLASSES, 200)
    assert len({r.seed for r in found}) == len(found)
    assert all(0 <= r.seed < 2**31 for r in found)
    other = PromptTricks(seed=1).requests(CLASSES, 200)
    assert not {r.seed for r in found} & {r.seed for r in other}


def test_a_mixture_and_own_sentences():
    tricks = PromptTricks(
        ("multi_domain", "base"),
        template="{} drawn by hand",
        domains=("bold", "blurred"),
        domain_template="a {} {}",
        guidance_scale=3.0,
    )
    found = of_class(tricks.requests(CLASSES, 4), "cat")
    assert [r.prompt for r in found] == [
        "a bold cat",
        "cat drawn by hand",
        "a blurred cat",
        "cat drawn by hand",
    ]
    assert {r.guidance_scale for r in found} == {3.0}


def test_names_with_braces_stay_as_they_are():
    (_, _, domain, _) = PromptTricks().requests(LabelSpace(("{}", "b")), 4)[:4]
    assert domain.prompt == "a photo of a {}"


def test_descriptions_are_prompts_in_turn():
    classes = LabelSpace(("cat", "bee"), descriptions=(("it purrs", "it naps"), ("it buzzes",)))
    found = PromptTricks(("descriptions",)).requests(classes, 3)
    assert [r.prompt for r in of_class(found, "cat")] == ["it purrs", "it naps", "it purrs"]
    with pytest.raises(ValueError, match="class 'bee' has no description"):
        PromptTricks(("descriptions",)).requests(
            LabelSpace(("cat", "bee"), descriptions=(("it purrs",), ())), 3
        )


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tricks": ("base", "magic")}, "there is no trick 'magic'; take one or several of base"),
        ({"tricks": ()}, "there is no trick"),
        ({"template": "an image"}, "template has 1 {}"),
        ({"domain_template": "a {}"}, "domain_template has 2 {}"),
        ({"domains": ()}, "domains needs at least one"),
        ({"guidance_scale": -1.0}, "must not be negative"),
        ({"guidance_scale": math.nan}, "must not be negative, infinite or NaN"),
        ({"guidance_choices": (1.0, math.inf)}, "must not be negative, infinite or NaN"),
        ({"guidance_choices": (1.0, -2.0)}, "must not be negative"),
        ({"guidance_choices": ()}, "guidance_choices needs at least one"),
    ],
)
def test_wrong_settings_are_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        PromptTricks(**fields)


def test_no_image_is_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        PromptTricks().requests(CLASSES, 0)
