"""Damaging bytes by rule, and counting what became of them.

``NAMEONLY_FUZZ_EXAMPLES`` sets the examples a test, ``NAMEONLY_FUZZ_COUNTS`` a folder for counts.
"""

import json
import os
import resource
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

# the longest that one broken input may be looked at, and how far it may raise the peak of memory
SECONDS, MEGABYTES = 20, 256


def fuzzed(quick):
    """Return the settings of a test: the same examples each time, ``quick`` of them in CI."""
    return settings(
        max_examples=int(os.environ.get("NAMEONLY_FUZZ_EXAMPLES", quick)),
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


@dataclass(frozen=True)
class Damage:
    """Bytes to overwrite, to take away and to put in; places are shares of the length."""

    patches: tuple[tuple[float, int], ...]
    cut: float
    doubled: tuple[float, float] | None
    put_in: tuple[float, bytes]

    def of(self, data: bytes) -> bytes:
        found = bytearray(data)
        for place, value in self.patches:
            found[int(place * (len(found) - 1))] = value
        if self.doubled is not None:
            start, end = sorted(int(place * len(found)) for place in self.doubled)
            found[end:end] = found[start : min(end, start + 4096)]
        place, extra = self.put_in
        where = int(place * len(found))
        found[where:where] = extra
        return bytes(found[: int(self.cut * len(found))])


_share = st.floats(0, 1)
# headers stand in front: there damage goes deepest
_place = st.one_of(_share, st.floats(0, 0.05))
_byte = st.one_of(st.integers(0, 255), st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
damages = st.builds(
    Damage,
    st.lists(st.tuples(_place, _byte), max_size=8).map(tuple),
    st.one_of(st.just(1.0), st.just(1.0), _share),
    st.none() | st.tuples(_share, _share),
    st.tuples(_share, st.binary(max_size=16) | st.just(b"")),
)
# what a field of JSON may be in place of what it is
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)


def places_of(data, path=()):
    """Yield the path of every value in plain data."""
    children = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in children:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places_of(value, (*path, key))


def replaced(data, path, value):
    """Return plain data with the value at a path replaced; ``...`` takes it away."""
    copy = json.loads(json.dumps(data))
    *way, last = path
    inner = copy
    for key in way:
        inner = inner[key]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return copy


def peak_megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@dataclass
class Tally:
    """What became of the broken inputs of one kind.

    Attributes:
        input: The kind.
        refusals: What a clear refusal raises.
        slowest: Seconds that one of them took, at most.
        grew: Megabytes by which one of them raised the process's peak, at most.
    """

    input: str
    refusals: tuple[type[Exception], ...] = (ValueError,)
    tried: int = 0
    read: int = 0
    refused: int = 0
    slowest: float = 0.0
    grew: float = 0.0

    def attempt(self, work):
        """Do what may be refused in one way only, in bounded time and memory; None where it was."""
        self.tried += 1
        begun, before = time.perf_counter(), peak_megabytes()
        try:
            found = work()
        except self.refusals as error:
            assert str(error).strip(), "a refusal must say why"
            self.refused += 1
            found = None
        else:
            self.read += 1
        took = time.perf_counter() - begun
        grew = peak_megabytes() - before
        self.slowest, self.grew = max(self.slowest, took), max(self.grew, grew)
        assert took < SECONDS, f"{took:.1f} s for one input"
        assert grew < MEGABYTES, f"{grew:.0f} MB for one input"
        return found

    def write(self):
        if folder := os.environ.get("NAMEONLY_FUZZ_COUNTS"):
            facts = {k: v for k, v in asdict(self).items() if k != "refusals"}
            name = self.input.replace(" ", "-").replace("/", "-")
            (Path(folder) / f"{name}.json").write_text(json.dumps(facts))
