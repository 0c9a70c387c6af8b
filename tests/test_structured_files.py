import pytest

from nameonly.structured_files import read_structured, read_text, shown


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"a": [1, "x"]}'),
        ("a.yaml", "a: [1, x]"),
        ("a.YML", "a:\n- 1\n- x"),
        ("a.toml", "a = [1, 'x']"),
    ],
)
def test_all_formats_give_the_same_data(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_structured(tmp_path / name) == {"a": [1, "x"]}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '[\n "cat",\n dog]', "line 3, column 2"),
        ("a.json", '{"cat": 1, "cat": 2}', "'cat' is there twice"),
        ("a.json", "[" * 100_000, "nested too deeply"),
        ("a.json", "1" * 5000, "not valid JSON"),
        ("a.yaml", "- cat\n- [dog", "line 2, column"),
        ("a.yaml", "cat: a\ndog: b\ncat: c", "line 3: the key 'cat' is there twice"),
        ("a.yaml", "- name: cat\n  name: dog", "line 2: the key 'name' is there twice"),
        ("a.yaml", "!!python/object/apply:os.getcwd []", "line 1, column 1"),
        ("a.yaml", "- 2024-99-99", "not valid YAML"),
        ("a.yaml", "- !!bool maybe", "not valid YAML"),
        ("a.yaml", "- !!timestamp now", "not valid YAML"),
        ("a.yaml", "- !!int ''", "not valid YAML"),
        ("a.yaml", "a: 1\n---\nb: 2", "line 2, column 1"),
        ("a.yaml", "- a\x00b", "not valid YAML"),
        ("a.yaml", "? [a]\n: b", "line 1"),
        ("a.toml", "a = [1\nb = 2", "line 2, column"),
        ("a.toml", "a = 1\na = 2", "Cannot overwrite a value"),
        ("a.toml", "", "is empty"),
    ],
)
def test_broken_files_are_one_value_error(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_structured(tmp_path / name)
    assert name in str(caught.value) and caught.value.__context__ is None


def test_aliases_neither_explode_nor_hang(tmp_path):
    levels = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60)]
    (tmp_path / "a.yaml").write_text("\n".join([*levels, "loop: &loop [*loop]"]))
    assert len(read_structured(tmp_path / "a.yaml")) == 61


def test_text_with_byte_order_mark_and_in_other_encodings(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffcafé".encode())
    assert read_text(path) == "café"
    path.write_bytes("tea\ncafé".encode("latin-1"))
    with pytest.raises(ValueError, match="line 2: byte 0xe9 is not UTF-8"):
        read_text(path)
    path.write_bytes(b" \r\n")
    with pytest.raises(ValueError, match="is empty"):
        read_text(path)
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        read_text(tmp_path / "b.txt")


def test_long_values_are_cut():
    assert shown("cat") == "'cat'"
    assert len(shown("x" * 500)) == 80
