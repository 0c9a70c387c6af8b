import numpy as np
import pytest
from PIL import Image

from nameonly.ops import views
from nameonly.ops.views import OPERATIONS, make_view, strong_view, view_generator, weak_view


def picture(width=40, height=30):
    """Every pixel differs: red rises to the right, green downwards."""
    red, green = np.meshgrid(np.arange(width) * 6 + 1, np.arange(height) * 8)
    blue = (red + 2 * green) % 256
    return Image.fromarray(np.stack([red, green, blue], axis=2).astype(np.uint8))


def pixels(image):
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("kind", ["weak", "strong"])
def test_a_view_is_a_function_of_id_kind_number_and_seed(kind):
    image = picture()
    before = pixels(image)

    def view(image_id="a", number=0, seed=0):
        return pixels(make_view(image, kind, view_generator(image_id, kind, number, seed)))

    first = view()
    view("b")
    assert np.array_equal(first, view()) and np.array_equal(pixels(image), before)
    for other in (view("b"), view(number=1), view(seed=1)):
        assert other.shape != first.shape or not np.array_equal(other, first)


def test_no_two_views_share_a_generator():
    keys = [("a", "weak", 1, 0), ("a", "strong", 1, 0), ("a", "weak", 0, 1), ("a", "weak", 10, 0)]
    keys += [("a", "weak", 1, 1), ("b", "weak", 1, 0)]
    assert len({view_generator(*key).random() for key in keys}) == len(keys)


@pytest.mark.parametrize(("kind", "function"), [("weak", weak_view), ("strong", strong_view)])
def test_the_kind_chooses_the_function(kind, function):
    image = picture()
    a = make_view(image, kind, np.random.default_rng(3))
    b = function(image, np.random.default_rng(3))
    assert a.mode == "RGB" and np.array_equal(pixels(a), pixels(b))


def test_crops_lie_inside_and_cover_the_papers_range():
    generator = np.random.default_rng(0)
    boxes = np.array([views._crop_box(400, 300, generator) for _ in range(2000)])
    x, y, w, h = boxes.T
    assert (x >= 0).all() and (y >= 0).all() and (x + w <= 400).all() and (y + h <= 300).all()
    area, aspect = w * h / 120_000, w / h
    assert 0.078 < area.min() < 0.1 and 0.9 < area.max() <= 1.0
    assert 0.74 < aspect.min() < 0.77 and 1.3 < aspect.max() < 1.345
    assert abs(np.log(aspect).mean()) < 0.05  # drawn evenly in the logarithm
    free = (400 - w) > 0
    assert 0.4 < (x[free] / (400 - w[free])).mean() < 0.6 and x.max() > 250


@pytest.mark.parametrize(
    ("size", "box"), [((900, 10), (443, 0, 13, 10)), ((10, 900), (0, 443, 10, 13))]
)
def test_where_no_crop_fits_the_middle_is_taken(size, box):
    assert views._crop_box(*size, np.random.default_rng(0)) == box


def test_weak_views_are_squares_cut_out_of_the_picture_and_flipped_every_other_time():
    image, flipped = picture(), 0
    for number in range(200):
        view = weak_view(image, view_generator("a", "weak", number))
        assert view.width == view.height <= 40
        values = pixels(view)
        rises = values[:, -1, 0].mean() - values[:, 0, 0].mean()
        flipped += rises < 0
        assert values[-1, :, 1].mean() >= values[0, :, 1].mean()  # never upside down
        assert values[:, :, 0].max() <= 39 * 6 + 4
    assert 70 < flipped < 130


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (3, 2)])
@pytest.mark.parametrize("kind", ["weak", "strong"])
def test_the_smallest_pictures_work(kind, size):
    for number in range(30):
        view = make_view(Image.new("RGB", size, "red"), kind, view_generator("a", kind, number))
        assert view.width == view.height >= 1


@pytest.mark.parametrize("name", sorted(OPERATIONS))
@pytest.mark.parametrize("level", [-1.0, -0.3, 0.3, 1.0])
def test_every_operation_keeps_the_size_and_all_but_one_change_the_picture(name, level):
    image = picture()
    got = OPERATIONS[name](image, level)
    assert got.size == image.size and got.mode == "RGB"
    assert np.array_equal(pixels(got), pixels(image)) == (name == "identity")


def test_operations_by_hand():
    image = picture()
    there = pixels(image)

    def done(name, level):
        return pixels(OPERATIONS[name](image, level))

    np.testing.assert_allclose(done("brightness", -1.0), there * 0.1, atol=1)
    dimmed = done("contrast", -1.0)
    assert np.ptp(dimmed) < 0.2 * np.ptp(there)
    assert np.ptp(done("colour", -1.0), axis=2).mean() < 0.2 * np.ptp(there, axis=2).mean()
    np.testing.assert_array_equal(done("posterise", 1.0), there & 0b11110000)
    np.testing.assert_array_equal(done("posterise", -0.3), there & 0b11111110)
    np.testing.assert_array_equal(done("solarise", 0.5), np.where(there < 128, there, 255 - there))
    moved = done("translate_x", 0.5)  # 0.45 * 0.5 * 40 = 9 pixels
    np.testing.assert_array_equal(moved[:, :31], there[:, 9:])
    assert (moved[:, 32:] == 128).all()
    raised = done("translate_y", -2 / 3)  # 0.45 * 2 / 3 * 30 = 9 pixels
    np.testing.assert_array_equal(raised[9:], there[:21])
    assert (raised[:8] == 128).all()
    middle = done("rotate", 1.0)
    assert (middle[0, 0] == 128).all()
    np.testing.assert_allclose(middle[15, 20], there[15, 20], atol=20)
    sheared = done("shear_x", 1.0)
    np.testing.assert_array_equal(sheared[0], there[0])
    assert (sheared[10, 0] == there[10, 3]).all()
    slanted = done("shear_y", 1.0)
    np.testing.assert_array_equal(slanted[:, 0], there[:, 0])
    assert (slanted[0, 10] == there[3, 10]).all()


def test_a_strong_view_is_a_weak_one_and_more():
    image = picture()
    differ = 0
    for number in range(40):
        weak = weak_view(image, np.random.default_rng(number))
        strong = strong_view(image, np.random.default_rng(number))
        assert weak.size == strong.size
        differ += not np.array_equal(pixels(weak), pixels(strong))
    assert differ > 30


def test_strong_views_use_every_operation_and_both_signs():
    grey = Image.new("RGB", (9, 9), (100, 100, 100))
    means = {round(pixels(strong_view(grey, np.random.default_rng(s))).mean()) for s in range(400)}
    # brightness 1 +- 0.27, neither, and what translation and equalising make of a grey
    assert {73, 127, 100} <= means and min(means) < 60 and 104 in means
