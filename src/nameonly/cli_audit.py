"""The command ``audit``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nameonly.cli_options import Json, print_json, share

if TYPE_CHECKING:
    from nameonly.console import Console


def audit(
    run: Annotated[Path, typer.Argument(help="Folder that `label` wrote.")],
    images: Annotated[
        int | None, typer.Option(min=1, help="How many to check; by default what --margin needs.")
    ] = None,
    margin: Annotated[
        float, typer.Option(help="Half the width of the interval wanted: 0.05 = five points.")
    ] = 0.05,
    answers: Annotated[
        Path | None,
        typer.Option(help="audit.csv with its last column filled in, or review.parquet."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw images to check by hand; with --answers, say how accurate all labels are."""
    from nameonly import auditing
    from nameonly.console import Console

    if answers is None:
        found = auditing.draw_audit(run, images, margin)
    else:
        found = auditing.answer_audit(run, answers)
    print_json(found) if as_json else _tell(Console(), found)


def _tell(console: "Console", found: dict[str, Any]) -> None:
    """Print what to check, or what the answers say."""
    if "asked" not in found:
        console.line(f"{found['images']:,} of {found['labels']:,} labels to check: {found['file']}")
        console.line(
            f"fill in its last column (the true class, or none), or use `nameonly review`; the "
            f"accuracy is then known within about {share(found['expected_margin'])}"
        )
        return
    console.line(
        f"accuracy  {share(found['accuracy'])}  ({found['level']:.0%} interval: "
        f"{share(found['low'])} to {share(found['high'])})"
    )
    console.line(f"{found['n_right']:,} of {found['n']:,} checked labels are right")
    if found["answered"] < found["asked"]:
        console.line(f"{found['asked'] - found['answered']:,} of the sample have no answer yet")
    if (before := found["estimated_accuracy_before"]) is not None:
        console.line(f"estimated without labels: {share(before)}")
    if sets := found.get("prediction_sets"):
        console.line(
            f"sets that hold the true class {sets['coverage']:.0%} of the time have "
            f"{sets['mean_size']:.2f} classes on average"
        )
    console.line(f"written to {found['file']}")
    console.line(found["report_problem"] or f"shown in {found['report']}")
