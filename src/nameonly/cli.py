"""The command line. Heavy imports stand inside the commands, so that ``--help`` answers at once.

Exit codes: 0 done; 1 a check failed; 2 bad input; 130 stopped by Ctrl-C.
"""

import atexit
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from nameonly.cli_audit import audit
from nameonly.cli_export import export, push
from nameonly.cli_generate import generate
from nameonly.cli_options import (
    BackboneName,
    BatchSize,
    Cache,
    Column,
    Device,
    Dtype,
    EngineName,
    GpusPerWorker,
    Images,
    Json,
    Limit,
    Out,
    Overwrite,
    Seed,
    Set,
    Workers,
    engine_for,
    open_for,
    print_json,
    run_options,
    say,
)
from nameonly.cli_review import review
from nameonly.cli_serve import serve
from nameonly.cli_train import train
from nameonly.methods import settings_from

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,  # rich help takes three times as long to answer
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

STOPPED = 130


def main() -> None:
    """Run the command line; a wrong input is one line on stderr and exit code 2."""
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        app(standalone_mode=True)
    except SystemExit as end:
        if end.code == STOPPED:
            say("stopped; what was done is kept, the same command goes on from there")
        raise
    except (ValueError, OSError, FloatingPointError) as error:
        say(f"error: {error}")
        sys.exit(2)


def program() -> None:
    """Be the program: ``main``, and where it was stopped an end without delay.

    Python would first look for garbage in all that torch and transformers made, for two seconds.
    """
    try:
        main()
    except SystemExit as end:
        if end.code != STOPPED:
            raise
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(STOPPED)


def _version(wanted: bool | None) -> None:
    if wanted:
        from importlib.metadata import version

        print(version("nameonly"))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool | None,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = None,
) -> None:
    """Class names and unlabelled images in; labels, a classifier and an honest report out."""


@app.command()
def label(
    images: Images,
    classes: Annotated[
        str | None, typer.Option("--classes", "-c", help="cat,dog or a file of names.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder to write.")] = None,
    recipe: Annotated[str, typer.Option(help="See `nameonly methods`.")] = "up_adapter",
    backbone: BackboneName = "openai/clip-vit-base-patch32",
    set_: Set = None,
    given: Annotated[
        Path | None, typer.Option(help="CSV or parquet table of labels that are known already.")
    ] = None,
    seen: Annotated[
        str | None,
        typer.Option(help="Classes whose images all have given labels: the others get the rest."),
    ] = None,
    ensemble: Annotated[
        list[str] | None,
        typer.Option(help="A further backbone that votes on pseudo-labels; may be repeated."),
    ] = None,
    adapt_on: Annotated[
        int | None,
        typer.Option(min=1, help="Learn from a random sample of this many; label all the same."),
    ] = None,
    limit: Limit = None,
    seed: Seed = 0,
    column: Column = None,
    cache: Cache = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    batch_size: BatchSize = 64,
    engine: EngineName = "local",
    workers: Workers = 2,
    gpus_per_worker: GpusPerWorker = 0.0,
    overwrite: Overwrite = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Counts, bad files, time and disk; writes nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Label images from class names alone."""
    settings = settings_from(set_ or [])
    if out is None and not dry_run:
        raise ValueError("label needs --out DIR, the folder to write (or --dry-run)")

    from nameonly import jobs, methods, outputs
    from nameonly.console import Console
    from nameonly.label_space import with_seen

    built = methods.build_recipe(recipe, settings, seed)
    source = images[0] if len(images) == 1 else images
    label_space = jobs.label_space_for(source, classes)
    if seen is not None:
        label_space = with_seen(label_space, seen)
    if out is not None:
        outputs.check_free(out, overwrite)
    loading = {"device": device, "dtype": dtype, "batch_size": batch_size}
    model = open_for(source, backbone, **loading)
    others = [open_for(source, name, **loading) for name in ensemble or []]
    with Console(quiet=as_json) as console:
        options = run_options(console, limit=limit, seed=seed, column=column, cache=cache)
        if dry_run:
            found = jobs.dry_run(source, label_space, model, built, **options)
        else:
            run = jobs.label(
                source,
                label_space,
                recipe=recipe,
                backbone=model,
                settings=settings,
                given=given,
                ensemble=others,
                adapt_on=adapt_on,
                engine=engine_for(engine, workers, gpus_per_worker),
                **{**options, "out": out, "overwrite": overwrite},
            )
    if dry_run:
        print_json(found) if as_json else console.dry_run(found)
        return
    print_json({**run.summary, "out": str(out)}) if as_json else console.run(run)


@app.command()
def predict(
    classifier: Annotated[
        Path, typer.Argument(help="A classifier folder, a run's folder, or a model.onnx.")
    ],
    images: Images,
    out: Out,
    backbone: Annotated[
        str | None, typer.Option(help="Where the same weights lie now, if they have moved.")
    ] = None,
    limit: Limit = None,
    seed: Seed = 0,
    column: Column = None,
    cache: Cache = None,
    device: Device = "auto",
    dtype: Annotated[
        str | None, typer.Option(help="As the classifier was made, unless you say otherwise.")
    ] = None,
    batch_size: BatchSize = 64,
    engine: EngineName = "local",
    workers: Workers = 2,
    gpus_per_worker: GpusPerWorker = 0.0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Label new images with a saved classifier."""
    from nameonly import classifier as product
    from nameonly import jobs, outputs
    from nameonly.console import Console

    outputs.check_free(out, overwrite)
    changed = {"model": backbone, "dtype": dtype, "device": device, "batch_size": batch_size}
    loaded = product.load(classifier, **{k: v for k, v in changed.items() if v is not None})
    if loaded.backbone.note:
        say(f"note: {loaded.backbone.note}")
    source = images[0] if len(images) == 1 else images
    with Console(quiet=as_json) as console:
        options = run_options(console, limit=limit, seed=seed, column=column, cache=cache)
        options |= {"engine": engine_for(engine, workers, gpus_per_worker)}
        run = jobs.predict(loaded, source, **{**options, "out": out, "overwrite": overwrite})
    print_json({**run.summary, "out": str(out)}) if as_json else console.run(run)


app.command()(export)
app.command()(push)
app.command()(generate)
app.command()(audit)
app.command()(train)
app.command()(review)
app.command()(serve)


@app.command()
def evaluate(
    labels: Annotated[Path, typer.Argument(help="labels.parquet of a run, or the run's folder.")],
    truth: Annotated[
        Path | None, typer.Argument(help="CSV or parquet of true labels; none with --by folder.")
    ] = None,
    by: Annotated[
        Literal["auto", "path", "stem", "id", "folder"],
        typer.Option(help="How a truth finds its image; folder = name of the image's folder."),
    ] = "auto",
    key_column: Annotated[str | None, typer.Option(help="Column that names the image.")] = None,
    label_column: Annotated[str | None, typer.Option(help="Column of true labels.")] = None,
    as_json: Json = False,
) -> None:
    """Compare a run's labels with true ones."""
    from nameonly.console import Console
    from nameonly.evaluation.evaluate import evaluate_labels

    path = labels / "labels.parquet" if labels.is_dir() else labels
    found = evaluate_labels(path, truth, by=by, label_column=label_column, key_column=key_column)
    print_json(found.as_dict()) if as_json else Console().evaluation(found)


@app.command()
def compare(
    run1: Annotated[Path, typer.Argument(help="Folder of the first run.")],
    run2: Annotated[Path, typer.Argument(help="Folder of the second run.")],
    as_json: Json = False,
) -> None:
    """Show what changed between two runs."""
    from nameonly.console import Console
    from nameonly.evaluation.compare import compare_runs

    found = compare_runs(run1, run2)
    print_json(found.as_dict()) if as_json else Console().comparison(found)


@app.command()
def methods(as_json: Json = False) -> None:
    """List stages, methods, titles and papers."""
    from dataclasses import asdict

    from nameonly.methods import STAGES, card, names

    cards = [card(stage, name) for stage in STAGES for name in names(stage)]
    if as_json:
        listed: dict[str, list[dict[str, str]]] = {stage: [] for stage in STAGES}
        for found in cards:
            listed[found.stage].append(asdict(found))
        print_json(listed)
        return
    from nameonly.console import Console

    Console().methods(cards)


@app.command()
def doctor(
    verify_backbone: Annotated[
        str | None, typer.Option(help="Check a model against the reference logits kept with it.")
    ] = None,
    write_reference: Annotated[
        bool, typer.Option("--write-reference", help="Keep this machine's logits as the reference.")
    ] = False,
    cache: Cache = None,
    as_json: Json = False,
) -> None:
    """Look for what could go wrong: versions, device, cache, hub, weights."""
    from nameonly import doctor as checks
    from nameonly.console import Console

    if verify_backbone is None:
        found = checks.examine(cache)
    elif write_reference:
        found = [checks.write_reference(verify_backbone)]
    else:
        found = [checks.verify_backbone(verify_backbone)]
    print_json([vars(check) for check in found]) if as_json else Console().checks(found)
    if any(check.failed for check in found):
        raise typer.Exit(1)


@app.command()
def demo(
    out: Out = Path("nameonly-demo"),
    overwrite: Overwrite = False,
    cache: Cache = None,
    as_json: Json = False,
) -> None:
    """Label 1,797 real handwritten digits from ten names; no download."""
    from nameonly.console import Console
    from nameonly.demo import run_demo

    with Console(quiet=as_json) as console:
        found = run_demo(out, **run_options(console, overwrite=overwrite, cache=cache))
    print_json(found) if as_json else console.demo(found)


@app.command()
def bench(
    plan: Annotated[Path, typer.Argument(help="A TOML file; see docs/benchmark.md.")],
    out: Out,
    only: Annotated[
        list[str] | None, typer.Option(help="Label of a method of the plan; may be repeated.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of torch, in place of the plan's.")
    ] = None,
    cache: Cache = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the runs and what is there; writes nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run methods on benchmark data and compare them with zero-shot; the same command resumes."""
    from nameonly.bench.execute import Bench
    from nameonly.console import Console

    with Console(quiet=as_json) as console:
        prepared = Bench(plan, out, only=only or (), threads=threads, cache=cache)
        if dry_run:
            found = prepared.look()
        else:
            found = prepared.execute(console.note, console.stage, console.progress)
    if as_json:
        print_json(found.as_dict())
    else:
        console.bench_plan(found) if dry_run else console.bench(found)
    if found.failed and not dry_run:
        raise typer.Exit(1)
