import pytest

from nameonly.ops.room import check_disk, check_room, free_disk, free_memory, large_matrix


def test_what_fits_is_let_through_and_what_does_not_is_told_in_bytes():
    check_room(1_000, 10, 5, 200_000)
    with pytest.raises(ValueError, match=r"1,000 images x 10 classes need about 200,000 bytes"):
        check_room(1_000, 10, 5, 199_999)
    with pytest.raises(ValueError, match=r"199,999 are free.* about 999 fit"):
        check_room(1_000, 10, 5, 199_999)
    check_room(10**9, 10**9, 5, None)


def test_free_memory_is_read_where_the_system_tells_it(tmp_path):
    path = tmp_path / "meminfo"
    assert free_memory(path) is None
    path.write_text("MemTotal:  100 kB\nMemFree:  1 kB\nMemAvailable:   64 kB\n")
    assert free_memory(path) == 65_536
    path.write_text("MemTotal:  100 kB\n")
    assert free_memory(path) is None


def test_probabilities_need_room_on_the_disk_or_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("nameonly.ops.room.free_disk", lambda _: 39_999)
    with pytest.raises(ValueError, match=r"1,000 images x 10 classes need 40,000 bytes .* 39,999"):
        check_disk(1_000, 10, tmp_path, 100)
    check_disk(1_000, 10, tmp_path, 40_000)
    check_disk(1_000, 10, tmp_path, None)
    monkeypatch.setattr("nameonly.ops.room.free_disk", lambda _: 40_000)
    check_disk(1_000, 10, tmp_path, 100)


def test_the_disk_of_a_folder_that_is_not_there_yet_is_that_of_its_parent(tmp_path):
    there, missing = free_disk(tmp_path), free_disk(tmp_path / "a" / "b")
    assert missing == pytest.approx(there, rel=0.1) and missing > 0


def test_a_matrix_lies_in_a_file_from_so_many_bytes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("nameonly.ops.room.MAPPED_BYTES", 4 * 12)
    assert large_matrix((3, 4), tmp_path / "small").shape == (3, 4)
    assert not (tmp_path / "small").exists()
    large = large_matrix((13, 1), tmp_path / "large")
    assert (tmp_path / "large").is_dir() and large.shape == (13, 1)
    large[:] = 2.0
    assert large.sum() == 26
