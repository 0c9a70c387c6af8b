"""The command ``generate``."""

from pathlib import Path
from typing import Annotated

import typer

from nameonly.cli_options import (
    BackboneName,
    Cache,
    Device,
    Dtype,
    EngineName,
    GpusPerWorker,
    Json,
    Out,
    Seed,
    Workers,
    engine_for,
    open_for,
    print_json,
)
from nameonly.methods import settings_from


def generate(
    classes: Annotated[str, typer.Option("--classes", "-c", help="cat,dog or a file of names.")],
    out: Out,
    per_class: Annotated[int, typer.Option(min=1, help="Images of each class.")] = 120,
    tricks: Annotated[
        str, typer.Option(help="merged, or some of base,class_prompt,multi_domain,...")
    ] = "merged",
    model: Annotated[
        str, typer.Option(help="A hub id or folder of diffusers, or tiny (knows glyphs only).")
    ] = "stable-diffusion-v1-5/stable-diffusion-v1-5",
    adapt_to: Annotated[
        list[str] | None,
        typer.Option(help="Unlabelled images whose look the model learns first; may be repeated."),
    ] = None,
    given: Annotated[
        Path | None, typer.Option(help="CSV or parquet of known labels of the images to adapt to.")
    ] = None,
    backbone: BackboneName = "openai/clip-vit-base-patch32",
    unadapted: Annotated[
        int,
        typer.Option(min=0, help="Of each class, also made unadapted, to see what it changed."),
    ] = 20,
    keep_agreed: Annotated[
        bool,
        typer.Option(
            "--filter", help="Drop what the backbone takes for another class, and doubles."
        ),
    ] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="text_to_image.steps=20, filter.threshold=0.3; repeatable."),
    ] = None,
    seed: Seed = 0,
    cache: Cache = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    engine: EngineName = "local",
    workers: Workers = 2,
    gpus_per_worker: GpusPerWorker = 0.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show prompts and counts; writes nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make synthetic images from class names; the same command resumes. Needs the extra synth."""
    from nameonly import generation
    from nameonly.console import Console
    from nameonly.journal import Journal
    from nameonly.label_space import read_label_space
    from nameonly.synthetic import summary

    loading = {"device": device, "dtype": dtype}
    settings: dict[str, object] = {f"text_to_image.{k}": v for k, v in loading.items()}
    settings |= {"text_to_image.model": model, "domain_lora.device": device}
    settings |= {"prompt_tricks.tricks": [t.strip() for t in tricks.split(",")]}
    settings |= {"prompt_tricks.seed": seed, "domain_lora.seed": seed}
    settings |= {"filter.agreed": True} if keep_agreed else {}
    parts = generation.configured(generation.Generation(), settings | settings_from(set_ or []))
    needs_backbone = adapt_to or parts.filter
    wanted = generation.Wanted(
        read_label_space(classes),
        per_class,
        adapt_to,
        given,
        open_for(adapt_to, backbone, **loading) if needs_backbone else None,
        unadapted=unadapted,
        engine=engine_for(engine, workers, gpus_per_worker),
        **({} if cache is None else {"cache": cache}),
    )
    with Console(quiet=as_json) as console:
        if dry_run:
            found = generation.look(wanted, parts, out)
        else:
            journal = Journal(None, console.stage, console.progress, console.listener)
            generation.generate(wanted, parts, out, journal)
            found = summary(out)
    print_json(found) if as_json else console.generation(found)
