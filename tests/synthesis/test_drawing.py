"""What a folder of synthetic images says when it is asked for other images than before."""

import numpy as np
import pytest
from diffusion_models import CLASSES, generator, requests
from PIL import Image

from nameonly.synthesis.prompt_tricks import PromptTricks
from nameonly.synthetic import UNASKED, asked_rows, read_synthetic, read_table, summary
from nameonly.types import LabelSpace


def files(folder):
    """Return what the images of a folder hold, by path."""
    found = [p for p in folder.rglob("*") if p.suffix in {".webp", ".png"}]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}


def told(folder):
    """Return the reason of every image of a table."""
    return {row["path"]: (row["kept"], row["reason"]) for row in read_table(folder)}


def picture(path):
    """Write a picture as a person has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path.read_bytes()


def test_fewer_images_lose_none_and_the_table_tells_all(model, tmp_path):
    made = generator(model)
    made.generate(requests(3), tmp_path)
    before = files(tmp_path)
    fewer = made.generate(requests(1), tmp_path)
    assert files(tmp_path) == before
    assert told(tmp_path).keys() == before.keys(), "files and table say the same"
    assert [row["number"] for row in fewer.rows] == [0, 0, 0]
    left_out = [path for path, (kept, _) in told(tmp_path).items() if not kept]
    assert len(left_out) == 6 and {told(tmp_path)[p] for p in left_out} == {(False, UNASKED)}
    assert len(read_synthetic(tmp_path, with_dropped=True)[0]) == 3, "a filter judges no other"
    found = summary(tmp_path)
    assert found["asked_for"] == found["kept"] == 3 and found["not_asked_for"] == 6
    assert not found["dropped"] and found["classes"] == dict.fromkeys(CLASSES.class_names, 1)


def test_who_asks_again_has_them_back_undrawn(model, tmp_path):
    made, heard = generator(model), []
    made.generate(requests(3), tmp_path)
    before = told(tmp_path), files(tmp_path)
    made.generate(requests(1), tmp_path)
    assert made.seconds(requests(3), tmp_path) == 0
    assert len(made.generate(requests(3), tmp_path, lambda *counts: heard.append(counts))) == 9
    assert (told(tmp_path), files(tmp_path)) == before and not heard
    assert summary(tmp_path)["not_asked_for"] == 0


def test_other_classes_and_formats_stand_beside_those_of_before(model, tmp_path):
    generator(model).generate(requests(2), tmp_path)
    others = PromptTricks(("base",)).requests(LabelSpace(("two", "zero")), 1)
    generator(model, image_format="png").generate(others, tmp_path)
    assert told(tmp_path).keys() == files(tmp_path).keys() and len(files(tmp_path)) == 8
    assert summary(tmp_path)["classes"] == {"two": 1, "zero": 1}
    generator(model, steps=2).generate(
        PromptTricks(("base",)).requests(LabelSpace(("six", "two")), 1)[:1], tmp_path
    )
    assert told(tmp_path).keys() == files(tmp_path).keys() and len(files(tmp_path)) == 9
    assert {row["steps"] for row in read_table(tmp_path)} == {2, 3}
    assert [row["class_name"] for row in asked_rows(read_table(tmp_path))] == ["six"]


def test_a_smaller_run_that_is_stopped_changes_nothing(model, tmp_path):
    made, wanted = generator(model, batch_size=2), requests(4)
    made.generate(wanted, tmp_path)
    before = told(tmp_path), files(tmp_path)
    others = PromptTricks(("base",)).requests(LabelSpace(("six", "two")), 2)

    def stop(done, _):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made.generate(others, tmp_path, stop)
    assert told(tmp_path) == before[0] and before[1].items() <= files(tmp_path).items()
    assert len(files(tmp_path)) == 12 + 2, "what was drawn is not lost"
    made.generate(wanted, tmp_path)
    assert told(tmp_path).keys() == files(tmp_path).keys()
    assert summary(tmp_path)["not_asked_for"] == 2


def test_pictures_of_somebody_are_neither_touched_nor_told(model, tmp_path):
    own = {
        f"images/{name}": picture(tmp_path / "images" / name) for name in ("zero/a.webp", "c/b.png")
    }
    (tmp_path / "images" / "c" / "notes.webp").write_text("no picture")
    generator(model).generate(requests(1), tmp_path)
    assert own.items() <= files(tmp_path).items()
    assert len(told(tmp_path)) == 3 and not own.keys() & told(tmp_path).keys()
    moved = tmp_path / "images" / "c" / "00000.webp"
    (tmp_path / requests(1)[0].path("webp")).rename(moved)
    generator(model).generate(requests(1), tmp_path)
    assert moved.exists() and len(read_table(tmp_path)) == 3


def test_a_picture_of_somebody_is_never_overwritten(model, tmp_path):
    place = tmp_path / requests(1)[1].path("webp")
    own = picture(place)
    for ask in (generator(model).generate, generator(model).seconds):
        with pytest.raises(ValueError, match=r"00000\.webp was not made here.* move it away"):
            ask(requests(1), tmp_path)
    assert files(tmp_path) == {requests(1)[1].path("webp").as_posix(): own}
