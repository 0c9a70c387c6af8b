"""The commands ``export`` and ``push``."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from nameonly.cli_options import Column, Json, Out, print_json

Format = Literal[
    "imagefolder",
    "csv",
    "parquet",
    "huggingface",
    "label-studio",
    "fiftyone",
    "cvat",
    "cleanlab",
    "ultralytics",
    "onnx",
]
RECORD = "export.json"


def export(
    folder: Annotated[
        Path,
        typer.Argument(help="A run's folder, of `label` or `predict`; for onnx its classifier."),
    ],
    to: Annotated[Format, typer.Option("--to", help="What to export as; see docs/export.md.")],
    out: Out,
    min_confidence: Annotated[
        float, typer.Option(min=0, max=1, help="Leave out rows that are less certain.")
    ] = 0.0,
    images: Annotated[
        list[str] | None,
        typer.Option(help="Where the images lie now (onnx: to compare on); repeatable."),
    ] = None,
    column: Column = None,
    link: Annotated[
        bool, typer.Option("--link", help="Put symbolic links in place of copies of images.")
    ] = False,
    val_share: Annotated[
        float | None, typer.Option(help="Of ultralytics: share of images in val, 0.1.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Hand on labels (class folders, tables, other tools' data sets), or a CLIP as ONNX."""
    from nameonly import outputs
    from nameonly.console import Console
    from nameonly.export.formats import Wanted, export_run
    from nameonly.export.onnx_clip import export_classifier
    from nameonly.journal import Journal

    check_new(out)
    wanted = None
    if to != "onnx":
        wanted = Wanted(to, min_confidence, images, column, link, val_share)
    elif min_confidence or link or val_share is not None:
        raise ValueError("onnx is of a classifier: it goes with --images and --column alone")
    with Console(quiet=as_json) as console:
        journal = Journal(None, console.stage, console.progress)
        if out.is_dir():
            out.rmdir()  # empty: so that the export comes by one rename, whole or not at all
        with outputs.staging(out) as place:
            if wanted is None:
                found = export_classifier(folder, place, images, column, journal)
            else:
                found = export_run(folder, wanted, place, journal)
            write_record(place, found)
    print_json({**found, "out": str(out)}) if as_json else show(console, found, out)


def check_new(out: Path) -> None:
    """Refuse an output folder that holds anything: old files would mix with the new.

    Raises:
        ValueError: If it does.
    """
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists() or out.is_symlink():
        raise ValueError(
            f"the output folder {out} is there and not empty; delete it, or choose a new one with "
            "--out"
        )


def write_record(place: Path, found: dict[str, Any]) -> None:
    """Write ``export.json``: what was exported from where, and what was left out.

    Raises:
        OSError: If it cannot be written.
    """
    import json

    text = json.dumps(found, indent=2, ensure_ascii=False)
    (place / RECORD).write_text(text + "\n", encoding="utf-8", errors="replace")


def show(console: Any, found: dict[str, Any], out: Path) -> None:
    """Print what was exported and what was left out."""
    if found["format"] == "onnx":
        show_onnx(console, found, out)
        return
    console.line(
        f"{found['exported']:,} of {found['sources']:,} sources exported as {found['format']}"
    )
    if found["below"]:
        console.line(f"{found['below']:,} are less certain than {found['min_confidence']:g}")
    if found["abstained"]:
        console.line(f"{found['abstained']:,} have no label, since the run abstained")
    if bad := found["unreadable"]:
        console.line(f"{len(bad):,} could not be read: see {out}/{RECORD}")
        for one in bad[:3]:
            console.line(f"  {one['path']}: {one['reason']}")
    for note in found["notes"]:
        console.line(f"note: {note}")
    console.line(f"export  {out}")


def show_onnx(console: Any, found: dict[str, Any], out: Path) -> None:
    """Print how the file compares with the classifier."""
    if parity := found["parity"]:
        console.line(
            f"{100 * parity['same_labels']:.1f} % of {parity['images']} images labelled as by "
            f"torch, probabilities differ by {parity['max_difference']:.1g} at most"
        )
    for note in found["notes"]:
        console.line(f"note: {note}")
    console.line(f"network  {out}/model.onnx")


def push(
    folder: Annotated[
        Path, typer.Argument(help="An export, a classifier, or a run (then its classifier).")
    ],
    repo: Annotated[str, typer.Option(help="user/name; made where it is missing.")],
    public: Annotated[
        bool, typer.Option("--public", help="Where it is made, let everybody see it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Put an export or a classifier on the Hugging Face hub."""
    from nameonly.console import Console
    from nameonly.export import push as hub

    found = hub.push(folder, repo, private=not public)
    if as_json:
        print_json(found)
        return
    console = Console()
    console.line(f"{found['pushed']} is now a {found['kind']} of the hub")
    console.line(f"hub  {found['url']}")
