import pytest

from nameonly.prompts.templates import Templates, template_set
from nameonly.types import LabelSpace

SPACE = LabelSpace(("cat", "dog"))


def test_single_template():
    assert Templates().texts(SPACE) == [["a photo of a cat."], ["a photo of a dog."]]


@pytest.mark.parametrize(("name", "n"), [("single", 1), ("openai7", 7), ("openai80", 80)])
def test_named_sets_hold_different_templates_with_one_gap(name, n):
    templates = template_set(name)
    assert len(templates) == len(set(templates)) == n
    assert all(t.count("{}") == 1 and t == t.strip() and t.endswith(".") for t in templates)
    assert all(len(texts) == n for texts in Templates(name).texts(SPACE))


def test_the_80_have_the_seven_and_their_pairs():
    eighty = set(template_set("openai80"))
    assert set(template_set("openai7")) <= eighty
    # All but these few come as a pair "of a {}" and "of the {}", or "a {}" and "the {}".
    alone = {"a photo of many {}.", "a photo of my {}.", "a photo of one {}.", "itap of my {}."}
    pairs = {t for t in eighty if t.replace("the ", "a ", 1) in eighty and "the " in t}
    partners = {t.replace("the ", "a ", 1) for t in pairs}
    assert alone <= eighty
    assert len(pairs) == len(partners) == 38
    assert eighty == alone | pairs | partners


def test_own_templates_and_those_of_the_label_space_which_go_first():
    own = Templates(("{}, a kind of pet", "one {}"))
    assert own.texts(SPACE)[0] == ["cat, a kind of pet", "one cat"]
    space = LabelSpace(("cat", "dog"), templates=("the {}!",))
    assert own.texts(space) == [["the cat!"], ["the dog!"]]


def test_texts_of_a_class_replace_the_templates_and_descriptions_are_added():
    space = LabelSpace(
        ("cat", "dog"),
        prompts=(("a {} and a {}", "whiskers"), ()),
        descriptions=(("It purrs {}.",), ("It barks.", "It runs.")),
    )
    assert Templates().texts(space) == [
        ["a cat and a cat", "whiskers", "It purrs {}."],
        ["a photo of a dog.", "It barks.", "It runs."],
    ]


def test_braces_in_names_stay():
    space = LabelSpace(("{}", "{0} %s \\1", "{name}"))
    assert [texts[0] for texts in Templates().texts(space)] == [
        "a photo of a {}.",
        "a photo of a {0} %s \\1.",
        "a photo of a {name}.",
    ]


@pytest.mark.parametrize(
    ("templates", "message"),
    [
        ("openai8", "no set of templates 'openai8'; take one of single, openai7, openai80"),
        ("a photo", "give your own sentences with one {} each"),
        ("", "no set of templates"),
        ((), "at least one sentence"),
        (("a photo.",), "exactly one {}, got 'a photo.'"),
        (("{} or {}",), "exactly one {}"),
    ],
)
def test_bad_templates(templates, message):
    with pytest.raises(ValueError, match=message):
        Templates(templates)
