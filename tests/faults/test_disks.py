"""A disk that fills up while a run writes, and one that takes nothing at all."""

import errno

import pytest

from nameonly import encoding
from nameonly.jobs import label, predict
from nameonly.tiny.digits import CLASS_NAMES

NO_ROOM = (errno.ENOSPC, errno.EFBIG)


def says_no_room(error):
    causes = [error, error.__cause__, error.__context__]
    return any(getattr(cause, "errno", None) in NO_ROOM for cause in causes) or any(
        words in str(error) for words in ("No space left", "File too large")
    )


# where the disk is full: at the log, in the labels, in the classifier, in the report
@pytest.mark.parametrize("kilobytes", [4, 24, 48, 120])
def test_a_full_disk_is_one_error_and_leaves_no_half_run(
    photos, undisturbed, tiny, a_small_disk, tmp_path, kilobytes
):
    options = {"backbone": tiny, "cache": tmp_path / "cache"}
    with a_small_disk(kilobytes) as disk:
        # safetensors has an error of its own
        with pytest.raises(Exception) as error:
            label(photos, CLASS_NAMES, out=disk / "out", **options)
        assert says_no_room(error.value), error.value
        assert list(disk.iterdir()) == []
    run = label(photos, CLASS_NAMES, out=tmp_path / "out", **options)
    assert run.table.equals(undisturbed[0]) and run.summary["counts"]["encoded_now"] == 0


@pytest.mark.parametrize("kilobytes", [0, 8, 16])
def test_a_cache_that_fills_up_costs_nothing_that_is_in_it(
    photos, undisturbed, tiny, a_small_disk, tmp_path, monkeypatch, kilobytes
):
    monkeypatch.setattr(encoding, "ROWS_PER_SHARD", 16)
    with a_small_disk(kilobytes or 4) as disk:
        if not kilobytes:
            (disk / "filler").write_bytes(bytes(4096 // 8))
        with pytest.raises(OSError) as error:
            label(photos, CLASS_NAMES, backbone=tiny, cache=disk / "cache", out=tmp_path / "out")
        assert says_no_room(error.value), error.value
        assert not (tmp_path / "out").exists()
    run = label(photos, CLASS_NAMES, backbone=tiny, cache=tmp_path / "cache", out=tmp_path / "out")
    assert run.table.equals(undisturbed[0]) and run.summary["repairs"] == []


def test_a_folder_that_takes_nothing_is_told_and_no_work_is_lost(
    photos, undisturbed, tiny, a_closed_folder, tmp_path
):
    kept = {"backbone": tiny, "cache": tmp_path / "cache"}
    made = label(photos, CLASS_NAMES, out=tmp_path / "out", **kept)
    with a_closed_folder() as folder:
        for work in (
            lambda: label(photos, CLASS_NAMES, out=folder / "out", **kept),
            lambda: predict(tmp_path / "out", photos, out=folder / "out"),
        ):
            with pytest.raises(OSError) as error:
                work()
            assert error.value.errno in (errno.EROFS, errno.EACCES) and str(folder) in str(
                error.value
            )
        with pytest.raises(OSError):
            label(photos, CLASS_NAMES, backbone=tiny, cache=folder / "cache")
    assert made.table.equals(undisturbed[0])
