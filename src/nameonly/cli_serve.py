"""The command ``serve``."""

from pathlib import Path
from typing import Annotated

import typer

from nameonly.cli_options import BatchSize, Device, say


def serve(
    classifier: Annotated[
        Path, typer.Argument(help="A classifier folder, a run's folder, or a model.onnx.")
    ],
    host: Annotated[str, typer.Option(help="0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    batch_size: BatchSize = 32,
    max_wait_ms: Annotated[
        float, typer.Option(min=0, help="How long the first image of a batch waits for others.")
    ] = 5.0,
    max_megabytes: Annotated[float, typer.Option(min=0.001, help="Of a request.")] = 32.0,
    max_images: Annotated[int, typer.Option(min=1, help="Of a request.")] = 64,
    max_megapixels: Annotated[float, typer.Option(min=0.001, help="Of an image.")] = 50.0,
    max_queue: Annotated[int, typer.Option(min=1, help="Images under way at once.")] = 256,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for a request.")] = 30.0,
    device: Device = "auto",
    dtype: Annotated[
        str | None, typer.Option(help="As the classifier was made, unless you say otherwise.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="That decode images.")] = 2,
    backbone: Annotated[
        str | None, typer.Option(help="Where the same weights lie now, if they have moved.")
    ] = None,
    allow_urls: Annotated[
        bool, typer.Option("--allow-urls", help="Fetch images from addresses in requests.")
    ] = False,
    allow_private_addresses: Annotated[
        bool,
        typer.Option("--allow-private-addresses", help="Also from this machine and its network."),
    ] = False,
    allow_folder: Annotated[
        Path | None, typer.Option(help="Read files of this folder that requests name.")
    ] = None,
) -> None:
    """Answer requests over HTTP with a saved classifier. Needs the extra serve."""
    if allow_folder is not None and not allow_folder.is_dir():
        raise ValueError(f"--allow-folder expects a folder, got {allow_folder}")
    if allow_private_addresses and not allow_urls:
        raise ValueError("--allow-private-addresses says more of --allow-urls; give both")

    from nameonly import classifier as product
    from nameonly.serve import server
    from nameonly.serve.batching import Batching
    from nameonly.serve.settings import MEGA, Options
    from nameonly.serve.sources import Allowed

    max_bytes = int(max_megabytes * MEGA)
    options = Options(
        Batching(batch_size, max_wait_ms / 1000, max_queue, threads),
        # a fetch ends before the request's time is over, so that other images have their answers
        Allowed(allow_folder, allow_urls, allow_private_addresses, max_bytes, timeout / 2),
        max_bytes,
        max_images,
        int(max_megapixels * MEGA),
        timeout,
    )
    changed = {"model": backbone, "dtype": dtype, "device": device}
    loaded = product.load(classifier, **{k: v for k, v in changed.items() if v is not None})
    if loaded.backbone.note:
        say(f"note: {loaded.backbone.note}")
    server.serve(loaded, options, host, port, say)
