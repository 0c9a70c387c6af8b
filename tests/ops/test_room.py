import pytest

from nameonly.ops.room import check_room, free_memory


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
