import pytest

from nameonly.demo import run_demo


@pytest.mark.slow
def test_the_demo_gains_resumes_and_keeps_other_files(tmp_path):
    out = tmp_path / "demo"
    (out / "digits").mkdir(parents=True)
    (out / ".labels.nameonly-partial").mkdir()  # what a kill leaves behind
    found = run_demo(out)
    assert found["n_images"] == 1797
    assert found["accuracy"] > found["zero_shot_accuracy"] > 0.5
    assert (out / "labels" / "report.html").is_file() and "glyphs" in found["backbone_note"]
    with pytest.raises(ValueError, match="--overwrite"):
        run_demo(out)
    assert run_demo(out, overwrite=True)["accuracy"] == found["accuracy"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="no demo's folder"):
        run_demo(tmp_path / "mine", overwrite=True)
