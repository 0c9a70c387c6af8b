import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from nameonly.serve import batching
from nameonly.serve.batching import Batcher, Batching, Failure, Full, Stopped


class Counter:
    """What a batcher tells."""

    def __init__(self):
        self.reads, self.batches, self.failures = 0, [], 0

    def read(self, seconds):
        self.reads += 1

    def ran(self, waits, seconds):
        self.batches.append(len(waits))

    def model_failed(self):
        self.failures += 1


class Doubling:
    """Numbers as images: reads digits, gives twice the number."""

    def __init__(self, fails=lambda inputs: None):
        self.fails = fails
        self.sound = True

    def read(self, data):
        return int(data)

    def score(self, inputs):
        error = self.fails(inputs)
        if error is not None:
            raise error
        return [2 * i for i in inputs]

    def probe(self):
        if not self.sound:
            raise RuntimeError("the device is gone")


@pytest.fixture
def made():
    batchers = []

    def make(model, **settings):
        batchers.append(Batcher(model, Batching(**settings), Counter()))
        return batchers[-1], batchers[-1]._observer

    yield make
    for batcher in batchers:
        batcher.stop(1.0)


def numbers(*values):
    return [str(i).encode() for i in values]


def test_a_request_has_its_results_in_order(made):
    batcher, seen = made(Doubling(), batch_size=4, threads=3)
    assert batcher.submit(numbers(*range(23))).result(5) == [2 * i for i in range(23)]
    assert sum(seen.batches) == 23 and max(seen.batches) <= 4 and batcher.under_way == 0


def test_many_requests_share_batches_and_none_gets_the_results_of_another(made):
    batcher, seen = made(Doubling(), batch_size=16, max_wait=0.02, capacity=10_000)

    def ask(first):
        return batcher.submit(numbers(*range(first, first + 1 + first % 5))).result(20)

    with ThreadPoolExecutor(32) as pool:
        for first, got in enumerate(pool.map(ask, range(300))):
            assert got == [2 * i for i in range(first, first + 1 + first % 5)]
    assert sum(seen.batches) == sum(1 + i % 5 for i in range(300))
    assert len(seen.batches) < 200 and max(seen.batches) <= 16


def test_an_image_waits_for_others_no_longer_than_it_is_told(made):
    batcher, seen = made(Doubling(), batch_size=8, max_wait=0.3)
    begun = time.perf_counter()
    answers = [batcher.submit(numbers(i)) for i in range(3)]
    wait(answers)
    assert 0.25 < time.perf_counter() - begun < 3 and seen.batches == [3]
    begun = time.perf_counter()
    batcher.submit(numbers(*range(8))).result(5)
    assert time.perf_counter() - begun < 0.25 and seen.batches == [3, 8]


def test_more_than_there_is_room_for_is_refused_whole(made):
    free = threading.Event()
    batcher, _ = made(Doubling(lambda _: free.wait(10) and None), capacity=4)
    first = batcher.submit(numbers(1, 2, 3))
    with pytest.raises(Full):
        batcher.submit(numbers(4, 5))
    second = batcher.submit(numbers(4))
    assert batcher.under_way == 4
    free.set()
    assert first.result(5) == [2, 4, 6] and second.result(5) == [8]
    assert batcher.submit(numbers(1, 2, 3, 4)).result(5) == [2, 4, 6, 8]


def test_what_nobody_waits_for_is_not_worked_on(made):
    free, scored = threading.Event(), []

    def hold(inputs):
        scored.extend(inputs)
        free.wait(10)

    batcher, _ = made(Doubling(hold), batch_size=1, max_wait=0.0)
    first, second, third = (batcher.submit(numbers(i)) for i in (1, 2, 3))
    while not scored:
        time.sleep(0.001)
    second.cancel()
    free.set()
    assert first.result(5) == [2] and third.result(5) == [6]
    assert scored == [1, 3] and batcher.under_way == 0


def test_an_image_that_cannot_be_read_fails_alone(made):
    batcher, seen = made(Doubling())
    got = batcher.submit([b"1", b"one", b"3"]).result(5)
    assert (got[0], got[2]) == (2, 6) and not got[1].of_model
    assert "invalid literal" in got[1].reason and seen.failures == 0


def test_what_is_fetched_is_read_like_the_rest_and_fails_alone(made):
    def gone():
        raise OSError("no such host")

    def strange():
        raise KeyError("a secret")

    batcher, _ = made(Doubling())
    got = batcher.submit([b"1", lambda: b"2", gone, strange]).result(5)
    assert got[:2] == [2, 4]
    assert got[2] == Failure("no such host") and got[3] == Failure("could not be read: KeyError")


def test_slow_fetches_hold_up_no_other_image(made):
    free = threading.Event()
    batcher, _ = made(Doubling(), threads=1)
    slow = [batcher.submit([lambda: free.wait(10) and b"5"]) for _ in range(20)]
    assert batcher.submit(numbers(1)).result(5) == [2]
    free.set()
    assert [answer.result(5) for answer in slow] == [[10]] * 20


@pytest.mark.parametrize("error", [FloatingPointError("not finite"), ValueError("x"), KeyError()])
def test_one_image_that_the_model_cannot_score_spoils_no_other(made, error):
    batcher, seen = made(Doubling(lambda inputs: error if 7 in inputs else None))
    got = batcher.submit(numbers(*range(16))).result(5)
    assert [i for i, one in enumerate(got) if isinstance(one, Failure)] == [7]
    assert not got[7].of_model and "the model cannot score this image" in got[7].reason
    assert got[8] == 16 and seen.failures > 1 and not batcher.broken
    assert batcher.submit(numbers(3)).result(5) == [6]


def test_batches_that_do_not_fit_the_memory_are_halved(made):
    model = Doubling(lambda inputs: MemoryError() if len(inputs) > 3 else None)
    batcher, seen = made(model, max_wait=0.2)
    assert batcher.submit(numbers(*range(16))).result(5) == [2 * i for i in range(16)]
    assert max(seen.batches) <= 3


def test_a_model_that_fails_on_what_it_knows_is_at_fault_and_may_recover(made, monkeypatch):
    monkeypatch.setattr(batching, "SECONDS_BETWEEN_PROBES", 0.02)
    model = Doubling(lambda _: None if model.sound else RuntimeError("the device is gone"))
    batcher, seen = made(model)
    model.sound = False
    got = batcher.submit(numbers(*range(16))).result(5)
    assert all(one.of_model for one in got) and seen.failures <= 16 and batcher.broken
    model.sound = True
    ends = time.monotonic() + 5
    while batcher.broken:
        assert time.monotonic() < ends
        time.sleep(0.01)
    assert batcher.submit(numbers(1)).result(5) == [2]


def test_a_model_that_gives_too_few_results_does_not_end_the_thread(made):
    model = Doubling()
    model.score = lambda inputs: [2 * i for i in inputs][:1]
    batcher, _ = made(model)
    got = batcher.submit(numbers(1, 2, 3)).result(5)
    assert all(isinstance(one, Failure) and one.of_model for one in got[1:])
    del model.score
    assert batcher.submit(numbers(1, 2)).result(5) == [2, 4] and batcher.under_way == 0


def test_stop_answers_what_runs_and_takes_no_more(made):
    batcher, _ = made(Doubling(lambda _: time.sleep(0.05)), batch_size=2)
    answer = batcher.submit(numbers(*range(8)))
    batcher.stop()
    assert answer.result(0) == [2 * i for i in range(8)] and not batcher.running
    with pytest.raises(Stopped):
        batcher.submit(numbers(1))


def test_a_model_that_hangs_does_not_hold_up_the_end(made):
    free = threading.Event()
    batcher, _ = made(Doubling(lambda _: free.wait(20) and None))
    batcher.submit(numbers(1))
    begun = time.monotonic()
    batcher.stop(0.2)
    assert time.monotonic() - begun < 5
    free.set()
