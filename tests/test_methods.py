import subprocess
import sys

import pytest

from nameonly import methods


def test_listing_imports_neither_torch_nor_a_method():
    code = (
        "import sys; from nameonly import methods;"
        "[methods.card(s, n) for s in methods.STAGES for n in methods.names(s)];"
        "print(sorted(m for m in ('torch', 'numpy', 'transformers') if m in sys.modules))"
    )
    got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert got.stdout.strip() == "[]"


def test_card_joins_the_lines_of_a_paper():
    card = methods.card("pseudo_labels", "top_k_per_class")
    assert card.title == "Top-k pseudo-labels per class."
    assert card.paper.endswith("arXiv 2204.03649, section 3.2.")


def test_unknown_names_teach():
    with pytest.raises(ValueError, match="no stage 'adapter'; did you mean 'adapters'"):
        methods.names("adapter")
    with pytest.raises(ValueError, match="did you mean 'up_adapter'"):
        methods.build_recipe("up_adaptor")
    with pytest.raises(ValueError, match="no setting 'k'; there are: images_per_class, by"):
        methods.create("pseudo_labels", "top_k_per_class", k=3)
    with pytest.raises(ValueError, match=r"images_per_class expects int, got 'many' \(str\)"):
        methods.create("pseudo_labels", "top_k_per_class", images_per_class="many")
    with pytest.raises(ValueError, match="expects 'row' or 'column', got 'diagonal'"):
        methods.create("pseudo_labels", "top_k_per_class", by="diagonal")
    with pytest.raises(ValueError, match="expects int, got True"):
        methods.create("pseudo_labels", "top_k_per_class", images_per_class=True)


def test_settings_reach_the_parts():
    settings = {
        "pseudo_labels.images_per_class": 4,
        "decisions": "abstain",
        "decisions.threshold": 0.7,
        "adapters.steps": 3,
    }
    recipe = methods.build_recipe("up_adapter", settings, seed=5)
    told = methods.describe_recipe(recipe)
    assert told["pseudo_labels"]["images_per_class"] == 4
    assert told["decisions"] == {"method": "abstain", "threshold": 0.7, "deviations": 0.0}
    assert told["adapters"]["steps"] == 3 and told["adapters"]["seed"] == 5
    assert methods.describe_recipe(methods.build_recipe("up_adapter"))["adapters"]["seed"] == 0


def test_own_templates_come_as_a_list():
    recipe = methods.build_recipe("zero_shot", {"prompts.templates": ["a {}.", "the {}."]})
    assert recipe.prompts.templates == ("a {}.", "the {}.")


def test_a_setting_of_a_stage_that_the_recipe_lacks_is_refused():
    with pytest.raises(ValueError, match="recipe 'zero_shot' has no stage 'adapters'"):
        methods.build_recipe("zero_shot", {"adapters.steps": 3})


def test_cards_tell_the_settings_as_they_are():
    from dataclasses import fields

    told = methods.card("adapters", "prototype_adapter").settings
    made = methods.create("adapters", "prototype_adapter")
    assert {k: float(v) for k, v in told.items()} == {
        f.name: float(getattr(made, f.name)) for f in fields(made) if f.init
    }
