"""The command ``review``."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from nameonly.cli_options import Json, print_json, say


def review(
    run: Annotated[Path, typer.Argument(help="Folder that `label` or `predict` wrote.")],
    images: Annotated[
        list[str] | None, typer.Option(help="Where the images lie now; repeatable.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
    show: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in the browser.")
    ] = True,
    audit: Annotated[
        int | None,
        typer.Option(min=1, help="Draw so many images for an audit first; see `nameonly audit`."),
    ] = None,
    finish: Annotated[
        bool, typer.Option("--finish", help="Only bring review.parquet up to date.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Correct a run's labels by hand in a local web page. Needs the extra review."""
    from contextlib import ExitStack

    from nameonly.auditing import SAMPLE, audit_queue
    from nameonly.console import Console
    from nameonly.review import job
    from nameonly.review.queues import AUDIT

    if finish:
        found = job.finish(run)
    else:
        with ExitStack() as reading:
            console = reading.enter_context(Console(quiet=as_json))
            console.stage("ingest")

            def progress(done: int, total: int) -> None:
                console.progress(done, total)
                if done == total:
                    reading.close()  # the bar ends here, the review goes on

            drawn = audit_queue(run, audit)
            queues = {AUDIT: drawn} if drawn else {}
            wanted = job.Wanted(images, host, port, show, queues, say, progress)
            found = job.review(run, wanted)
    if (run / SAMPLE).is_file():
        found["audit"] = shlex.join(["nameonly", "audit", str(run), "--answers", found["table"]])
    print_json(found) if as_json else _tell(found)


def _tell(found: dict[str, Any]) -> None:
    """Print what was decided, and what to do with it."""
    print(f"{found['decided']:,} of {found['images']:,} images reviewed")
    for kind in ("accepted", "corrected", "none", "unsure"):
        if found[kind]:
            print(f"  {kind:<10}{found[kind]:,}")
    if found["left_out"]:
        print(f"{found['left_out']:,} decisions are about images or classes this run does not have")
    print(f"table  {found['table']}")
    if found["accepted"] + found["corrected"]:
        print(f"next   {found['next']}")
    if "audit" in found:
        print(f"audit  {found['audit']}")
