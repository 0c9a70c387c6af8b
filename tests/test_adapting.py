"""Adaptation in real processes: kill -9 in the midst of LoRA training, and two runs at once."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from adapting import EPOCHS
from diffusion_models import new_model
from PIL import Image


@pytest.fixture(scope="module")
def found(all_digits, tmp_path_factory):
    """What ``adapting.py`` found."""
    root = tmp_path_factory.mktemp("adapting")
    photos = root / "photos"
    photos.mkdir()
    for row in range(12):
        with Image.open(all_digits[0] / f"digit-{row:04d}.png") as image:
            image.save(photos / f"{row}.png")
    model = new_model(root / "model")
    got = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "adapting.py"), model, photos, root],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "NAMEONLY_CACHE": str(root / "own")},
    )
    assert got.returncode == 0, got.stderr[-3000:]
    return json.loads((root / "found.json").read_text())


@pytest.mark.parametrize("moment", ["writing", "learning"])
def test_killed_in_training_it_goes_on_to_the_same_lora_and_images(found, moment):
    kill = found["kill"][moment]
    assert kill["codes"] == [-signal.SIGKILL, 0]
    before, after = kill["epochs"]
    assert before and after, "it was killed in the midst of it"
    assert before == list(range(1, len(before) + 1))
    # no epoch that was told as done is trained again; one may have ended without being told
    assert after == list(range(after[0], EPOCHS + 1))
    assert after[0] - before[-1] in {1, 2}
    assert kill["same"] and found["kill"]["images"] == 6 + 6, "unadapted and adapted"


def test_killed_after_training_nothing_is_left_behind(found):
    kill = found["kill"]["clearing"]
    assert kill["codes"] == [-signal.SIGKILL, 0] and kill["same"]
    assert kill["epochs"] == [list(range(1, EPOCHS + 1)), []], "the LoRA was there already"
    killed, resumed = kill["left"]
    assert len(killed) > 1 and resumed == ["pytorch_lora_weights.safetensors"]


def test_a_second_generation_into_the_folder_is_turned_away_at_once(found):
    both = found["generations"]
    assert both["second"]["code"] == 1
    assert "another run is writing" in both["second"]["error"]
    assert both["while_training"] and both["first"]["code"] == 0 and both["same"]


def test_a_second_labelling_waits_and_takes_what_the_first_made(found):
    both = found["labellings"]
    assert [end["code"] for end in both["ends"]] == [0, 0], both["ends"]
    assert both["epochs"] == [list(range(1, EPOCHS + 1)), []] and both["loras"] == 1
    first, second = ([n for n in notes if "waiting for it" in n] for notes in both["notes"])
    assert not first and second
    assert both["labels_alike"]
