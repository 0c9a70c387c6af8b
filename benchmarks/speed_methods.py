"""Labellers and adapters on many features, against the matrix products that they cannot avoid.

uv run python benchmarks/speed_methods.py [--size small|large] [--only NAME ...]

small: 100,000 x 512 random unit features, 100 classes; large: 1,281,167 x 512, 1,000 classes. At
the large size the methods that need a graph get rows around centres, as images have them: among
uniform rows every index is as slow as the exact search, which takes hours there. Every method runs
in a process of its own, which also tells its peak of resident memory. The products are those of the
very same run: features by text weights for all (adapters score once to fit and once to predict),
twice for every pass of what is learnt by gradients and once to predict by it, and features by the
cached images for Tip-Adapter and nearest neighbours. A method's seconds include them.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from results import write
from torch import Tensor
from torch.nn.functional import normalize

from nameonly import methods
from nameonly.adapters import transclip
from nameonly.ops.neighbours import EXACT_ROWS, neighbour_recall
from nameonly.pseudo_labels import label_propagation
from nameonly.types import Features, LabelSpace, TextClassifier

SIZES = {"small": (100_000, 100), "large": (1_281_167, 1_000)}
WIDTH = 512
LABELLERS = {
    "pseudo_labels.top_k_per_class": {},
    "pseudo_labels.threshold": {},
    "pseudo_labels.deferred_acceptance": {},
    "pseudo_labels.candidate_sets": {},
    "pseudo_labels.optimal_transport": {},
    "pseudo_labels.label_propagation": {},
}
ADAPTERS = {
    "adapters.prototype_adapter": {},
    "adapters.tip_adapter": {},
    "adapters.k_nearest": {},
    "adapters.gaussian": {},
    "adapters.transclip": {},
    "adapters.em_dirichlet": {"iterations": 2},
    "adapters.linear_head": {"epochs": 1},
}
# a graph's methods are shown at n, 2n and 4n, the graph apart
GRAPHS = {
    "pseudo_labels.label_propagation": label_propagation,
    "adapters.transclip": transclip,
}
# length of what is added to a centre of unit length: cosines of neighbours are about 0.8
SCATTER = 0.5
WARM_UP_ROWS = 2_000


def data(n: int, c: int, *, centred: bool = False) -> tuple[Features, TextClassifier, LabelSpace]:
    """Return random unit features, uniform or around centres, and uniform text weights."""
    generator = torch.Generator().manual_seed(0)
    values = torch.empty(n, WIDTH)
    centres = normalize(torch.randn(10 * c, WIDTH, generator=generator), dim=1)
    for start in range(0, n, 65_536):
        rows = torch.randn(min(65_536, n - start), WIDTH, generator=generator)
        if centred:
            drawn = torch.randint(len(centres), (len(rows),), generator=generator)
            rows = centres[drawn] + SCATTER * normalize(rows, dim=1)
        values[start : start + len(rows)] = normalize(rows, dim=1)
    weights = normalize(torch.randn(c, WIDTH, generator=generator), dim=1)
    names = tuple(f"class {j}" for j in range(c))
    features = Features(values, tuple(map(str, range(n))), "random")
    return features, TextClassifier(weights, 100.0, names), LabelSpace(names)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds of some work and what it gave."""
    begun = time.perf_counter()
    result = work()
    return time.perf_counter() - begun, result


def rows_by(values: Tensor, keys: Tensor) -> None:
    """Multiply in blocks, as a bare program that keeps nothing would."""
    for block in torch.split(values, 16_384):
        torch.matmul(block, keys.T)


def run(name: str, n: int, c: int) -> dict[str, float]:
    """Time one method here; return seconds and megabytes."""
    torch.set_num_threads(2)
    features, text, space = data(n, c, centred=name in GRAPHS and n > EXACT_ROWS)
    stage, method = name.split(".")
    made = methods.create(stage, method, **{**LABELLERS, **ADAPTERS}[name])
    few = features.subset(torch.arange(WARM_UP_ROWS))
    found: Counter[str] = Counter()
    work = label if stage == "pseudo_labels" else adapt
    work(made, few, text, space)
    rows_by(few.values, text.weights)
    if name in GRAPHS:
        time_the_graph(GRAPHS[name], found)
    found["products"] = timed(lambda: rows_by(features.values, text.weights))[0]
    found.update(work(made, features, text, space))
    found["method"] -= found.pop("measuring recall", 0)
    found["MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return dict(found)


def label(
    made: Any, features: Features, text: TextClassifier, space: LabelSpace
) -> dict[str, float]:
    """Time a labeller, scores and all."""
    return {"method": timed(lambda: made.label(features, text.predict_logits(features), space))[0]}


def adapt(
    made: Any, features: Features, text: TextClassifier, space: LabelSpace
) -> dict[str, float]:
    """Time an adapter that learns from sixteen labels a class, and what it adds to the products."""
    labels = methods.create("pseudo_labels", "top_k_per_class").label(
        features, text.predict_logits(features), space
    )
    once = timed(lambda: rows_by(features.values, text.weights))[0]
    chosen = features.values[labels.selected]
    method, more = type(made).__name__, once
    if method == "PrototypeAdapter":
        passes = math.ceil(made.steps / math.ceil(len(features) / made.batch_size))
        more += (1 + 2 * passes) * once
    if method in ("TipAdapter", "KNearest"):
        more += timed(lambda: rows_by(features.values, chosen))[0]
    begun = time.perf_counter()
    fitted = made.fit(features, text, labels)
    fit = time.perf_counter() - begun
    del labels  # who predicts need not hold them
    predict = timed(lambda: fitted.predict_logits(features))[0]
    return {"fit": fit, "predict": predict, "method": fit + predict, "products": more}


def time_the_graph(module: Any, found: Counter[str]) -> None:
    """Have a method's search for neighbours tell its seconds and, where inexact, its recall."""
    search = module.nearest_neighbours

    def timed_search(queries: Tensor, keys: Tensor, k: int, **options: Any) -> Any:
        found["graph"], neighbours = timed(lambda: search(queries, keys, k, **options))
        if len(keys) > EXACT_ROWS:
            found["measuring recall"], found["recall"] = timed(
                lambda: neighbour_recall(neighbours[0], queries, keys, **options)
            )
        return neighbours

    module.nearest_neighbours = timed_search


def in_its_own_process(name: str, n: int, c: int) -> dict[str, float]:
    """Run one method in a new process."""
    command = [sys.executable, __file__, "--child", name, str(n), str(c)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{name} failed: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return {}
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(name, n, c, {k: round(v, 1) for k, v in found.items()}, file=sys.stderr, flush=True)
    return found


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", choices=tuple(SIZES), default="small")
    parser.add_argument("--only", nargs="+", default=[*LABELLERS, *ADAPTERS])
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        name, n, c = arguments.child
        print(json.dumps(run(name, int(n), int(c))))
        return
    n, c = SIZES[arguments.size]
    lines = [
        f"{n:,} x {WIDTH} random unit features, {c:,} classes, two threads, one process a method. "
        "Seconds hold the products; the ratio is to the products alone. Peak memory is that of the "
        f"whole process: the features take {n * WIDTH * 4 / 2**20:,.0f} MB, one n x c array of "
        f"float32 {n * c * 4 / 2**20:,.0f} MB.",
        "",
        "| method | seconds | products alone, s | ratio | graph, s | peak, MB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    figures: dict[str, float] = {}
    for name in arguments.only:
        found = in_its_own_process(name, n, c)
        if not found:
            lines.append(f"| `{name}` | failed | | | | |")
            continue
        ratio = found["method"] / found["products"]
        graph = f"{found['graph']:.1f}" if "graph" in found else "-"
        if "recall" in found:
            graph += f" (recall {found['recall']:.3f})"
        lines.append(
            f"| `{name}` | {found['method']:.2f} | {found['products']:.2f} | {ratio:.1f} | {graph} "
            f"| {found['MB']:,.0f} |"
        )
        figures |= {f"{name}: {key}": value for key, value in found.items()}
        figures[f"{name}: ratio"] = ratio
    if arguments.size == "small":
        lines += growth(c, figures)
    write(f"speed_methods_{arguments.size}", figures, lines)


def growth(c: int, figures: dict[str, float]) -> list[str]:
    """Return the part about graphs at n, 2n and 4n."""
    lines = [
        "",
        "What a graph's method takes beside the graph, at n, 2n and 4n:",
        "",
        "| method | n | graph, s | the rest, s | graph by n squared, s | the rest by n, us |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in GRAPHS:
        for n in (25_000, 50_000, 100_000):
            found = in_its_own_process(name, n, c)
            if not found:
                continue
            rest = found["method"] - found["graph"]
            squared = found["graph"] * (100_000 / n) ** 2
            lines.append(
                f"| `{name}` | {n:,} | {found['graph']:.1f} | {rest:.1f} | {squared:.1f} | "
                f"{1e6 * rest / n:.0f} |"
            )
            figures |= {f"{name}, {n}: graph": found["graph"], f"{name}, {n}: rest": rest}
    return lines


if __name__ == "__main__":
    main()
