import hashlib

import pytest

from nameonly.tiny import MODEL
from nameonly.tiny.clip_files import build_model, save_folder, train_tokenizer
from nameonly.tiny.readings import LOG, read_digits, weights_digest


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """An untrained model, so that no test is a reading of the bundled one."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = train_tokenizer(["a photo of a three."] * 30)
    model = build_model(tokenizer, image_layers=1, text_layers=1, width=16, seed=0)
    save_folder(model, tokenizer, folder)
    return folder


def test_a_reading_adds_one_row(untrained, tmp_path):
    log = tmp_path / "log.md"
    log.write_text("| date | model | template | accuracy | n |\n| --- | --- | --- | --- | --- |\n")
    accuracy = read_digits(untrained, "a photo of a {}.", log)
    row = log.read_text().splitlines()[2]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    digest = hashlib.sha256((untrained / "model.safetensors").read_bytes()).hexdigest()[:16]
    assert cells[1:] == [digest, "a photo of a {}.", f"{accuracy:.4f}", "1797"]
    assert len(cells[0]) == len("2026-01-01")
    assert 0 < accuracy < 0.4


def test_bad_template_is_refused_and_leaves_no_row(untrained, tmp_path):
    with pytest.raises(ValueError, match="exactly one"):
        read_digits(untrained, "a photo of a digit.", tmp_path / "log.md")
    assert not (tmp_path / "log.md").exists()


def test_bundled_model_has_been_read_and_logged():
    assert f"| {weights_digest(MODEL)} |" in LOG.read_text(encoding="utf-8")
