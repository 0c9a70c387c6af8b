import re
import statistics

import pytest

from nameonly.bench.rows import COLUMNS
from nameonly.bench.table import differences, page, papers, published, spread


def row(method="M", accuracy=0.8, zero_shot=0.7, **columns):
    known = {
        "method": method,
        "recipe": "grip",
        "learner": "text_context",
        "data": "dtd",
        "setting": "UL",
        "pool": "whole",
        "seed": 0,
        "n_pool": 100,
        "n_given": 0,
        "n_test": 50,
        "n_test_in_pool": 0,
        "accuracy": accuracy,
        "mean_class_accuracy": None if accuracy is None else accuracy - 0.01,
        "zero_shot_accuracy": zero_shot,
        "pool_accuracy": 0.6,
        "zero_shot_pool_accuracy": 0.55,
        "fit_seconds": 1.25,
        "peak_memory_mb": 2048.0,
    }
    return {**dict.fromkeys(COLUMNS), **known, **columns}


def tables(text):
    """Parse a page: heading -> list of rows, each a dict by column."""
    found, heading, lines = {}, "", []
    for line in [*text.splitlines(), ""]:
        if line.startswith("#"):
            heading = line.strip("# ")
        if line.startswith("|"):
            lines.append([c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif lines:
            heads, rule, *body = lines
            assert all(len(cells) == len(heads) for cells in lines) and set("".join(rule)) <= {
                *"-:"
            }
            found[heading] = [dict(zip(heads, cells, strict=True)) for cells in body]
            lines = []
    return found


def test_mean_spread_and_paired_differences():
    ours, base = [0.80, 0.70, 0.75], [0.70, 0.72, 0.71]
    rows = [
        row(accuracy=a, zero_shot=b, seed=i)
        for i, (a, b) in enumerate(zip(ours, base, strict=True))
    ]
    (line,) = [r for r in tables(page("T", rows, []))["UL, whole pool"] if r["method"] == "M"]
    gains = [100 * (a - b) for a, b in zip(ours, base, strict=True)]
    assert line["runs"] == "3"
    assert line["accuracy"] == "75.0 ± 5.0"
    assert line["over zero-shot"] == f"+4.0 ± {statistics.stdev(gains):.1f}" == "+4.0 ± 6.0"
    assert line["above"] == "2 of 3"
    assert line["mean class"] == "74.0 ± 5.0" and line["pool"] == "60.0 ± 0.0"
    assert line["fit, s"] == "1.2" and line["peak, MB"] == "2,048"
    assert differences(rows) == pytest.approx([0.10, -0.02, 0.04])


def test_zero_shot_stands_first_where_no_method_is_it():
    rows = [row(accuracy=0.8, zero_shot=z, seed=i) for i, z in enumerate((0.7, 0.6))]
    rows += [row("N", zero_shot=0.5)]  # fewer runs than M
    first, *_ = tables(page("T", rows, []))["UL, whole pool"]
    assert (first["method"], first["runs"], first["accuracy"]) == ("zero-shot", "2", "65.0 ± 7.1")
    assert first["pool"] == "55.0 ± 0.0" and first["over zero-shot"] == "-"
    own = [row("class texts", 0.7, 0.7, recipe="zero_shot", learner=None), *rows]
    lines = tables(page("T", own, []))["UL, whole pool"]
    assert [line["method"] for line in lines] == ["class texts", "M", "N"]
    assert lines[0]["over zero-shot"] == lines[0]["above"] == "-"


def test_trzsl_is_read_by_its_harmonic_mean():
    columns = {"setting": "TRZSL", "split_seed": 500, "n_given": 60}
    columns |= {"seen_accuracy": 0.9, "unseen_accuracy": 0.45}
    rows = [row(accuracy=0.1, harmonic_mean=0.6, zero_shot_harmonic_mean=0.5, **columns)]
    text = page("T", rows, [])
    line = tables(text)["TRZSL, whole pool"][1]
    assert line["harmonic mean"] == "60.0" and line["over zero-shot"] == "+10.0"
    assert (line["seen"], line["unseen"]) == ("90.0", "45.0") and "accuracy" not in line
    assert "100 images to adapt on, 60 with a given label, 50 to score." in text


def test_data_settings_and_pools_have_tables_of_their_own_and_an_overview():
    rows = [
        row(setting=setting, pool=pool, data=data, accuracy=value)
        for data, setting, pool, value in (
            ("dtd", "UL", "whole", 0.5),
            ("dtd", "UL", "imbalance 10", 0.4),
            ("dtd", "SSL", "whole", 0.6),
            ("cub200", "UL", "whole", 0.3),
        )
    ]
    rows.append(row("N", setting="SSL", accuracy=0.7))
    text = page("T", rows, ["made somehow"])
    assert "made somehow" in text and text.startswith("# T\n")
    found = tables(text)
    assert found["dtd"] == [
        {
            "method": "M",
            "UL, whole pool": "50.0",
            "UL, imbalance 10": "40.0",
            "SSL, whole pool": "60.0",
        },
        {"method": "N", "UL, whole pool": "-", "UL, imbalance 10": "-", "SSL, whole pool": "70.0"},
    ]
    assert "cub200" not in found  # one table needs no overview
    assert [line["method"] for line in found["SSL, whole pool"]] == ["zero-shot", "M", "N"]
    assert found["UL, whole pool"][1]["accuracy"] == "30.0"  # of cub200, the last of that name


def test_batches_have_no_pool_of_their_own():
    rows = [row(pool="batch of 64 of the pool", draw=i, n_pool=64) for i in range(2)]
    text = page("T", rows, [])
    assert "pool" not in tables(text)["UL, batch of 64 of the pool"][0]
    assert "64 images in a batch, adapted on and scored." in text


def test_published_figures_stand_beside_ours_and_say_whose_they_are():
    text = page("T", [row(), row("N", recipe="fpl")], [])
    lines = tables(text)["UL, whole pool"]
    assert [line["published, not ours"] for line in lines] == ["-", "46.1 [1]", "-"]
    assert "[1] published, other backbone and data handling, not measured here: Menghini" in text
    assert "ViT-B/32" in text


@pytest.mark.parametrize(
    ("columns", "figure"),
    [
        ({}, 46.1),
        ({"setting": "SSL"}, 56.1),
        ({"setting": "TRZSL"}, 65.3),
        ({"learner": "visual_context"}, 50.5),
        ({"learner": "multimodal_context", "data": "flowers102", "setting": "TRZSL"}, 82.0),
        ({"recipe": "zero_shot", "learner": None}, 43.2),
        ({"recipe": "lafter", "learner": "anything", "data": "cifar10"}, 95.8),
        ({"pool": "imbalance 10"}, None),
        ({"pool": "batch of 64 of the pool"}, None),
        ({"data": "digits, final half"}, None),
        ({"data": "dtd_coop"}, None),
        ({"recipe": "cpl"}, None),
        ({"recipe": "lafter", "data": "cifar10", "setting": "SSL"}, None),
    ],
)
def test_published_figures_are_of_the_same_data_and_setting(columns, figure):
    assert [value for _, value in published(row(**columns))] == ([figure] if figure else [])


def test_published_figures_are_well_formed():
    from nameonly.datasets.reading import names
    from nameonly.methods import names as methods

    for paper in papers():
        assert paper["source"] and paper["backbone"] and paper["note"]
        for figures in paper["figures"]:
            assert set(figures["data"]) <= set(names())
            assert set(figures) - {"recipe", "learner", "data"} <= {"UL", "SSL", "TRZSL"}
            assert figures["recipe"] in {*methods("recipes"), "lafter"}


def test_settings_chosen_with_labels_are_marked():
    rows = [row(), row("N", tuned_with_labels="by the paper"), row(setting="SSL")]
    text = page("T", rows, [])
    assert [line["method"] for line in tables(text)["UL, whole pool"]] == ["zero-shot", "M", "N ‡"]
    assert [line["method"] for line in tables(text)["dtd"]] == ["M", "N ‡"]
    assert "‡ settings chosen for each data set with labels, by the paper: not label-free." in text
    assert "‡" not in page("T", [row()], [])


def test_failed_runs_are_listed_and_counted_nowhere_else():
    bad = [row("bad", None, None, seed=i, error="ValueError: no | such\nthing") for i in range(2)]
    found = tables(page("T", [row(), *bad], []))
    (line,) = found["Failed runs"]
    assert line["runs"] == "2" and line["reason"] == r"ValueError: no \| such thing"
    assert [r["method"] for r in found["UL, whole pool"]] == ["zero-shot", "M"]
    assert list(tables(page("T", bad, []))) == ["Failed runs"]


def test_ranges_and_leaks_of_sizes_are_told():
    rows = [row(n_pool=90, n_test_in_pool=50), row(n_pool=1100, seed=1, n_test_in_pool=50)]
    text = page("T", rows, [])
    assert "90 to 1,100 images to adapt on, 0 with a given label, 50 to score, 50 of these" in text


@pytest.mark.parametrize(
    ("values", "signed", "shown"),
    [
        ([], False, "-"),
        ([0.5], False, "50.0"),
        ([0.5], True, "+50.0"),
        ([0.1, 0.3], False, "20.0 ± 14.1"),
        ([-0.1, -0.1], True, "-10.0 ± 0.0"),
    ],
)
def test_spread(values, signed, shown):
    assert spread(values, signed=signed) == shown
