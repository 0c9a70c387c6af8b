"""From a data set's own keys to readable names in a fixed order."""

import numpy as np
import pytest
from miniatures import WORDS
from scipy.io import savemat

from nameonly.datasets.class_names import ClassNames
from nameonly.datasets.layouts import Folder
from nameonly.datasets.reading import open_dataset


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path, tmp_path)


def test_names_in_the_description(folder):
    assert ClassNames(names=("a_b", "c")).resolve(folder, ()) == {"a_b": "a b", "c": "c"}
    assert ClassNames(names=("x", "y"), first=1).resolve(folder, {"2"}) == {"1": "x", "2": "y"}
    assert ClassNames(names={"K": "x", "A": "y"}).resolve(folder, ()) == {"K": "x", "A": "y"}


def test_names_of_what_was_found(folder):
    found = {"b_c", "Z", "a", "q"}
    assert list(ClassNames().resolve(folder, found)) == ["Z", "a", "b_c", "q"]
    named = ClassNames(order="casefold", renamed={"q": "queue"}).resolve(folder, found)
    assert named == {"a": "a", "b_c": "b c", "q": "queue", "Z": "Z"}
    assert list(named) == ["a", "b_c", "q", "Z"]


def test_names_from_the_first_file_that_is_there(folder):
    rule = ClassNames(files=("a/one.txt", "two.txt"), pattern=r"(?P<key>\d+) (?P<name>.+)")
    assert rule.missing(folder) == ["a/one.txt or two.txt"]
    (folder.root / "two.txt").write_text("prose\n2 b\n1 a\n")
    assert rule.missing(folder) == []
    assert list(rule.resolve(folder, ()).items()) == [("2", "b"), ("1", "a")]
    (folder.root / "a").mkdir()
    (folder.root / "a/one.txt").write_text("prose\n")
    with pytest.raises(ValueError, match=r"a/one.txt has no line of the form"):
        rule.resolve(folder, ())


@pytest.mark.parametrize(
    ("words", "key", "name"),
    [
        ("camel", "ApplyEyeMakeup", "Apply Eye Makeup"),
        ("camel", "TaiChi", "Tai Chi"),
        ("camel", "lower", "lower"),
        ("path", "/a/abbey", "abbey"),
        ("path", "/a/apartment_building/outdoor", "outdoor apartment building"),
        ("synonym", "tench, Tinca tinca", "tench"),
        ("", "  odd __ spaces_", "odd spaces"),
    ],
)
def test_words(folder, words, key, name):
    assert ClassNames(words=words).resolve(folder, {key}) == {key: name}


def test_classes_without_images_are_left_out_of_subsets_alone(folder):
    names = {"b": "bee", "a": "ant", "c": "cat"}
    rule = {"names": names, "order": "plain"}
    assert ClassNames(**rule, only_found=True).resolve(folder, {"c", "a", "z"}) == {
        "a": "ant",
        "c": "cat",
    }
    assert list(ClassNames(**rule).resolve(folder, {"c"})) == ["a", "b", "c"]
    assert ClassNames(**rule, first=0).resolve(folder, {"2"}) == {
        "0": "ant",
        "1": "bee",
        "2": "cat",
    }


@pytest.mark.parametrize("source", ["synset_words", "map_clsloc", "meta"])
def test_imagenets_names_are_the_same_from_every_file(build, source):
    description, m = build("imagenet")
    before = open_dataset(description, m.root).label_space.class_names
    (m.root / "LOC_synset_mapping.txt").unlink()
    items = list(WORDS.items())[::-1]
    if source == "synset_words":
        m.text("synset_words.txt", *(f"{wnid} {words}" for wnid, (words, _) in items))
    elif source == "map_clsloc":
        firsts = [(wnid, words.split(",")[0].replace(" ", "_")) for wnid, (words, _) in items]
        m.text("map_clsloc.txt", *(f"{w} {i} {name}" for i, (w, name) in enumerate(firsts, 1)))
    else:
        records = [(i, w, words) for i, (w, (words, _)) in enumerate(items, 1)]
        records.append((1001, "n00001740", "entity"))
        dtype = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object)]
        place = m.root / "ILSVRC2012_devkit_t12/data/meta.mat"
        place.parent.mkdir(parents=True)
        savemat(place, {"synsets": np.array([records], dtype).T})
    assert open_dataset(description, m.root).label_space.class_names == before
    assert before == tuple(name for _, name in WORDS.values())
