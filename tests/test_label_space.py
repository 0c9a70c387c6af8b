import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nameonly.label_space import read_label_space


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ("cat,dog", ("cat", "dog")),
        (" cat , big_dog ", ("cat", "big dog")),
        ('"cat, grey", dog', ("cat, grey", "dog")),
        ('cat, "say ""hi"""', ("cat", 'say "hi"')),
        ("cat\ndog, owl", ("cat", "dog", "owl")),
        ("AC/DC,Queen", ("AC/DC", "Queen")),
        (["cat", "dog, brown"], ("cat", "dog, brown")),
        (("C#", "F#"), ("C#", "F#")),
        ("猫,狗,Ελλάς", ("猫", "狗", "Ελλάς")),
    ],
)
def test_names_given_directly(spec, names):
    space = read_label_space(spec)
    assert space.class_names == names
    assert space.prompts is space.descriptions is space.parents is space.templates is None


def test_very_many_names_in_one_string():
    names = [f"kind {i}" for i in range(2000)]
    assert read_label_space(",".join(names)).class_names == tuple(names)


def test_text_file(tmp_path):
    lines = ["\ufeff# animals", "cat", "", "  polar_bear  # white", "C#", "code#1", "dog\t#"]
    path = write(tmp_path, "classes.txt", "\r\n".join([*lines, "cafe\u0301"]))
    expected = ("cat", "polar bear", "C#", "code#1", "dog", "café")
    assert read_label_space(path).class_names == expected
    assert read_label_space(str(path)).class_names == expected
    assert unicodedata.is_normalized("NFC", read_label_space(path).class_names[-1])


def test_file_without_known_ending_and_old_line_ends(tmp_path):
    path = write(tmp_path, "names", b"cat\rdog, brown\rowl")
    assert read_label_space(path).class_names == ("cat", "dog, brown", "owl")


def test_a_file_named_like_a_list_of_names_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "cat,dog", "owl\nfox\n")
    assert read_label_space("cat,dog").class_names == ("owl", "fox")


@pytest.mark.parametrize("name", ["a.json", "a.yaml", "a.yml"])
def test_plain_list(tmp_path, name):
    path = write(tmp_path, name, '["big_cat", "dog"]')
    assert read_label_space(path).class_names == ("big cat", "dog")


def test_json_prompts_to_classes(tmp_path):
    prompts = {"a tabby": "cat", "a hound": "dog", "a tom {}": "cat"}
    space = read_label_space(write(tmp_path, "a.json", json.dumps(prompts)))
    assert space.class_names == ("cat", "dog")
    assert space.prompts == (("a tabby", "a tom {}"), ("a hound",))


def test_json_classes_to_descriptions(tmp_path):
    content = {"cat": ["It purrs.", "Whiskers."], "dog": []}
    space = read_label_space(write(tmp_path, "a.json", json.dumps(content)))
    assert space.class_names == ("cat", "dog")
    assert space.descriptions == (("It purrs.", "Whiskers."), ())
    assert space.prompts is None


YAML = """
templates: ["a photo of a {}."]
classes:
  - name: big_cat
    prompts: [a tabby, "a {} asleep"]
    parent: house_animal
  - dog
  - name: owl
    descriptions: "It hoots."
    parent:
"""
TOML = """
templates = ["a photo of a {}."]
[[classes]]
name = "big_cat"
prompts = ["a tabby", "a {} asleep"]
parent = "house_animal"
[[classes]]
name = "dog"
[[classes]]
name = "owl"
descriptions = ["It hoots."]
"""


@pytest.mark.parametrize(("name", "text"), [("a.yaml", YAML), ("a.toml", TOML)])
def test_everything_about_a_class(tmp_path, name, text):
    space = read_label_space(write(tmp_path, name, text))
    assert space.class_names == ("big cat", "dog", "owl")
    assert space.templates == ("a photo of a {}.",)
    assert space.prompts == (("a tabby", "a {} asleep"), (), ())
    assert space.descriptions == ((), (), ("It hoots.",))
    assert space.parents == ("house animal", None, None)


def test_json_takes_the_same_structure(tmp_path):
    content = {"classes": ["cat", {"name": "dog", "parent": "animal"}]}
    space = read_label_space(write(tmp_path, "a.json", json.dumps(content)))
    assert space.class_names == ("cat", "dog") and space.parents == (None, "animal")


def test_repeated_names_show_their_lines(tmp_path):
    path = write(tmp_path, "classes.txt", "cat\n# note\nCat\nsnow_owl\nSNOW  owl\n")
    with pytest.raises(ValueError) as caught:
        read_label_space(path)
    assert str(caught.value) == (
        "classes.txt:3: 'Cat' repeats 'cat' of line 1\n"
        "classes.txt:5: 'SNOW  owl' repeats 'snow_owl' of line 4"
    )


def test_many_repeated_names_are_counted():
    with pytest.raises(ValueError, match=r"and 89 more$"):
        read_label_space(["cat"] * 100)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "no class names"),
        ([], "no class names"),
        ("cat", "item 1: 'cat' is the only class"),
        ("cat,,dog", "item 2: '' is an empty class name"),
        ("cat,dog,", "item 3: '' is an empty"),
        (["cat", "_ _"], "item 2: '_ _' is an empty"),
        (["cat", "Cat"], "item 2: 'Cat' repeats 'cat' of item 1"),
        (["caf\u00e9", "cafe\u0301", "tea"], "item 2: .* repeats"),
        (["cat", "dog\tbrown"], "item 2: .*unreadable"),
        (["cat", "dog\ud800"], "item 2: .*unreadable"),
        ('cat,"dog', "cannot be split at the commas"),
        ("classes.txt", "there is no file 'classes.txt'"),
        ("data/classes", "there is no file"),
        ("../cat,dog", "there is no file"),
        (".", "is a folder"),
    ],
)
def test_bad_names(spec, message):
    with pytest.raises(ValueError, match=message):
        read_label_space(spec)


def test_missing_and_unfit_files(tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        read_label_space(tmp_path / "cat,dog")
    with pytest.raises(ValueError, match="is a folder"):
        read_label_space(tmp_path)
    with pytest.raises(ValueError, match="is a table"):
        read_label_space(write(tmp_path, "a.csv", "label\ncat\ndog\n"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", "is empty"),
        ("a.txt", "# nothing\n", "a.txt: no class names"),
        ("a.txt", "cat, dog\n", "a.txt:1: 'cat, dog' is the only class.*own line"),
        ("a.txt", "cat\n___\n", "a.txt:2: '___' is an empty"),
        ("a.txt", b"cat\xff\n", "line 1: byte 0xff is not UTF-8"),
        ("a.txt", "\ufeffcat\ndog".encode("utf-16"), "not UTF-8"),
        ("a.json", '{"cat": ["x"], "cat": ["y"]}', "'cat' is there twice"),
        ("a.json", "{}", "no class names"),
        ("a.json", "[]", "no class names"),
        ("a.json", '"cat"', "should be a list of class names.*got a str"),
        ("a.json", "null", "got nothing"),
        ("a.json", '["cat", 7]', r"a.json, item 2: .* 7 \(a int\), not as text; put it in quotes"),
        ("a.json", '["cat", ["dog"]]', "item 2: the class name should be text, got a list"),
        ("a.json", '["cat", null]', "item 2: .*got nothing"),
        ("a.json", '{"cat": ["x"], "dog": "y"}', "item 2: 'dog' holds a str"),
        ("a.json", '{"cat": [1], "dog": []}', "item 1: one of descriptions"),
        ("a.json", '{"a tom": "cat", "a cat": "Cat"}', "item 2: 'Cat' repeats 'cat' of item 1"),
        ("a.json", '{"": "cat", "b": "dog"}', "item 1: the prompt holds an empty text"),
        ("a.yaml", "- cat\n- no\n", r"item 2: .* False \(a bool\), not as text; put it in quotes"),
        ("a.yaml", "- cat\n- 12:30\n", "item 2: .* put it in quotes"),
        ("a.yaml", "- cat\n- 2024-01-01\n", "item 2: .* put it in quotes"),
        ("a.yaml", "- cat\n-\n", "item 2: .*got nothing"),
        ("a.yaml", "clases: [cat, dog]", r"'clases' \(did you mean 'classes'\?\); valid keys: cl"),
        ("a.yaml", "1: [cat, dog]", "unknown keys '1'"),
        ("a.yaml", "templates: ['a {}']", "classes should be"),
        ("a.yaml", "classes: [cat]\ntemplates: [a photo]", "exactly one {}.* got 'a photo'"),
        ("a.yaml", "classes: [cat, dog]\ntemplates: {a: b}", "templates should be a list"),
        ("a.yaml", "- {name: cat, prompt: x}\n- dog", "item 1: .*did you mean 'prompts'"),
        ("a.yaml", "- {parent: x}\n- dog", "item 1: the key 'name' is missing"),
        ("a.yaml", "- {name: cat, parent: [x, y]}\n- dog", "item 1: one of parent should be text"),
        ("a.yaml", "- {name: cat, prompts: ['']}\n- dog", "item 1: prompts holds an empty text"),
        ("a.yaml", "- &a [*a]\n- dog", "item 1: .*got a list"),
        (
            "a.toml",
            "names = ['cat', 'dog']",
            "unknown keys 'names'; valid keys: classes",
        ),
        ("a.toml", "[[classes]]\nname = 3", "item 1: .* put it in quotes"),
        ("a.toml", "[[classes]]\nname = 'cat'", "item 1: 'cat' is the only class"),
        ("a.toml", "[classes]\nname = 'cat'", "classes should be .*got a dict"),
    ],
)
def test_bad_files(tmp_path, name, text, message):
    with pytest.raises(ValueError, match=message):
        read_label_space(write(tmp_path, name, text))


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60), st.sampled_from(["a.txt", "a.json", "a.yaml", "a.toml", "a"]))
def test_any_text_is_read_or_is_a_value_error(tmp_path_factory, text, name):
    path = tmp_path_factory.mktemp("fuzz") / name
    path.write_text(text, encoding="utf-8", errors="ignore")
    try:
        assert len(read_label_space(path)) >= 2
    except ValueError as error:
        assert str(error)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="-:[]{}&*!|>?,#\"' \nab1~", max_size=40))
def test_any_yaml_is_read_or_is_a_value_error(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("fuzz") / "a.yaml"
    path.write_text(text)
    try:
        assert len(read_label_space(path)) >= 2
    except ValueError as error:
        assert str(error)
