"""What the commands share: options that several have, settings, JSON, opening a backbone."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace a finished run in the folder.")
]
Limit = Annotated[int | None, typer.Option(help="Take a random sample of this many sources.")]
Seed = Annotated[int, typer.Option(help="Of the sample and of whatever trains.")]
Column = Annotated[str | None, typer.Option(help="Column of images or paths in a table.")]
Cache = Annotated[Path | None, typer.Option(help="Folder of the feature stores.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    typer.Option(help="auto takes bfloat16 where the processor has it, else float32."),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Images encoded at a time.")]
EngineName = Annotated[
    Literal["local", "ray"],
    typer.Option("--engine", help="Where images are read, encoded or drawn: here, or by Ray's."),
]
Workers = Annotated[int, typer.Option(min=1, help="Of --engine ray: processes at once.")]
GpusPerWorker = Annotated[float, typer.Option(min=0, help="Of --engine ray: GPUs of each.")]
Images = Annotated[
    list[str],
    typer.Argument(
        help="A folder (of images, or save_to_disk's), files, a quoted glob, a table, tar shards, "
        "their s3://, gs://, az:// or https:// URLs, or an npz or safetensors file of your own "
        "features."
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="stage.field=value or stage=method; may be repeated."),
]
BackboneName = Annotated[
    str,
    typer.Option(
        help="A hub id, a local folder, open_clip:MODEL/TAG, or tiny (knows glyphs only)."
    ),
]


def share(value: float | None) -> str:
    """Return a share as a percentage, or a dash where it is not known."""
    return "-" if value is None else f"{100 * value:.1f} %"


def say(text: str) -> None:
    """Print a line on stderr."""
    print(text, file=sys.stderr)


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    text = json.dumps(value, ensure_ascii=False, indent=2, default=str)
    print(text.encode(errors="replace").decode())  # a path need not be valid Unicode


def run_options(console: Any, **options: Any) -> dict[str, Any]:
    """Return options of a run that a console follows."""
    hooks = {"on_stage": console.stage, "on_progress": console.progress}
    hooks["on_note"] = console.listener
    return {**options, **hooks}


def engine_for(name: str, workers: int, gpus_per_worker: float) -> Any:
    """Return the engine of a name; None for this process.

    Raises:
        ValueError: If the engine's package is not installed.
    """
    if name == "local":
        return None
    from nameonly.engines.ray import RayEngine, import_ray

    import_ray()
    return RayEngine(workers, gpus_per_worker)


def open_for(source: Any, name: str, **options: Any) -> Any:
    """Return the backbone for images, if there are any, or the reader of a file of features."""
    from nameonly.classifier import open_backbone
    from nameonly.pipeline import backbone_for

    backbone = open_backbone(name, **options)
    if source is not None:
        backbone = backbone_for(source, backbone)
    if backbone.note:
        say(f"note: {backbone.note}")
    return backbone
