import csv
import io

import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nameonly.export.csv_table import cell
from nameonly.export.labelled import read_run


def test_pandas_reads_all_facts(new_run, some, exported):
    folder = new_run(some, ("dog", "cat, or so"), abstained=(1,), given=["dog", *[None] * 11])
    place, found = exported(folder, "csv")
    assert found["exported"] == 12 and found["abstained"] == 1
    read = pandas.read_csv(place / "labels.csv", keep_default_na=False, dtype=str)
    run = read_run(folder)
    for got, want in zip(read.to_dict("records"), run.rows(), strict=True):
        for key, value in want.facts().items():
            if key == "unknown_score":
                assert key not in got  # this run does not tell
            elif isinstance(value, float):
                assert np.float32(got[key]) == np.float32(value)
            else:
                assert got[key] == ("" if value is None else str(value))
    assert read["label_index"][1] == "" and set(read["nameonly"]) == {"9.8.7"}
    written = read[["p_dog", "p_cat, or so"]].to_numpy(dtype=np.float32)
    assert np.array_equal(written, run.probs())


@pytest.mark.parametrize("name", ["=1+1.png", "+a.png", "-a.png", "@a.png", "\ta.png", "\ra.png"])
def test_no_file_name_is_a_formula(new_run, pictures_of, exported, name, tmp_path):
    place, _ = exported(new_run({name: pictures_of(0)}, ("=cat", "@dog")), "csv")
    with (place / "labels.csv").open(newline="") as file:
        header, row = list(csv.reader(file))
    got = dict(zip(header, row, strict=True))
    assert (tmp_path / "photos" / got["path"]).is_file()
    texts = {key: v for key, v in got.items() if key not in ("probability", "margin")}
    assert not [v for v in texts.values() if v.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert got["label"].lstrip("'") in ("=cat", "@dog")


def test_numbers_stay_numbers():
    assert cell(-0.25) == "-0.25" and cell(-3) == -3 and cell(None) == ""
    assert cell(["a", "="]) == '["a", "="]' and cell("=a", "path") == "./=a"


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_floats_of_single_precision_are_whole(value):
    assert np.float32(cell(value)) == np.float32(value)


@given(st.text())
def test_texts_come_back(text):
    stream = io.StringIO(newline="")
    csv.writer(stream).writerow([cell(text), "end"])
    stream.seek(0)
    (got, end), *rest = csv.reader(stream)
    assert end == "end" and not rest and got in (text, f"'{text}")
