"""One method is one file, one test and one row of docs/methods.md; imports point down."""

import ast
import re
import statistics
from pathlib import Path

import pytest

from nameonly import methods

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "nameonly"
ALL = [(s, n) for s in methods.STAGES for n in methods.names(s)]
FILES = sorted(SRC.rglob("*.py"))
# a module may import what stands before it; names of one group may not import each other's group
ORDER = [
    {"types", "structured_files", "extras"},
    {"ops", "loop", "sources", "label_space", "label_tables", "store", "journal", "tiny"},
    {"images", "synthetic"},
    {
        *("backbones", "prompts", "pseudo_labels", "prompt_learning", "adapters", "decisions"),
        *("synthesis", "trust", "training"),
    },
    {"methods", "engines", "encoding", "classifier", "task"},
    {"learning", "generating"},
    {"relabelling", "selection"},
    {"recipes"},
    {"preparation"},
    {"assessment"},
    {"predicting"},
    {"pipeline", "estimate"},
    {"extending"},
    {"report", "card", "evaluation", "datasets", "export"},
    {"outputs", "heads"},
    {"auditing", "jobs", "bench", "generation", "training_job", "review", "serve"},
    {"doctor", "demo", "console", "cli_options"},
    {
        "cli",
        "cli_export",
        "cli_audit",
        "cli_generate",
        "cli_review",
        "cli_serve",
        "cli_train",
    },
]
LEVEL = {name: i for i, group in enumerate(ORDER) for name in group}


def top(module):
    return module.split(".")[1] if "." in module else ""


def imported(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("nameonly"):
            if node.module == "nameonly":
                yield from (f"nameonly.{alias.name}" for alias in node.names)
            else:
                yield node.module


@pytest.mark.parametrize(("stage", "name"), ALL)
def test_method_has_test_row_and_paper(stage, name):
    assert (ROOT / "tests" / stage / f"test_{name}.py").is_file()
    assert (ROOT / "docs/methods.md").read_text().count(f"| `{stage}.{name}` |") == 1
    card = methods.card(stage, name)
    assert "." in card.paper and card.title.endswith(".")
    docstring = ast.get_docstring(ast.parse((SRC / stage / f"{name}.py").read_text()))
    assert "\nDiffers: " in docstring


@pytest.mark.parametrize(("stage", "name"), [a for a in ALL if a[0] != "recipes"])
def test_methods_do_not_import_each_other(stage, name):
    siblings = {f"nameonly.{s}.{n}" for s, n in ALL}
    assert not set(imported(SRC / stage / f"{name}.py")) & siblings


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_imports_point_down(path):
    parts = path.relative_to(SRC).with_suffix("").parts
    if parts[0] in {"__init__", "__main__"}:
        return
    for module in imported(path):
        other = top(module)
        assert LEVEL[other] <= LEVEL[parts[0]], f"{parts[0]} imports {module}"


def test_every_module_has_its_place_in_the_order():
    found = {p.relative_to(SRC).with_suffix("").parts[0] for p in FILES}
    assert found - {"__init__", "__main__"} == set(LEVEL)


@pytest.mark.parametrize("stage", methods.STAGES)
def test_stage_holds_a_docstring_and_its_protocol_alone(stage):
    tree = ast.parse((SRC / stage / "__init__.py").read_text(encoding="utf-8"))
    assert ast.get_docstring(tree).startswith("Stage: ")
    classes = [n for n in tree.body if isinstance(n, ast.ClassDef)]
    assert len(classes) == 1 and ast.unparse(classes[0].bases[0]) == "Protocol"
    assert all(
        isinstance(n, ast.Expr | ast.ImportFrom | ast.ClassDef | ast.Import) for n in tree.body
    )


def test_adaptation_cannot_see_truth():
    for path in FILES:
        sees = top_folder(path) in {"evaluation", "datasets", "bench", "console", "demo", "cli"}
        if sees and path.parts[-2:] != ("bench", "fitting.py"):
            continue
        assert not {"evaluation", "datasets"} & {top(m) for m in imported(path)}, path


def top_folder(path):
    return path.relative_to(SRC).with_suffix("").parts[0]


def test_optional_packages_and_pickle_stay_out():
    forbidden = re.compile(
        r"^\s*(?:import|from) (timm|open_clip|diffusers|pandas|datasets|pickle)\b", re.M
    )
    # others ask extras.import_extra; this recipe is run by hand
    own = {
        "diffusion_files.py": {"diffusers"},
        "diffusion_losses.py": {"diffusers"},
        "train_diffusion.py": {"diffusers"},
    }
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert set(forbidden.findall(text)) <= own.get(path.name, set()), path
        assert "torch.load(" not in text and "allow_pickle=True" not in text, path
        if path.name != "doctor.py":
            assert "import torchvision" not in text, path


def test_only_one_training_loop():
    for path in FILES:
        if path.name != "loop.py":
            text = path.read_text(encoding="utf-8")
            assert ".backward(" not in text and "torch.optim" not in text, path


def test_sizes_hold():
    lengths = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in FILES}
    assert max(lengths.values()) <= 400
    methods_ = [lengths[SRC / s / f"{n}.py"] for s, n in ALL]
    # a backbone is a reader of files rather than a method of a page
    assert max(n for (s, _), n in zip(ALL, methods_, strict=True) if s != "backbones") <= 250
    assert statistics.median(methods_) < 120
    functions = [
        node.end_lineno - node.lineno + 1
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    ]
    assert statistics.quantiles(functions, n=20)[-1] <= 45


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.parts[-2] == "recipes"], ids=lambda p: p.stem
)
def test_recipes_are_wiring(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 65


def test_nothing_speaks_of_registries_or_of_this_machine():
    hosts = "|".join(("py" + r"pi\.org", r"files\.python" + "hosted", "download" + r"\.pytorch"))
    folders = "|".join(("/ho" + "me/", "/wo" + "rk/", "/ro" + "ot/"))
    pattern = re.compile(f"({hosts}|{folders})")
    for folder in ("src", "tests", "docs", "benchmarks", ".ci"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix in {
                ".py",
                ".md",
                ".toml",
                ".yaml",
                ".json",
                ".jinja",
            }:
                assert not pattern.search(path.read_text(encoding="utf-8")), path
