"""Tables of encoded images or of paths: parquet, CSV and the Arrow files of save_to_disk."""

import json
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nameonly.sources.tables import choose_column, list_rows

HF_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write_arrow(path: Path, table: pa.Table, rows_per_batch: int = 2, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = pa.ipc.IpcWriteOptions(**options)
    with pa.ipc.new_stream(str(path), table.schema, options=settings) as writer:
        writer.write_table(table, max_chunksize=rows_per_batch)


def save_to_disk(folder: Path, table: pa.Table, n_shards: int = 1) -> None:
    """Write what ``datasets.Dataset.save_to_disk`` writes."""
    per_shard = -(-len(table) // n_shards)
    files = [f"data-{i:05}-of-{n_shards:05}.arrow" for i in range(n_shards)]
    for i, name in enumerate(files):
        write_arrow(folder / name, table.slice(i * per_shard, per_shard))
    state = {"_data_files": [{"filename": name} for name in files], "_fingerprint": "1"}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {}}))


def read_all(path: Path, column: str | None = None) -> list[bytes | str]:
    out: list[bytes | str] = []
    for row, (name, location) in enumerate(list_rows(str(path), column)):
        assert name == f"#{row}"
        try:
            out.append(location.read())
        except OSError as error:
            out.append(str(error))
    return out


@pytest.mark.parametrize("kind", ["binary", "large_binary", "dictionary"])
@pytest.mark.parametrize("rows_per_group", [1, 2, 100])
def test_parquet_of_bytes(tmp_path, kind, rows_per_group):
    values = [b"one", b"two", None, b"", b"five"]
    column = pa.array(values, pa.binary())
    column = column.dictionary_encode() if kind == "dictionary" else column.cast(kind)
    pq.write_table(
        pa.table({"label": [0, 1, 2, 3, 4], "pixels": column}),
        tmp_path / "t.parquet",
        row_group_size=rows_per_group,
    )
    null = "the cell of the table is null or empty"
    assert read_all(tmp_path / "t.parquet") == [b"one", b"two", null, "zero bytes", b"five"]


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_hugging_face_struct_in_parquet_and_arrow(tmp_path, compression):
    (tmp_path / "img").mkdir()
    (tmp_path / "img" / "b.jpg").write_bytes(b"from the file")
    cells = [
        {"bytes": b"one", "path": "a.jpg"},
        {"bytes": None, "path": "img/b.jpg"},
        {"bytes": None, "path": None},
        None,
        {"bytes": b"five", "path": None},
    ]
    table = pa.table({"image": pa.array(cells, HF_IMAGE), "label": range(5)})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=2)
    write_arrow(tmp_path / "t.arrow", table, compression=compression)
    null = "the cell of the table is null or empty"
    for name in ("t.parquet", "t.arrow"):
        assert read_all(tmp_path / name) == [b"one", b"from the file", null, null, b"five"]


def test_arrow_of_strings_and_dictionary_labels(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"a")
    labels = pa.array(["x", "y", "x"]).dictionary_encode()
    table = pa.table({"path": ["a.jpg", "b.jpg", "a.jpg"], "label": labels})
    write_arrow(tmp_path / "t.arrow", table, rows_per_batch=1)
    absent = "no such file (it vanished, or a link points to nothing): b.jpg"
    assert read_all(tmp_path / "t.arrow", "path") == [b"a", absent, b"a"]


@pytest.mark.parametrize("kind", ["string", "large_string", "dictionary"])
def test_parquet_of_paths(tmp_path, kind):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.jpg").write_bytes(b"a")
    absolute = tmp_path / "b.jpg"
    absolute.write_bytes(b"b")
    os.mkfifo(tmp_path / "pipe.jpg")
    cells = pa.array(
        ["deep/a.jpg", str(absolute), None, "deep", "nul\0.jpg", "pipe.jpg", "gone.jpg"]
    )
    cells = cells.dictionary_encode() if kind == "dictionary" else cells.cast(kind)
    pq.write_table(pa.table({"file_name": cells, "label": range(7)}), tmp_path / "t.parquet")
    got = read_all(tmp_path / "t.parquet")
    assert got[:2] == [b"a", b"b"]
    assert "null" in got[2]
    assert "not a regular file" in got[3] and got[3].endswith(": deep")
    assert "not a path" in got[4]
    assert "not a regular file" in got[5]
    assert "no such file" in got[6] and got[6].endswith(": gone.jpg")


def test_csv_of_paths(tmp_path):
    (tmp_path / "a, b.jpg").write_bytes(b"comma")
    (tmp_path / "NA").write_bytes(b"a name, not a gap")
    (tmp_path / 'line\n"break".jpg').write_bytes(b"break")
    (tmp_path / "größe.jpg").write_bytes(b"umlaut")
    (tmp_path / "t.csv").write_text(
        'label,Path,path2\ncat,"a, b.jpg",1\n"do,g",NA,2\n\ncat,"line\n""break"".jpg",3\n'
        "cat,,4\ncat,größe.jpg,5\n",
        encoding="utf-8-sig",
    )
    got = read_all(tmp_path / "t.csv")
    null = "the cell of the table is null or empty"
    assert got == [b"comma", b"a name, not a gap", b"break", null, b"umlaut"]


def test_line_breaks_in_cells_of_a_long_csv(tmp_path):
    """Longer than the blocks in which a CSV is parsed, with breaks where blocks may end."""
    cells = [f"folder-{i}\n" * 20 + ".jpg" for i in range(20_000)]
    (tmp_path / "t.csv").write_text("path\n" + "".join(f'"{cell}"\n' for cell in cells))
    rows = list_rows(str(tmp_path / "t.csv"), None)
    assert [location.cell for _, location in rows] == cells


def test_csv_paths_that_are_not_utf8(tmp_path):
    name = os.fsdecode(b"latin-\xe9.jpg")
    try:
        (tmp_path / name).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (tmp_path / "t.csv").write_bytes(b"path\nlatin-\xe9.jpg\n")
    assert read_all(tmp_path / "t.csv") == [b"x"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"path,label\na.jpg,1,2\n", "Expected 2 columns, got 3"),
        (b"p\xffth,label\na.jpg,1\n", "not readable as a .csv file"),
        (b"", "zero bytes"),
    ],
)
def test_broken_csv(tmp_path, data, message):
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(OSError, match=message):
        list_rows(str(tmp_path / "t.csv"), None)


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
@pytest.mark.parametrize("data", [b"text", b"PAR1" + bytes(50) + b"PAR1", b"\xff" * 4 + bytes(40)])
def test_broken_table(tmp_path, suffix, data):
    path = tmp_path / f"t{suffix}"
    path.write_bytes(data)
    with pytest.raises((OSError, ValueError)) as caught:
        list_rows(str(path), "image")
    assert str(path) in str(caught.value) or "not readable" in str(caught.value)


def test_table_cut_short(tmp_path):
    table = pa.table({"image": [bytes([i]) * 1000 for i in range(50)]})
    for name, write in (("t.parquet", pq.write_table), ("t.arrow", lambda t, p: write_arrow(p, t))):
        write(table, tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(OSError, match="not readable as a"):
            list_rows(str(tmp_path / name), None)


def test_damaged_offset_in_an_arrow_file_is_an_error(tmp_path):
    """Arrow maps the file as it is; following such an offset would end the process."""
    write_arrow(tmp_path / "t.arrow", pa.table({"image": [b"x" * 100] * 4}), rows_per_batch=4)
    data = (tmp_path / "t.arrow").read_bytes()
    offsets = struct.pack("<5i", 0, 100, 200, 300, 400)
    assert data.count(offsets) == 1
    damaged = struct.pack("<5i", 0, 100, 2_000_000_000, 300, 400)
    (tmp_path / "t.arrow").write_bytes(data.replace(offsets, damaged))
    with pytest.raises(OSError, match=r"not readable as a \.arrow file"):
        list_rows(str(tmp_path / "t.arrow"), None)


def test_rewritten_table_is_read_anew(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"image": [b"old", b"older"]}), path)
    rows = list_rows(str(path), None)
    assert [location.read() for _, location in rows] == [b"old", b"older"]
    pq.write_table(pa.table({"image": [b"newest"]}), path)
    assert rows[0][1].read() == b"newest"
    with pytest.raises(OSError, match="has changed"):
        rows[1][1].read()
    pq.write_table(pa.table({"other": [b"newest"]}), path)
    with pytest.raises(OSError, match="has changed"):
        rows[0][1].read()
    path.unlink()
    with pytest.raises(FileNotFoundError):
        rows[0][1].read()


def test_rows_can_be_read_in_any_order_by_many_threads(tmp_path):
    values = [str(i).encode() for i in range(500)]
    pq.write_table(pa.table({"image": values}), tmp_path / "t.parquet", row_group_size=7)
    rows = list_rows(str(tmp_path / "t.parquet"), None)
    backwards = [location for _, location in reversed(rows)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda location: location.read(), backwards)) == values[::-1]


def test_row_groups_without_rows(tmp_path):
    schema = pa.schema([("image", pa.binary())])
    with pq.ParquetWriter(tmp_path / "t.parquet", schema) as writer:
        for values in ([], [b"a", b"b"], [], [], [b"c"], []):
            writer.write_table(pa.table({"image": pa.array(values, pa.binary())}))
    assert read_all(tmp_path / "t.parquet") == [b"a", b"b", b"c"]


def schema(**columns) -> pa.Schema:
    return pa.schema(list(columns.items()))


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (schema(label=pa.int64(), x=pa.binary()), "x"),
        (schema(path=pa.string(), x=HF_IMAGE), "x"),
        (schema(thumb=pa.binary(), image=HF_IMAGE), "image"),
        (schema(name=pa.string(), file_name=pa.string()), "file_name"),
        (schema(Image=pa.string(), label=pa.string()), "Image"),
    ],
)
def test_column_is_guessed(columns, expected):
    assert choose_column(columns, None, "t.parquet") == expected


@pytest.mark.parametrize(
    ("columns", "column", "message"),
    [
        (
            schema(a=pa.binary(), b=HF_IMAGE),
            None,
            r"name it with column.*'a' \(binary\), 'b' \(struct",
        ),
        (schema(path=pa.string(), file=pa.string()), None, "several could be"),
        (schema(label=pa.int64(), name=pa.string()), None, "none is known"),
        (schema(path=pa.int64()), None, "none is known"),
        (schema(image=pa.binary()), "img", "'img' is there 0 times; the columns of 't.parquet'"),
        (schema(image=pa.binary(), label=pa.int64()), "label", "neither bytes .* nor paths"),
        (schema(image=pa.struct([("path", pa.string())])), "image", "neither bytes"),
        (pa.schema([("a", pa.binary()), ("a", pa.string())]), "a", "2 times"),
        (pa.schema([]), None, "none is known"),
    ],
)
def test_unclear_column_lists_the_columns(columns, column, message):
    with pytest.raises(ValueError, match=message):
        choose_column(columns, column, "t.parquet")


def test_no_other_column_is_read(tmp_path):
    """The bytes of the label column are destroyed; a reader that touches them would fail."""
    labels = [f"label-{i}" * 50 for i in range(40)]
    table = pa.table({"label": labels, "image": [bytes([i]) * 100 for i in range(40)]})
    pq.write_table(table, tmp_path / "t.parquet", use_dictionary=False, compression="none")
    write_arrow(tmp_path / "t.arrow", table)
    group = pq.read_metadata(tmp_path / "t.parquet").row_group(0).column(0)
    data = bytearray((tmp_path / "t.parquet").read_bytes())
    data[group.data_page_offset : group.data_page_offset + group.total_compressed_size] = (
        b"\xff" * group.total_compressed_size
    )
    (tmp_path / "t.parquet").write_bytes(data)
    with pytest.raises((OSError, pa.ArrowException)):
        pq.read_table(tmp_path / "t.parquet")
    assert read_all(tmp_path / "t.parquet") == table["image"].to_pylist()
    assert read_all(tmp_path / "t.arrow") == table["image"].to_pylist()
