"""The model hub, asked once."""

from collections.abc import Sequence
from pathlib import Path

SECONDS_FOR_HUB = 10


def hub_refusal(repository: str, revision: str) -> Exception | None:
    """Return why the hub does not give a model, None where it does; without retries."""
    from huggingface_hub import HfApi

    try:
        HfApi().model_info(repository, revision=revision, timeout=SECONDS_FOR_HUB)
    except Exception as error:  # every kind of failure to get it means the same here
        return error
    return None


def hub_folder(repository: str, revision: str, patterns: Sequence[str]) -> Path:
    """Return the local copy of some of a model's files, fetched where the hub can be reached.

    Raises:
        ValueError: If neither the hub nor the local copy has the model.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    refusal = hub_refusal(repository, revision)
    try:
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                allow_patterns=list(patterns),
                local_files_only=refusal is not None,
            )
        )
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = str(refusal or error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"the model hub did not give {repository!r} ({reason[0]}), and there is no copy of it "
            "here. Where the hub cannot be reached, download the model elsewhere and pass its "
            "folder"
        ) from error
