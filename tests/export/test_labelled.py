import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nameonly.export.labelled import find_images, read_run


def test_rows_have_all_that_the_table_has(new_run, some):
    given = ["cat", "dog", *[None] * 10]
    run = read_run(new_run(some, abstained=(3,), given=given))
    table = pq.read_table(run.folder / "labels.parquet").to_pylist()
    rows = list(run.rows())
    assert len(run) == len(rows) == 12 and run.n_abstained == 1
    for row, want in zip(rows, table, strict=True):
        assert row.facts() == {key: want.get(key) for key in row.facts()}
    assert {row.unknown_score for row in rows} == {None}
    assert {row.suspected_unknown for row in rows} == {True, False}
    assert rows[3].label is None and rows[1].given_label == "dog"
    assert run.provenance == {"recipe": "zero_shot", "backbone": "tiny", "nameonly": "9.8.7"}
    assert run.model_version == "nameonly 9.8.7 zero_shot tiny"
    assert len(run.labelled()) == 11 and run.labelled().n_abstained == 0


def test_a_run_of_predict_has_no_given_labels(new_run, some):
    run = read_run(new_run(some))
    assert {row.given_label for row in run.rows()} == {None}


def test_less_certain_rows_go(new_run, some):
    run = read_run(new_run(some))
    values = sorted(row.confidence for row in run.rows())
    kept = run.at_least(values[4])
    assert len(kept) == 8 and min(row.confidence for row in kept.rows()) == values[4]
    older = replace(run, table=run.table.drop_columns(["confidence"]))
    values = sorted(row.probability for row in older.rows())
    assert len(older.at_least(values[4])) == 8
    assert len(run.at_least(0.0)) == 12 and len(run.at_least(1.0)) == 0


def test_probabilities_follow_the_classes(new_run, some):
    run = read_run(new_run(some, ("cat", "dog", "cow")))
    assert run.has_all_probs and run.probs().shape == (12, 3)
    assert run.probs()[:, 2].tolist() == run.table["p_cow"].to_pylist()


def test_of_many_classes_the_rest_is_spread(new_run, some):
    names = tuple("abcdefgh")
    folder = new_run(some, names)
    table = pq.read_table(folder / "labels.parquet")
    probs = np.stack([table[f"p_{n}"].to_numpy() for n in names], axis=1)
    top = probs.argsort(axis=1)[:, ::-1][:, :5]
    table = table.drop_columns([f"p_{n}" for n in names])
    flat = pa.array([names[j] for j in top.ravel()])
    table = table.append_column("top_labels", pa.FixedSizeListArray.from_arrays(flat, 5))
    flat = pa.array(np.take_along_axis(probs, top, axis=1).ravel())
    table = table.append_column("top_probabilities", pa.FixedSizeListArray.from_arrays(flat, 5))
    pq.write_table(table, folder / "labels.parquet")
    run = read_run(folder)
    found = run.probs()
    assert not run.has_all_probs and np.allclose(found.sum(axis=1), 1)
    assert np.array_equal(np.take_along_axis(found, top, 1), np.take_along_axis(probs, top, 1))
    rest = np.sort(found, axis=1)[:, :3]
    assert np.allclose(rest, rest[:, :1]) and (rest > 0).all()


def test_what_is_no_run_is_told(new_run, some, tmp_path):
    with pytest.raises(ValueError, match=r"holds no run: expected labels\.parquet and run\.json"):
        read_run(tmp_path)
    folder = new_run(some, given=["cow", *[None] * 11])
    with pytest.raises(ValueError, match=r"no whole run.*\['cow'\] are none of the classes"):
        read_run(folder)
    facts = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(facts | {"classes": ["cow", "dog"]}))
    with pytest.raises(ValueError, match=r"\['cat'\] are none of"):
        read_run(folder)
    del facts["classes"]
    (folder / "run.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError, match="no whole run"):
        read_run(folder)
    pq.write_table(pa.table({"path": ["a"]}), folder / "labels.parquet")
    with pytest.raises(ValueError, match="no whole run"):
        read_run(folder)


def test_images_are_found_where_they_lie_now(new_run, some, tmp_path):
    run = read_run(new_run(some))
    assert len(find_images(run)[0]) == 12
    (tmp_path / "photos").rename(tmp_path / "moved")
    with pytest.raises(ValueError, match=r"are not there .* name them with --images"):
        find_images(run)
    assert len(find_images(run, [str(tmp_path / "moved")])[0]) == 12


def test_other_images_are_refused(new_run, some, pictures_of, tmp_path):
    run = read_run(new_run(some))
    (tmp_path / "other.png").write_bytes(pictures_of(99))
    with pytest.raises(ValueError, match="none of the 1 images is one that"):
        find_images(run, tmp_path / "other.png")


def test_features_of_ones_own_have_no_images(new_run, some):
    folder = new_run(some)
    facts = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(facts | {"input": "features.npz"}))
    with pytest.raises(ValueError, match="which hold no images"):
        find_images(read_run(folder))


def test_the_column_is_the_runs_where_the_images_lie_as_they_lay(new_run, some, tmp_path):
    cells = pa.array([{"bytes": data, "path": None} for data in some.values()])
    table = pa.table({"a": cells, "b": cells})
    pq.write_table(table, tmp_path / "t.parquet")
    run = read_run(new_run({}, spec=tmp_path / "t.parquet", column="b"))
    assert len(find_images(run)[0]) == 12
    with pytest.raises(ValueError, match="which column"):
        find_images(run, tmp_path / "t.parquet")
    assert len(find_images(run, tmp_path / "t.parquet", "a")[0]) == 12
