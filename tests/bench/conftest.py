import pytest

HEAD = """
title = "Trial"
backbone = "tiny"
device = "cpu"
threads = 1
seeds = [0, 1]
settings = ["UL"]
"""
DATA = """
[[data]]
name = "digits"
half = "development"
"""
METHODS = """
[[method]]
label = "zero-shot"
recipe = "zero_shot"

[[method]]
label = "UP"
recipe = "up_adapter"
set = { "adapters.steps" = 5 }
"""


@pytest.fixture
def write_plan(tmp_path):
    """Write a plan; what is not said is the head, the digits' half and two methods above."""

    def write(head=HEAD, data=DATA, methods=METHODS, name="plan.toml"):
        path = tmp_path / name
        path.write_text(head + data + methods)
        return path

    return write


@pytest.fixture(scope="session")
def features_cache(tmp_path_factory):
    """One store of features for all tests: the digits are encoded once."""
    return tmp_path_factory.mktemp("features")


@pytest.fixture
def bench(tmp_path, features_cache):
    """Prepare a plan in a folder of this test."""
    from nameonly.bench.execute import Bench  # after the jaxtyping hook

    def prepare(plan, out=None, **options):
        return Bench(plan, out or tmp_path / "out", cache=features_cache, **options)

    return prepare
