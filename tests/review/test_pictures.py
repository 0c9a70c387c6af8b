import io
import threading

import numpy as np
import pytest
from PIL import Image
from reviewing import small_run

from nameonly.images import BadImageError
from nameonly.review.labels import read_run
from nameonly.review.pictures import Pictures, encoded, find_images


def opened(data):
    return Image.open(io.BytesIO(data))


def test_large_images_become_small_and_tiny_ones_keep_every_pixel():
    large = Image.effect_noise((900, 600), 50).convert("RGB")
    small = opened(encoded(large, 192))
    assert small.format == "WEBP" and small.size == (192, 128)
    tiny = Image.effect_noise((40, 30), 50).convert("RGB")
    assert np.array_equal(np.asarray(opened(encoded(tiny.copy(), 192))), np.asarray(tiny))


def test_the_cache_keeps_to_its_bound_and_drops_the_oldest(tmp_path):
    labels = read_run(small_run(tmp_path))
    found, rows = find_images(labels, None)
    size = len(Pictures(found, rows).make(0, 192))
    pictures = Pictures(found, rows, cache_bytes=4 * size)
    for image in range(len(labels)):
        pictures.make(image, 192)
        pictures.make(0, 192)  # asked for again and again, so kept
        assert pictures.kept_bytes <= 4 * size
    assert pictures.kept(0, 192) is not None and pictures.kept(5, 192) is None
    assert pictures.kept_bytes > 0


def test_many_threads_ask_for_the_same(tmp_path):
    labels = read_run(small_run(tmp_path))
    pictures = Pictures(*find_images(labels, None))
    made = []
    threads = [threading.Thread(target=lambda: made.append(pictures.make(1, 192))) for _ in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 1 and pictures.kept_bytes == len(made[0])


def test_images_are_found_by_their_bytes_wherever_they_lie(tmp_path):
    labels = read_run(small_run(tmp_path))
    (tmp_path / "images").rename(tmp_path / "moved")
    (tmp_path / "moved" / "image-003.png").rename(tmp_path / "moved" / "renamed.png")
    (tmp_path / "moved" / "image-004.png").unlink()
    with pytest.raises(ValueError, match="name them with --images"):
        find_images(labels, None)
    found, rows = find_images(labels, tmp_path / "moved")
    assert found.sources[rows[3]] == "renamed.png"
    assert np.nonzero(rows < 0)[0].tolist() == [4]
    pictures = Pictures(found, rows)
    with pytest.raises(BadImageError, match="not found"):
        pictures.make(4, 192)
    (tmp_path / "moved" / "image-005.png").write_bytes(b"something else")
    with pytest.raises(BadImageError, match="changed"):
        pictures.make(5, 192)


def test_other_images_are_refused(tmp_path):
    labels = read_run(small_run(tmp_path))
    (tmp_path / "other").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "other" / "a.png")
    with pytest.raises(ValueError, match="none of the 1 images is one that"):
        find_images(labels, tmp_path / "other")
