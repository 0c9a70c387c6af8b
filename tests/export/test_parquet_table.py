import pyarrow.parquet as pq

from nameonly.export.labelled import read_run


def test_it_has_all_that_the_run_has_and_who_labelled(new_run, some, exported):
    folder = new_run(some, ("dog", "cat"), abstained=(1,))
    place, found = exported(folder, "parquet")
    got, run = pq.read_table(place / "labels.parquet"), read_run(folder)
    assert found["exported"] == len(got) == 12
    for name in set(run.table.column_names) - {"method"}:
        assert got[name].equals(run.table[name]), name
    assert got.column_names[:4] == ["path", "id", "label", "label_index"]
    assert got.column_names[-5:] == ["recipe", "backbone", "nameonly", "p_dog", "p_cat"]
    named = [None if i is None else ("dog", "cat")[i] for i in got["label_index"].to_pylist()]
    assert named == got["label"].to_pylist() and named[1] is None
    assert set(got["recipe"].to_pylist()) == {"zero_shot"}
    assert set(got["backbone"].to_pylist()) == {"tiny"}


def test_less_certain_rows_are_left_out_and_images_need_not_be_there(
    new_run, some, exported, tmp_path
):
    folder = new_run(some)
    (tmp_path / "photos").rename(tmp_path / "gone")
    place, found = exported(folder, "parquet", min_confidence=0.5)
    got = pq.read_table(place / "labels.parquet")["confidence"].to_pylist()
    want = [row.confidence for row in read_run(folder).rows() if row.confidence >= 0.5]
    assert 0 < len(got) < 12 and got == want and found["below"] == 12 - len(got)
