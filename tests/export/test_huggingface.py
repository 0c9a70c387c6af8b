import datasets
import numpy as np
import pytest

from nameonly.export import huggingface
from nameonly.export.labelled import read_run

NASTY = ("../x", "naïve \U0001f600", 'a"b', "<script>")


def load(place, tmp_path):
    return datasets.load_dataset(str(place), cache_dir=str(tmp_path / "hf"))["train"]


def test_load_dataset_reads_it(new_run, some, exported, tmp_path):
    folder = new_run(some, NASTY, abstained=(2,), given=[NASTY[1], *[None] * 11])
    place, found = exported(folder, "huggingface")
    assert found["exported"] == 12
    read = load(place, tmp_path)
    assert isinstance(read.features["image"], datasets.Image)
    assert read.features["label"].names == list(NASTY)
    probs = read_run(folder).probs()
    for n, (got, row) in enumerate(zip(read, read_run(folder).rows(), strict=True)):
        label = None if row.label is None else NASTY.index(row.label)
        assert got["label"] == label
        assert got["probability"] == row.probability and got["margin"] == row.margin
        assert (got["confidence"], got["suspected_unknown"]) == (
            row.confidence,
            row.suspected_unknown,
        )
        for key in ("runner_up", "zero_shot_label", "given_label", "path", "id"):
            assert got[key] == getattr(row, key)
        assert np.array_equal(np.float32(got["probs"]), probs[n])
        assert (got["recipe"], got["backbone"], got["nameonly"]) == ("zero_shot", "tiny", "9.8.7")
    raw = read.cast_column("image", datasets.Image(decode=False))
    assert [row["image"]["bytes"] for row in raw] == list(some.values())
    assert read[0]["image"].size == (9, 6)


def test_large_sets_are_several_files_of_small_groups(
    new_run, some, exported, tmp_path, monkeypatch
):
    monkeypatch.setattr(huggingface, "GROUP_ROWS", 3)
    monkeypatch.setattr(huggingface, "FILE_BYTES", 1)
    place, _ = exported(new_run(some), "huggingface")
    assert len(list((place / "data").iterdir())) == 4
    assert load(place, tmp_path)["path"][:] == list(some)


def test_bad_images_are_left_out(new_run, some, exported, tmp_path):
    folder = new_run(some)
    (tmp_path / "photos" / "04.png").unlink()
    place, found = exported(folder, "huggingface")
    assert found["exported"] == 11 and [b["path"] for b in found["unreadable"]] == ["04.png"]
    assert "04.png" not in load(place, tmp_path)["path"][:]


def test_the_card_says_what_labelled(new_run, some, exported):
    place, _ = exported(new_run(some), "huggingface")
    card = (place / "README.md").read_text()
    assert card.startswith("---\ntask_categories:") and "Accuracy was not measured" in card
    assert "- recipe: `zero_shot`" in card and "0. `cat`\n1. `dog`" in card


def test_links_are_refused(new_run, some, exported):
    with pytest.raises(ValueError, match="--link does not go with huggingface"):
        exported(new_run(some), "huggingface", link=True)
