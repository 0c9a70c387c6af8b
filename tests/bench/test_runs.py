import pytest

from nameonly.bench.plan import read_plan
from nameonly.bench.runs import all_runs, run_facts, run_key

BACKBONE = {
    "images": {"backbone": "tiny", "revision": "1", "dtype": "float32"},
    "texts": {"backbone": "tiny", "revision": "1"},
}


def keys(plan, backbone=BACKBONE, listing="files"):
    return [run_key(run_facts(run, plan, listing, backbone)) for run in all_runs(plan)]


def test_the_runs_of_a_plan(write_plan):
    head = """
title = "T"
settings = ["UL", "TRZSL"]
imbalances = [1, 10]
seeds = [4, 5]
"""
    data = """
[[data]]
name = "digits"
half = "final"
[[batch]]
size = 20
draws = 2
"""
    methods = """
[[method]]
recipe = "zero_shot"
only = { batches = "alone", seeds = [5] }
[[method]]
recipe = "up_adapter"
only = { settings = ["TRZSL"], imbalances = [10], batches = "none" }
"""
    runs = all_runs(read_plan(write_plan(head, data, methods)))
    assert [run.title for run in runs] == [
        # the three published splits, with the seeds in turn
        "up_adapter · digits, final half · TRZSL · imbalance 10 · seed 4 · split 500",
        "up_adapter · digits, final half · TRZSL · imbalance 10 · seed 5 · split 0",
        "up_adapter · digits, final half · TRZSL · imbalance 10 · seed 4 · split 200",
        "zero_shot · digits, final half · UL · batch of 20 of the pool · seed 5 · draw 0",
        "zero_shot · digits, final half · UL · batch of 20 of the pool · seed 5 · draw 1",
    ]


def test_methods_of_one_split_stand_together(write_plan):
    runs = all_runs(read_plan(write_plan()))
    assert [(run.seed, run.method.label) for run in runs] == [
        (0, "zero-shot"),
        (0, "UP"),
        (1, "zero-shot"),
        (1, "UP"),
    ]


def test_only_may_name_data_sets(write_plan):
    data = '[[data]]\nname = "digits"\n[[data]]\nname = "dtd"\nroot = "x"\n'
    methods = '[[method]]\nrecipe = "zero_shot"\nonly = { data = ["dtd"] }\n'
    runs = all_runs(read_plan(write_plan(data=data, methods=methods)))
    assert {run.data.name for run in runs} == {"dtd"} and len(runs) == 2


def test_a_method_with_nothing_to_do_is_a_mistake(write_plan):
    methods = '[[method]]\nrecipe = "zero_shot"\nonly = { batches = "alone" }\n'
    with pytest.raises(ValueError, match="nothing is left to run for zero_shot"):
        all_runs(read_plan(write_plan(methods=methods)))


def test_keys_differ_where_an_outcome_may(write_plan):
    head = """
title = "T"
settings = ["UL", "SSL", "TRZSL"]
imbalances = [1, 10]
seeds = [0, 1]
"""
    data = '[[data]]\nname = "digits"\nhalf = "final"\n[[batch]]\nsize = 9\ndraws = 2\n'
    plan = read_plan(write_plan(head, data))
    found = keys(plan)
    assert len(set(found)) == len(found) == len(all_runs(plan))
    for other in (
        head + "labels_per_class = 3\n",
        head + 'templates = "recipe"\n',
        head.replace("[0, 1]", "[2, 3]"),
    ):
        assert set(keys(read_plan(write_plan(other, data)))) != set(found)
    assert not set(found) & set(keys(plan, listing="other files"))
    changed = {**BACKBONE, "images": {**BACKBONE["images"], "revision": "2"}}
    assert not set(found) & set(keys(plan, changed))
    development = read_plan(write_plan(head, data.replace("final", "development")))
    assert not set(found) & set(keys(development))


def test_keys_do_not_change_with_names_places_and_threads(write_plan):
    found = keys(read_plan(write_plan()))
    head = 'title = "Other"\nbackbone = "x"\nthreads = 7\ndevice = "cuda"\nseeds = [0, 1]\n'
    methods = """
[[method]]
label = "other"
recipe = "zero_shot"
[[method]]
label = "another"
recipe = "up_adapter"
set = { "adapters.steps" = 5, "adapters.sharpness" = 1.0 }
"""
    renamed = read_plan(write_plan(head=head, methods=methods))
    moved = {k: {**v, "backbone": "elsewhere"} for k, v in BACKBONE.items()}
    assert keys(renamed, moved) == found  # sharpness 1 is the default


def test_labels_per_class_matter_to_ssl_alone(write_plan):
    head = 'title = "T"\nsettings = ["UL"]\nseeds = [0]\n'
    assert keys(read_plan(write_plan(head))) == keys(
        read_plan(write_plan(head + "labels_per_class = 9\n"))
    )
