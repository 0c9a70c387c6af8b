from pathlib import Path

import pytest

from nameonly.bench.plan import read_plan
from nameonly.bench.runs import all_runs

PLANS = sorted((Path(__file__).parents[2] / "benchmarks/plans").glob("*.toml"))


def test_a_plan_says_what_it_says(write_plan, tmp_path):
    (tmp_path / "weights").mkdir()
    head = """
title = "All keys"
backbone = "weights"
dtype = "bfloat16"
device = "cpu"
batch_size = 8
threads = 2
templates = "customary"
settings = ["UL", "TRZSL"]
imbalances = [1, 10]
seeds = [3, 1]
labels_per_class = 4
trzsl_seeds = [500]
"""
    data = """
[[data]]
name = "digits"
half = "final"

[[data]]
name = "imagenet_v2"
root = "here/v2"
adapt_on = "imagenet"
adapt_root = "/there/imagenet"

[[batch]]
size = 75
classes = 5
draws = 3
of = "test"

[[batch]]
"""
    methods = """
[[method]]
recipe = "zero_shot"

[[method]]
label = "UP, 8"
recipe = "up_adapter"
set = { "pseudo_labels.images_per_class" = 8 }
only = { settings = ["UL"], imbalances = [10], seeds = [1], batches = "none" }

[[method]]
label = "UP, tuned"
recipe = "up_adapter"
set = { "adapters.sharpness" = 2.0 }
only = { data = ["digits"] }
tuned_with_labels = "by the paper"
"""
    plan = read_plan(write_plan(head, data, methods))
    assert plan.backbone == str(tmp_path / "weights") and plan.dtype == "bfloat16"
    assert plan.settings == ("UL", "TRZSL") and plan.imbalances == (1.0, 10.0)
    assert (plan.seeds, plan.trzsl_seeds, plan.labels_per_class) == ((3, 1), (500,), 4)
    assert [d.title for d in plan.data] == [
        "digits, final half",
        "imagenet_v2, adapted on imagenet",
    ]
    assert plan.data[1].root == str(tmp_path / "here/v2")
    assert plan.data[1].adapt_root == "/there/imagenet"
    assert [b.title for b in plan.batches] == [
        "batch of 75 from 5 classes of the test",
        "all images of the pool",
    ]
    first, eight, tuned = plan.methods
    assert first.label == "zero_shot" and first.set == {} and first.only.seeds is None
    assert eight.only.imbalances == (10.0,) and eight.only.batches == "none"
    assert tuned.tuned_with_labels == "by the paper" and eight.tuned_with_labels == ""


def test_defaults_are_the_published_protocol(write_plan):
    plan = read_plan(write_plan(head='title = "T"\n'))
    assert plan.trzsl_seeds == (500, 0, 200) and plan.labels_per_class == 2
    assert plan.backbone == "openai/clip-vit-base-patch32" and plan.templates == "protocol"
    assert plan.settings == ("UL",) and plan.imbalances == (1.0,)


HEAD_ERRORS = [
    ('title = "T"\nseed = [1]', "plan has no key 'seed'; did you mean 'seeds'"),
    ("seeds = [1]", "plan needs title"),
    ('title = "T"\nseeds = [1, 1]', "seeds holds an entry twice"),
    ('title = "T"\nseeds = []', "seeds is empty"),
    ('title = "T"\nseeds = [-1]', r"seeds must lie in 0 to 2147483647, got \[-1\]"),
    ('title = "T"\nseeds = 1', "seeds expects a list of int"),
    (
        'title = "T"\nsettings = ["UL", "SLL"]',
        "settings expects a list of 'UL' or 'SSL' or 'TRZSL'",
    ),
    ('title = "T"\nsettings = []', "settings is empty"),
    ('title = "T"\nimbalances = [0.1]', "imbalances must be at least 1"),
    ('title = "T"\nimbalances = ["ten"]', "imbalances expects a list of float"),
    ('title = "T"\nlabels_per_class = 0', "labels_per_class must be at least 1"),
    ('title = "T"\nthreads = 0', "threads must be at least 1"),
    ('title = "T"\ndtype = "int8"', "dtype expects 'auto' or 'float32'"),
    ('title = "T"\ntemplates = "mine"', "templates expects 'protocol'"),
    ('title = "T"\nmethods = []', "plan has no key 'methods'; did you mean 'method'"),
    ('title = "T"\nbatch = 3', r"batch is a list of tables, each under \[\[batch\]\]"),
    ('title = "T"\ntitle = "U"', "is not valid TOML"),
    ('title = "T"\n[[batch]]\nsize = 0', "batch 1: size must be at least 1"),
    ('title = "T"\n[[batch]]\nof = "both"', "of expects 'pool' or 'test'"),
]
DATA_ERRORS = [
    ("", "data is empty"),
    ("[[data]]\nhalf = 'final'", "data 1 needs name"),
    ("[[data]]\nname = 'digit'", "data 'digit': no data set 'digit'; did you mean 'digits'"),
    ("[[data]]\nname = 'cifar10'\nhalf = 'final'", "half goes with digits alone"),
    ("[[data]]\nname = 'digits'\nhalf = 'first'", "half expects 'development' or 'final'"),
    ("[[data]]\nname = 'digits'\nadapt_on = 'digit'", "no data set 'digit'"),
    ("[[data]]\nname = 'digits'\nadapt_root = 'x'", "adapt_root goes with adapt_on"),
    ("[[data]]\nname = 'digits'\npath = 'x'", "data 'digits' has no key 'path'"),
    (2 * "[[data]]\nname = 'digits'\n", "data set stands twice"),
]
METHOD_ERRORS = [
    ("", "method is empty"),
    ("[[method]]\nlabel = 'x'", "method 'x' needs recipe"),
    ("[[method]]\nrecipe = 'up'", "method 'up': no method 'up' in recipes"),
    (
        "[[method]]\nrecipe = 'up_adapter'\nset = {'adapters.stepz' = 1}",
        "method 'up_adapter': adapters.prototype_adapter has no setting 'stepz'",
    ),
    (
        "[[method]]\nrecipe = 'up_adapter'\nset = {'adapters.steps' = 'many'}",
        "adapters.prototype_adapter: steps expects int",
    ),
    ("[[method]]\nrecipe = 'up_adapter'\nset = {'adapters' = 'none'}", "no method 'none'"),
    ("[[method]]\nrecipe = 'up_adapter'\nset = 3", "set is a table"),
    ("[[method]]\nrecipe = 'up_adapter'\nsets = {}", "has no key 'sets'; did you mean 'set'"),
    ("[[method]]\nrecipe = 'zero_shot'\nonly = {seed = [0]}", "only has no key 'seed'"),
    ("[[method]]\nrecipe = 'zero_shot'\nonly = {seeds = [9]}", r"only.seeds names \[9\]"),
    ("[[method]]\nrecipe = 'zero_shot'\nonly = {settings = ['SSL']}", "only.settings names"),
    ("[[method]]\nrecipe = 'zero_shot'\nonly = {data = ['dtd']}", "only.data names"),
    ("[[method]]\nrecipe = 'zero_shot'\nonly = {imbalances = [50]}", "only.imbalances names"),
    (2 * "[[method]]\nrecipe = 'zero_shot'\n", "the label stands twice"),
    ("[[method]]\nrecipe = 'zero_shot'\ntuned_with_labels = 'by me'", "'by the paper' or left out"),
    (
        "[[method]]\nrecipe = 'up_adapter'\nset = {'adapters.steps' = 1}\n"
        "only = {data = ['digits']}",
        "not one fixed setting for all",
    ),
    (
        "[[method]]\nrecipe = 'zero_shot'\nset = {'prompts.templates' = 'openai7'}",
        "prompts.templates has no effect",
    ),
]


@pytest.mark.parametrize(
    ("part", "text", "words"),
    [("head", *case) for case in HEAD_ERRORS]
    + [("data", *case) for case in DATA_ERRORS]
    + [("methods", *case) for case in METHOD_ERRORS],
)
def test_a_mistake_is_one_clear_error(write_plan, part, text, words):
    path = write_plan(**{part: text + "\n"})
    with pytest.raises(ValueError, match=words) as caught:
        read_plan(path)
    assert str(caught.value).count(str(path)) == 1 and "\n" not in str(caught.value)


def test_templates_of_the_recipe_may_be_set(write_plan):
    methods = "[[method]]\nrecipe = 'zero_shot'\nset = {'prompts.templates' = 'openai7'}"
    plan = read_plan(write_plan(head='title = "T"\ntemplates = "recipe"\n', methods=methods))
    assert plan.methods[0].set == {"prompts.templates": "openai7"}


def test_one_label_may_hold_a_papers_settings_for_several_data_sets(write_plan):
    data = "[[data]]\nname = 'digits'\n[[data]]\nname = 'dtd'\nroot = 'x'\n"
    tuned = "[[method]]\nlabel = 'UP'\nrecipe = 'up_adapter'\ntuned_with_labels = 'by the paper'\n"
    methods = "".join(
        f"{tuned}set = {{'adapters.steps' = {n}}}\nonly = {{data = ['{name}']}}\n"
        for n, name in ((1, "digits"), (2, "dtd"))
    )
    plan = read_plan(write_plan(data=data, methods=methods))
    assert [m.label for m in plan.methods] == ["UP", "UP"]
    head = 'title = "T"\nsettings = ["UL", "SSL"]\n'
    methods = "".join(
        f"{tuned}set = {{'adapters.steps' = {n}}}\nonly = {{settings = ['{name}']}}\n"
        for n, name in ((1, "UL"), (2, "SSL"))
    )
    assert len(read_plan(write_plan(head, methods=methods)).methods) == 2
    with pytest.raises(ValueError, match="the label stands twice"):
        read_plan(write_plan(head, methods=methods.replace("SSL", "UL")))


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a plan is a \.toml file"):
        read_plan(tmp_path / "plan.yaml")
    with pytest.raises(ValueError, match="cannot be read"):
        read_plan(tmp_path / "none.toml")


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_committed_plans_are_sound(path):
    plan = read_plan(path)
    assert all_runs(plan)
    tuned = {method.tuned_with_labels for method in plan.methods if method.recipe != "zero_shot"}
    assert tuned == ({"by the paper"} if "tuned_with_labels" in path.stem else {""})


def test_the_digits_plans_differ_in_their_half_alone():
    final, development = (
        read_plan(path) for path in PLANS if path.stem.startswith("digits_methods")
    )
    assert final.methods == development.methods and final.settings == development.settings
    assert (final.data[0].half, development.data[0].half) == ("final", "development")
    assert (final.seeds, final.imbalances) == ((0, 1, 2, 3, 4), (1.0, 10.0, 50.0))
