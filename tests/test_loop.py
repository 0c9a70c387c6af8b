import math
from dataclasses import replace
from itertools import chain

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from nameonly.loop import Schedule, Trained, minimise

INPUTS = torch.randn(37, 5, generator=torch.Generator().manual_seed(0))
TWO_EPOCHS = Schedule(2, 8, 0.1)
TARGET = INPUTS @ torch.arange(5.0) + 1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"epochs": -1}, "epochs must be at least 0, got -1"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"warmup_epochs": -3.0}, "warmup_epochs must be at least 0"),
        ({"weight_decay": -3.0}, "weight_decay must be at least 0"),
        ({"learning_rate": -1.0}, "learning_rate must be at least 0"),
        ({"learning_rate": math.nan}, "learning_rate must be at least 0"),
        ({"epsilon": 0.0}, "epsilon must be above 0"),
        ({"clip": 0.0}, "clip must be above 0"),
    ],
)
def test_schedules_that_cannot_be_meant_are_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        replace(TWO_EPOCHS, **fields)


def make_model(width=5):
    torch.manual_seed(3)
    return nn.Linear(width, 1)


def squared_error(model):
    def loss(rows):
        return (model(INPUTS[rows]).squeeze(1) - TARGET[rows]).square().mean()

    return loss


class KilledError(Exception):
    pass


def kill_after(epoch):
    def on_epoch(number, mean):
        if number == epoch:
            raise KilledError

    return on_epoch


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_resumed_run_equals_uninterrupted_run_bit_for_bit(tmp_path, optimiser):
    schedule = Schedule(
        6, 8, 0.02, warmup_epochs=1.0, weight_decay=0.1, optimiser=optimiser, clip=1.0
    )
    whole, resumed, path = make_model(), make_model(), tmp_path / "deep" / "run.safetensors"
    means = minimise(squared_error(whole), list(whole.parameters()), 37, schedule, seed=5)
    arguments = (squared_error(resumed), list(resumed.parameters()), 37, schedule)
    with pytest.raises(KilledError):
        minimise(*arguments, seed=5, checkpoint=path, on_epoch=kill_after(2))
    with torch.no_grad():
        resumed.weight.fill_(9.0)  # what the checkpoint holds must win
    assert minimise(*arguments, seed=5, checkpoint=path) == means
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_finished_run_is_loaded_and_not_trained_again(tmp_path):
    model, path = make_model(), tmp_path / "run.safetensors"
    schedule = Schedule(2, 8, 0.1)
    means = minimise(squared_error(model), list(model.parameters()), 37, schedule, checkpoint=path)
    again, heard = make_model(), []
    found = minimise(
        squared_error(again),
        list(again.parameters()),
        37,
        schedule,
        checkpoint=path,
        on_epoch=lambda *told: heard.append(told),
    )
    assert found == means and len(means) == 2 and heard == []
    assert torch.equal(again.weight, model.weight)


def test_a_checkpoint_without_losses_is_resumed_all_the_same(tmp_path):
    whole, model, path = make_model(), make_model(), tmp_path / "run.safetensors"
    schedule = Schedule(3, 8, 0.1)
    means = minimise(squared_error(whole), list(whole.parameters()), 37, schedule)
    arguments = (squared_error(model), list(model.parameters()), 37, schedule)
    with pytest.raises(KilledError):
        minimise(*arguments, checkpoint=path, on_epoch=kill_after(2))
    with safe_open(path, framework="pt") as file:
        about = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    del about["losses"]  # as older versions wrote it
    save_file(tensors, path, about)
    assert minimise(*arguments, checkpoint=path) == means[2:]
    assert torch.equal(whole.weight, model.weight)


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_learns_a_linear_map(optimiser):
    model = make_model()
    rate = 0.3 if optimiser == "adamw" else 0.02
    means = minimise(
        squared_error(model),
        list(model.parameters()),
        37,
        Schedule(40, 8, rate, optimiser=optimiser),
    )
    assert means[-1] < 1e-2 * means[0]
    assert torch.allclose(model.weight[0], torch.arange(5.0), atol=0.05)


def test_every_image_is_seen_once_an_epoch_in_an_order_of_the_seed():
    def orders(seed):
        seen = []
        parameter = nn.Parameter(torch.zeros(()))

        def loss(rows):
            seen.append(rows.tolist())
            return parameter * 1.0

        minimise(loss, [parameter], 10, Schedule(2, 4, 0.1), seed=seed)
        return seen

    first = orders(0)
    assert [len(rows) for rows in first] == [4, 4, 2, 4, 4, 2]
    epochs = [list(chain(*first[:3])), list(chain(*first[3:]))]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert orders(0) == first != orders(1)


def test_mean_loss_weighs_images_and_not_batches():
    parameter = nn.Parameter(torch.zeros(()))
    means = minimise(
        lambda rows: rows.float().mean() + parameter * 0, [parameter], 5, Schedule(1, 4, 0.1)
    )
    assert means == [pytest.approx(2.0)]


def test_warm_up_and_cosine_by_hand():
    schedule = Schedule(epochs=3, batch_size=1, learning_rate=0.8, warmup_epochs=1.0)
    rates = [schedule.rate(step, 4) for step in range(12)]
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rates[4:7] == pytest.approx(
        [0.8, 0.4 * (1 + math.cos(math.pi / 8)), 0.4 * (1 + math.cos(math.pi / 4))]
    )
    assert rates[8] == pytest.approx(0.4)
    assert schedule.rate(12, 4) == pytest.approx(0.0)


def test_a_warm_up_that_ends_within_a_step_does_not_pass_the_peak():
    schedule = Schedule(epochs=2, batch_size=1, learning_rate=0.8, warmup_epochs=0.375)
    assert [schedule.rate(step, 4) for step in range(2)] == pytest.approx([0.8 / 1.5, 0.8])


def test_sgd_takes_the_step_worked_out_by_hand():
    parameter = nn.Parameter(torch.tensor(1.0))
    schedule = Schedule(epochs=1, batch_size=2, learning_rate=0.5, optimiser="sgd")
    minimise(lambda rows: parameter * 3, [parameter], 4, schedule)
    # Rates 0.5 and 0.25; velocities 3 and 0.9 * 3 + 3.
    assert parameter.item() == pytest.approx(1 - 0.5 * 3 - 0.25 * 5.7)


def test_clip_limits_the_norm_of_all_gradients():
    parameters = [nn.Parameter(torch.tensor(0.0)), nn.Parameter(torch.tensor(0.0))]
    schedule = Schedule(epochs=1, batch_size=1, learning_rate=1.0, optimiser="sgd", clip=1.0)
    minimise(lambda rows: 30 * parameters[0] + 40 * parameters[1], parameters, 1, schedule)
    assert [p.item() for p in parameters] == pytest.approx([-0.6, -0.8], abs=1e-4)


def test_weight_decay_is_decoupled_for_adamw():
    parameter = nn.Parameter(torch.tensor(2.0))
    schedule = Schedule(epochs=1, batch_size=1, learning_rate=0.1, weight_decay=0.5)
    minimise(lambda rows: parameter * 0, [parameter], 1, schedule)
    assert parameter.item() == pytest.approx(2.0 * (1 - 0.1 * 0.5))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_loss_that_is_not_finite_stops_the_run_before_the_parameters_change(bad):
    parameter = nn.Parameter(torch.tensor(1.0))
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        minimise(lambda rows: parameter * bad, [parameter], 3, Schedule(1, 3, 0.1))
    assert parameter.item() == 1.0


def test_no_image_is_refused():
    with pytest.raises(ValueError, match="at least one image"):
        minimise(
            lambda rows: torch.zeros(()), [nn.Parameter(torch.zeros(1))], 0, Schedule(1, 1, 0.1)
        )


def checkpointed(path, model, schedule=TWO_EPOCHS, n=37, seed=0):
    return minimise(
        squared_error(model), list(model.parameters()), n, schedule, seed=seed, checkpoint=path
    )


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"n": 36},
        {"schedule": Schedule(3, 8, 0.1)},
        {"schedule": Schedule(2, 8, 0.1, optimiser="sgd")},
    ],
)
def test_checkpoint_of_another_run_is_refused(tmp_path, change):
    path = tmp_path / "run.safetensors"
    checkpointed(path, make_model())
    model = make_model()
    before = model.weight.clone()
    with pytest.raises(ValueError, match=r"another run .* delete"):
        checkpointed(path, model, **change)
    assert torch.equal(model.weight, before)


def test_checkpoint_of_other_parameters_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    checkpointed(path, make_model())
    with pytest.raises(ValueError, match=r"other parameters \(2 of them with 6 numbers"):
        checkpointed(path, make_model(width=4))


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", b"\x80\x04pickle."])
def test_file_that_is_no_checkpoint_is_refused_and_kept(tmp_path, content):
    path = tmp_path / "run.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        checkpointed(path, make_model())
    assert path.read_bytes() == content


def test_foreign_safetensors_file_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="another run"):
        checkpointed(path, make_model())


def test_checkpoint_names_its_epoch_and_leaves_no_partial_file(tmp_path):
    path = tmp_path / "run.safetensors"
    checkpointed(path, make_model())
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["epoch"] == "2"
    assert [p.name for p in tmp_path.iterdir()] == ["run.safetensors"]


def test_on_epoch_hears_every_epoch_from_one():
    heard = []
    model = make_model()
    means = minimise(
        squared_error(model),
        list(model.parameters()),
        37,
        Schedule(3, 8, 0.1),
        on_epoch=lambda epoch, mean: heard.append((epoch, mean)),
    )
    assert heard == list(enumerate(means, start=1))


def test_what_else_training_changes_is_kept_in_the_checkpoint(tmp_path):
    def trained(model, counted):
        def step():
            counted.add_(1)

        return Trained(list(model.parameters()), [counted], step)

    schedule, path = Schedule(4, 8, 0.02), tmp_path / "run.safetensors"
    whole, resumed, counted, again = make_model(), make_model(), torch.zeros(1), torch.zeros(1)
    minimise(squared_error(whole), trained(whole, counted), 37, schedule)
    with pytest.raises(KilledError):
        minimise(
            squared_error(resumed),
            trained(resumed, torch.zeros(1)),
            37,
            schedule,
            checkpoint=path,
            on_epoch=kill_after(2),
        )
    with pytest.raises(ValueError, match="checkpoint of other parameters"):
        minimise(
            squared_error(resumed), trained(resumed, torch.zeros(2)), 37, schedule, checkpoint=path
        )
    minimise(squared_error(resumed), trained(resumed, again), 37, schedule, checkpoint=path)
    assert counted.item() == again.item() == 4 * 5


def test_vectors_can_be_spared_from_weight_decay():
    def decayed(spare):
        model = make_model()
        schedule = Schedule(1, 37, 0.1, weight_decay=0.5, spare_vectors=spare)
        with torch.no_grad():
            model.bias.fill_(1.0)
        zero = lambda rows: sum(p.sum() * 0 for p in model.parameters())  # noqa: E731
        before = model.weight.clone()
        minimise(zero, list(model.parameters()), 37, schedule)
        torch.testing.assert_close(model.weight, before * 0.95)
        return model.bias.item()

    assert decayed(True) == 1.0
    assert decayed(False) == pytest.approx(0.95)
