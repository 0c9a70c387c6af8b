import pytest

from nameonly.bench.memory import PEAK_OF_FIT, PEAK_OF_PROCESS, PeakMemory


def process_folder(path, rss=2000, peak=5000):
    (path / "status").write_text(f"Name:\tpython\nVmHWM:\t  {peak} kB\nVmRSS:\t  {rss} kB\n")
    return path


def test_peak_since_it_was_forgotten(tmp_path):
    process_folder(tmp_path)
    memory = PeakMemory(tmp_path)
    assert (tmp_path / "clear_refs").read_text() == "5"  # what makes Linux forget the peak
    assert memory.of == PEAK_OF_FIT and memory.before == pytest.approx(2.048)
    process_folder(tmp_path, peak=7000)
    assert memory.peak() == pytest.approx(7.168)


def test_where_the_peak_cannot_be_forgotten_it_is_the_processs_own(tmp_path):
    memory = PeakMemory(tmp_path / "none")
    assert memory.of == PEAK_OF_PROCESS and memory.before is None
    assert 10 < memory.peak() < 1e6


def test_an_allocation_shows():
    memory = PeakMemory()
    block = bytearray(b"x" * 200_000_000)
    del block
    peak = memory.peak()
    if memory.of == PEAK_OF_FIT:
        assert 190 < peak - memory.before < 500
        again = PeakMemory()
        assert again.peak() < peak - 100
    else:
        assert peak > 200
