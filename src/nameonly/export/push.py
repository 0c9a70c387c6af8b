"""Puts a classifier or an exported data set on the Hugging Face hub, by the hub's own client.

Who is asked, and as whom, is the client's matter: ``HF_ENDPOINT``, ``HF_TOKEN``, ``hf auth login``.
https://huggingface.co/docs/huggingface_hub/guides/upload
"""

import json
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import HfApi

# the hub's client has used httpx and httpx2; this is the one that is in use
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

from nameonly.classifier import CONFIG

RECORD = "export.json"
# it tells of folders on the machine that exported
KEPT_BACK = [RECORD, ".*", "**/.*"]
Kind = Literal["model", "dataset"]


def what_is(folder: Path) -> tuple[Path, Kind]:
    """Return what of a folder goes to the hub, and as what.

    Raises:
        ValueError: If it is neither an export, nor a classifier, nor a run that has one.
    """
    if (folder / RECORD).is_file():
        try:
            to = json.loads((folder / RECORD).read_text(encoding="utf-8"))["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{folder / RECORD} is damaged ({error}); export again") from error
        return folder, "model" if to == "onnx" else "dataset"
    for place in (folder, folder / "classifier"):
        if (place / CONFIG).is_file():
            return place, "model"
    raise ValueError(
        f"{folder} holds nothing to push: expected {RECORD}, as `nameonly export` writes it, or "
        f"{CONFIG}, as `nameonly label` writes it into DIR/classifier"
    )


def push(folder: Path, repo: str, private: bool = True) -> dict[str, Any]:
    """Upload a folder in one commit; the repository is made where it is missing.

    Args:
        folder: Of an export, of a classifier, or of a run with one.
        repo: ``user/name``.
        private: Where it is made, make it so that only its owner sees it.

    Returns:
        ``repo``, ``kind``, ``private`` (as asked for), ``url``, and ``pushed``, the folder.

    Raises:
        ValueError: If the folder is none of these, or the hub refuses or cannot be reached.
    """
    user, slash, name = repo.partition("/")
    if not (user and slash and name) or "/" in name:
        raise ValueError(f"--repo expects user/name, got {repo!r}")
    place, kind = what_is(folder)
    api = HfApi()
    try:
        url = api.create_repo(repo, repo_type=kind, private=private, exist_ok=True)
        api.upload_folder(
            folder_path=place,
            repo_id=repo,
            repo_type=kind,
            ignore_patterns=KEPT_BACK,
            commit_message="Upload by nameonly",
        )
    except (HTTPError, OSError, RuntimeError) as error:  # RuntimeError: a file's upload failed
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{place} could not be pushed to {repo} at {api.endpoint}: {reason}. Log in with "
            "`hf auth login` or HF_TOKEN, as one who may write there; HF_ENDPOINT names another hub"
        ) from error
    return {"repo": repo, "kind": kind, "private": private, "url": str(url), "pushed": str(place)}
