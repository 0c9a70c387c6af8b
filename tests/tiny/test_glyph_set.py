import numpy as np
import torch

from nameonly.tiny import glyphs
from nameonly.tiny.glyph_set import render_set

FONTS = ("DejaVuSans", "cmr10")


def test_set_holds_the_glyphs_of_seed_and_place(tmp_path):
    data = render_set(6, FONTS, 3, tmp_path)
    for i in range(6):
        rng = np.random.default_rng((3, i))
        glyph = glyphs.sample_glyph(rng, FONTS)
        assert data.labels[i] == glyph.label
        assert np.array_equal(data.images[i].numpy(), glyphs.draw_glyph(glyph, rng))
        shown = {s for s, on in zip(glyphs.STYLES, data.seen[i].tolist(), strict=True) if on}
        assert shown == glyph.styles


def test_longer_set_begins_with_the_shorter(tmp_path):
    short, long = render_set(3, FONTS, 0, tmp_path), render_set(5, FONTS, 0, tmp_path)
    assert torch.equal(long.images[:3], short.images)


def test_second_call_reads_the_file(tmp_path):
    first = render_set(4, FONTS, 0, tmp_path)
    [path] = tmp_path.iterdir()
    stamp = path.stat().st_mtime_ns
    again = render_set(4, FONTS, 0, tmp_path)
    assert torch.equal(first.images, again.images)
    assert [p.stat().st_mtime_ns for p in tmp_path.iterdir()] == [stamp]


def test_other_wishes_get_other_files(tmp_path):
    images = [
        render_set(4, fonts, seed, tmp_path, hardness).images
        for fonts, seed, hardness in (
            (FONTS, 0, 1.0),
            (FONTS, 1, 1.0),
            (FONTS[:1], 0, 1.0),
            (FONTS, 0, 3.0),
        )
    ]
    assert len(list(tmp_path.iterdir())) == 4
    assert all(not torch.equal(images[0], other) for other in images[1:])
