"""How long drawing and training will take."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import PixArtAlphaPipeline, StableDiffusionPipeline
from diffusion_models import CLASSES, generator, requests

from nameonly.images import open_images
from nameonly.loop import Schedule
from nameonly.synthesis import _timing, domain_lora
from nameonly.synthesis._adaptation import epochs_behind, lora_id
from nameonly.synthesis._pipelines import tells_steps
from nameonly.synthesis._timing import in_words, seconds_to_draw
from nameonly.synthesis.domain_lora import DomainLora
from nameonly.types import PseudoLabels


def test_drawing_takes_no_time_when_all_is_there(model, tmp_path, monkeypatch):
    Clock(_timing, monkeypatch, tick=1.0)
    made, wanted, folder = generator(model, batch_size=2), requests(4), tmp_path / "out"
    assert made.seconds(wanted, folder) > 0 and not folder.exists()
    made.generate(wanted, folder)
    assert made.seconds(wanted, folder) == 0
    there = sorted(folder.rglob("*"))
    (folder / wanted[0].path("webp")).unlink()
    one = made.seconds(wanted, folder)
    assert 0 < one < made.seconds(wanted, None)
    assert len(sorted(folder.rglob("*"))) == len(there) - 1


@pytest.mark.parametrize(
    ("scheduler", "steps"),
    [("model", 1), ("model", 6), ("pndm", 6), ("dpm++", 3), ("euler-ancestral", 6)],
)
def test_images_stay_what_they_are(model, scheduler, steps):
    fields = {"scheduler": scheduler, "steps": steps}
    want, _ = generator(model, **fields).draw(requests(1))
    tried, state = generator(model, **fields), torch.get_rng_state()
    assert tried.seconds(requests(2), None) > 0
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(tried.draw(requests(1))[0], want)


class Clock:
    """A clock that stands still unless it is told to go on, or by a second whenever it is asked."""

    def __init__(self, module, monkeypatch, tick=0.0):
        self.now, self.tick = 0.0, tick
        monkeypatch.setattr(module, "time", self)

    def perf_counter(self):
        self.now += self.tick
        return self.now


def test_steps_guidance_and_decoding_are_counted(monkeypatch):
    """With times that are known: 20 ms an image and pass, and 50 ms an image decoded."""
    clock = Clock(_timing, monkeypatch)

    def draw(batch, num_inference_steps, callback_on_step_end):
        passes = 2 if batch[0].guidance_scale > 1 else 1
        for i in range(num_inference_steps):
            clock.now += 0.02 * len(batch) * passes + 0.2 * (i == 0)
            callback_on_step_end(None, i, None, {"latents": torch.zeros(1)})
        clock.now += 0.05 * len(batch)
        return np.zeros((len(batch), 8, 8, 3), dtype=np.float32), [False] * len(batch)

    plain, strong = requests(2, guidance_scale=1.0), requests(2, guidance_scale=3.0)
    for batches, steps in (([strong], 10), ([strong, plain, plain, plain], 7), ([plain], 2)):
        want = sum(
            len(b) * (0.05 + 0.02 * steps * (2 if b[0].guidance_scale > 1 else 1)) for b in batches
        )
        assert seconds_to_draw(batches, steps, draw, "webp") == pytest.approx(want)


def test_what_only_the_first_call_costs_is_counted_for_none(monkeypatch):
    """Five seconds to get going, and three for the first file, would be hours for many images."""
    clock, calls, written = Clock(_timing, monkeypatch), [], []

    def draw(batch, num_inference_steps, callback_on_step_end):
        for i in range(num_inference_steps):
            clock.now += 0.1 + 0.02 * len(batch)
            callback_on_step_end(None, i, None, {"latents": torch.zeros(1)})
        clock.now += (0.3 if calls else 5.0) + 0.05 * len(batch)
        calls.append(len(batch))
        return np.zeros((len(batch), 8, 8, 3), dtype=np.float32), [False] * len(batch)

    def write(*_):
        clock.now += 0.01 if written else 3.0
        written.append(1)

    monkeypatch.setattr(_timing, "write_image", write)
    plain = requests(3, guidance_scale=1.0)
    for batches, steps in (([plain] * 40, 20), ([plain, plain[:1], plain[:4]], 1), ([plain], 2)):
        calls.clear()
        written.clear()
        want = sum(0.3 + 0.06 * len(b) + steps * (0.1 + 0.02 * len(b)) for b in batches)
        assert seconds_to_draw(batches, steps, draw, "webp") == pytest.approx(want)
        assert calls == [1, 1, 9], "a call of one image costs little"


def test_small_batches_are_not_taken_for_shares_of_large_ones(monkeypatch):
    """Noise that has a call of one image take as long as one of nine, or a ninth, or less."""
    Clock(_timing, monkeypatch)
    for one, all_, at_three in ((1.0, 9.0, 3.0), (2.0, 2.0, 2.0), (3.0, 2.0, 2.0), (0.0, 9.0, 3.0)):
        assert _timing._line((1, one), (9, all_))(3) == pytest.approx(at_three)
        assert _timing._line((1, one), (9, all_))(9) == all_
    assert _timing._line((4, 5.0), (4, 8.0))(1) == 2.0


def test_a_pipeline_that_tells_of_no_step_is_timed_whole(monkeypatch):
    assert tells_steps(StableDiffusionPipeline.__new__(StableDiffusionPipeline))
    assert not tells_steps(PixArtAlphaPipeline.__new__(PixArtAlphaPipeline))
    clock = Clock(_timing, monkeypatch)

    def draw(batch, num_inference_steps):
        clock.now += 0.02 * len(batch) * num_inference_steps
        return np.zeros((len(batch), 8, 8, 3), dtype=np.float32), [False] * len(batch)

    plain = requests(2, guidance_scale=1.0)
    found = seconds_to_draw([plain, plain], 20, draw, "webp", tells_steps=False)
    assert found == pytest.approx(2 * len(plain) * 0.02 * 20)


def test_training_takes_less_time_when_some_of_it_is_behind(
    model, all_digits, tmp_path, monkeypatch
):
    Clock(domain_lora, monkeypatch, tick=1.0)
    files = sorted(all_digits[0].iterdir())[:6]
    images, _ = open_images([str(file) for file in files])
    candidates = torch.eye(3, dtype=torch.bool).repeat(2, 1)
    labels = PseudoLabels(images.ids, torch.full((6, 3), 1 / 3), candidates, torch.ones(6))
    learner = DomainLora(2, schedule=Schedule(30, 6, 1e-2), dtype="float32", device="cpu")

    def stop(epoch, _):
        if epoch == 28:
            raise KeyboardInterrupt

    whole = learner.seconds(6, model, tmp_path)
    assert epochs_behind(tmp_path) == 0 and not list(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        learner.adapt(images, labels, CLASSES, model, tmp_path, on_epoch=stop)
    assert epochs_behind(tmp_path) == 28
    # loading takes a second of this clock, and so does every epoch
    assert whole == 1 + 30 and learner.seconds(6, model, tmp_path) == 1 + 2
    fewer = replace(learner, schedule=replace(learner.schedule, epochs=20))
    assert fewer.seconds(6, model, tmp_path) == 1
    learner.adapt(images, labels, CLASSES, model, tmp_path)
    learner.adapt(images, labels, CLASSES, model, tmp_path / "other")
    assert lora_id(tmp_path) == lora_id(tmp_path / "other")


def test_times_are_told_in_words():
    told = [in_words(s) for s in (0.2, 40.0, 89.9, 90.0, 1200.0, 5399.0, 5400.0, 4e4)]
    assert told == ["1 s", "40 s", "90 s", "2 min", "20 min", "90 min", "1.5 h", "11.1 h"]
