from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from nameonly.bench.data import BenchData, open_data
from nameonly.bench.draws import draw
from nameonly.bench.plan import DataPlan, read_plan
from nameonly.bench.runs import all_runs
from nameonly.datasets.packed import MemoryLocation
from nameonly.datasets.reading import Split, open_dataset
from nameonly.evaluation.settings import long_tailed, seen_classes, semi_supervised
from nameonly.tiny.digits import halves
from nameonly.types import ImageSet, LabelSpace


def image_set(ids):
    sources = tuple(f"{i}" for i in range(len(ids)))
    return ImageSet(sources, tuple(ids), tuple(MemoryLocation(b"") for _ in ids))


@cache
def opened():
    return open_dataset("digits")


def bundled(half=None):
    """The digits, listed once for all tests; what a test changes is its own."""
    digits = replace(opened())
    return BenchData(DataPlan("digits", half=half), digits, digits)


def small(pool, test=(("t", 0),), plan=None, scored=None, adapted=None):
    """A data set of hand-made (id, class) pairs."""
    digits = replace(opened())
    data = BenchData(plan or DataPlan("digits"), scored or digits, adapted or digits)
    for target, name, pairs in ((data.adapted, "train", pool), (data.scored, "test", test)):
        ids, y = zip(*pairs, strict=True)
        target.__dict__[name] = Split(image_set(ids), np.array(y, dtype=np.int64))
    return data


@pytest.fixture
def runs(write_plan):
    def of(**keys):
        spelled = "".join(f"{k} = {v}\n" for k, v in keys.items() if k != "batch")
        batch = f"[[batch]]\n{keys['batch']}\n" if "batch" in keys else ""
        methods = '[[method]]\nrecipe = "zero_shot"\n'
        data = '[[data]]\nname = "digits"\n' + batch
        plan = read_plan(write_plan(f'title = "T"\n{spelled}', data, methods))
        return plan, all_runs(plan)

    return of


def test_digits_are_split_as_the_accuracy_benchmark_splits_them():
    for half, rows in zip(("development", "final"), halves(), strict=True):
        data = bundled(half)
        sources = np.array(data.split("pool").images.sources)
        assert data.split("pool") is data.split("test")
        for seed in range(5):
            order = np.random.default_rng(seed).permutation(rows)  # benchmarks/accuracy_digits.py
            middle = len(order) // 2
            for side, want in (("pool", order[:middle]), ("test", order[middle:])):
                found = sources[data.rows(side, seed)]
                assert found.tolist() == [f"digit-{row:04d}" for row in want]


def test_other_data_keep_their_own_split():
    data = bundled()
    assert len(data.rows("pool", 3)) == 898 and len(data.rows("test", 3)) == 899
    assert data.rows("pool", 0).tolist() == list(range(898))


def test_unlabelled_pools_are_in_order_of_id_without_copies(runs):
    plan, (run,) = runs()
    data = small([("c", 0), ("a", 1), ("b", 2), ("a", 1)])
    found = draw(data, run, plan)
    assert found.adapt_rows.tolist() == [1, 2, 0] and found.score_rows.tolist() == [0]
    assert found.given is None and found.seen is None
    assert (found.adapt_side, found.score_side) == ("pool", "test")


def test_copies_in_the_test_are_all_scored(runs):
    plan, (run,) = runs()
    found = draw(small([("a", 0)], [("t", 0), ("t", 0), ("u", 1)]), run, plan)
    assert found.score_rows.tolist() == [0, 1, 2]


def test_ssl_gives_the_published_labels_in_the_pools_order(runs):
    plan, (run,) = runs(settings=["SSL"], labels_per_class=3)
    pairs = [(f"{(i * 37) % 101:03d}", i % 10) for i in range(101)]
    found = draw(small(pairs), run, plan)
    y = np.array([c for _, c in pairs])
    want = semi_supervised(y, 10, 3)[found.adapt_rows]
    assert found.given.tolist() == want.tolist() and (found.given >= 0).sum() == 30
    assert found.seen is None


def test_a_label_of_a_copy_is_the_images(runs):
    plan, (run,) = runs(settings=["SSL"], labels_per_class=1)
    pairs = [("a", 0)] * 5 + [("b", 1), ("c", 1), ("d", 1)]
    data = small(pairs)
    chosen = np.flatnonzero(semi_supervised(np.array([c for _, c in pairs]), 10, 1) == 0)
    assert chosen.tolist() != [0]  # the label is drawn for a later copy than the one that is kept
    found = draw(data, run, plan)
    assert found.adapt_rows.tolist() == [0, 5, 6, 7] and found.given[0] == 0
    assert (found.given >= 0).sum() == 2


def test_trzsl_labels_all_of_the_seen_and_none_of_the_unseen(runs):
    plan, found = runs(settings=["TRZSL"])
    data = bundled()
    for run in found:
        drawn = draw(data, run, plan)
        y = data.truth("pool")[drawn.adapt_rows]
        seen = seen_classes(10, run.split_seed)
        assert drawn.seen.tolist() == seen.tolist() and seen.sum() == 6
        assert drawn.given.tolist() == np.where(seen[y], y, -1).tolist()
    assert [run.split_seed for run in found] == [500, 0, 200]


def test_long_tails_thin_the_pool_and_not_the_test(runs):
    plan, (run,) = runs(imbalances=[10], seeds=[3], settings=["SSL"])
    data = bundled()
    drawn = draw(data, run, plan)
    y = data.truth("pool")
    want = long_tailed(y, 10, 10.0, 3)
    assert sorted(drawn.adapt_rows.tolist()) == want.tolist() and len(drawn.score_rows) == 899
    # labels are drawn from what is left
    given = drawn.adapt_rows[drawn.given >= 0]
    assert np.bincount(y[given], minlength=10).tolist() == [2] * 10


@pytest.mark.parametrize("of", ["pool", "test"])
def test_batches_are_scored_on_themselves(runs, of):
    plan, found = runs(settings=[], batch=f'size = 30\nclasses = 2\ndraws = 2\nof = "{of}"')
    data = bundled()
    first, second = (draw(data, run, plan) for run in found)
    assert first.adapt_side == first.score_side == of
    assert first.adapt_rows.tolist() == first.score_rows.tolist() and len(first.adapt_rows) == 30
    assert len(set(data.truth(of)[first.adapt_rows])) == 2
    assert first.adapt_rows.tolist() != second.adapt_rows.tolist()


def test_a_test_set_alone_needs_images_to_adapt_on(runs):
    plan, (run,) = runs()
    data = bundled()
    data.scored.__dict__["train"] = Split(ImageSet((), (), ()), np.zeros(0, dtype=np.int64))
    with pytest.raises(ValueError, match="digits is a test set alone; say adapt_on"):
        draw(data, run, plan)


def test_classes_of_a_test_set_find_their_columns():
    few = replace(opened(), label_space=LabelSpace(("nine", "two")))
    data = small([("a", 3)], [("t", 0), ("u", 1)], scored=few)
    assert data.columns.tolist() == [9, 2]
    assert data.truth("test").tolist() == [9, 2] and data.truth("pool").tolist() == [3]
    strange = replace(opened(), label_space=LabelSpace(("ten", "two")))
    with pytest.raises(ValueError, match="1 classes of digits are none of digits, 'ten' first"):
        _ = BenchData(data.plan, strange, data.adapted).columns


def test_templates_go_into_the_label_space():
    for templates, want in (("recipe", None), ("protocol", ("a photo of a {}.",))):
        assert open_data(DataPlan("digits"), templates).label_space.templates == want


def test_a_listing_has_a_fingerprint():
    data = bundled()
    assert data.fingerprint == bundled().fingerprint
    listing = data.scored.listing
    for changed in (
        replace(opened(), label_space=replace(opened().label_space, templates=None)),
        replace(opened(), listing=listing._replace(train=listing.train[1:])),
        replace(opened(), listing=listing._replace(train=listing.test, test=listing.train)),
        replace(
            opened(),
            listing=listing._replace(test=[listing.test[0]._replace(key="x"), *listing.test[1:]]),
        ),
    ):
        assert BenchData(data.plan, changed, changed).fingerprint != data.fingerprint
