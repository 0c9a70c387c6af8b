"""The only training loop.

A method hands over a loss of image indices, its parameters and how many images there are; the loop
owns order, optimiser, schedule, clipping, checkpoints and the early error on a loss that is not finite.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

Loss = Callable[[Int[Tensor, " b"]], Float[Tensor, ""]]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Attributes:
        epochs: Passes over the images.
        batch_size: Images per step.
        learning_rate: Peak rate; it falls to zero along a cosine.
        warmup_epochs: Passes over which the rate rises linearly from zero.
        weight_decay: Decoupled for AdamW, L2 for SGD.
        optimiser: ``"adamw"`` or ``"sgd"`` (momentum 0.9).
        epsilon: AdamW's denominator term.
        clip: Largest gradient norm; None leaves gradients as they are.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    warmup_epochs: float = 0.0
    weight_decay: float = 0.0
    optimiser: Literal["adamw", "sgd"] = "adamw"
    epsilon: float = 1e-8
    clip: float | None = None

    def rate(self, step: int, steps_per_epoch: int) -> float:
        """Return the learning rate of a step, counted from zero."""
        warm = self.warmup_epochs * steps_per_epoch
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        total = self.epochs * steps_per_epoch
        done = (step - warm) / max(1.0, total - warm)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def minimise(
    loss: Loss,
    parameters: Sequence[nn.Parameter],
    n: int,
    schedule: Schedule,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
    on_epoch: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Minimise ``loss`` over ``n`` images and return the mean loss of every epoch run here.

    The order of images is a function of seed and epoch alone, so a run that resumes from its
    checkpoint takes the same steps as one that was never stopped.

    Args:
        loss: Maps image indices (b) to a scalar.
        parameters: Trained in place.
        n: Number of images; indices run from 0 to n - 1.
        schedule: Length, rate and optimiser.
        seed: Of the order of images.
        checkpoint: A safetensors file, written after every epoch and resumed from where it exists.
        on_epoch: Called after every epoch with its number (from one) and mean loss.

    Raises:
        ValueError: If there is no image, or a checkpoint belongs to other parameters.
        FloatingPointError: If the loss is not finite.
    """
    if n < 1:
        raise ValueError("training needs at least one image, got none")
    optimiser = _optimiser(parameters, schedule)
    first = _resume(checkpoint, parameters, optimiser)
    steps_per_epoch = math.ceil(n / schedule.batch_size)
    means = []
    for epoch in range(first, schedule.epochs):
        total = 0.0
        for i, rows in enumerate(_batches(n, schedule.batch_size, seed, epoch)):
            rate = schedule.rate(epoch * steps_per_epoch + i, steps_per_epoch)
            for group in optimiser.param_groups:
                group["lr"] = rate
            total += _step(loss, rows, parameters, optimiser, schedule.clip) * len(rows)
        means.append(total / n)
        _save(checkpoint, parameters, optimiser, epoch + 1)
        if on_epoch is not None:
            on_epoch(epoch + 1, means[-1])
    return means


def _batches(n: int, size: int, seed: int, epoch: int) -> Iterator[Int[Tensor, " b"]]:
    generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
    yield from torch.randperm(n, generator=generator).split(size)


def _step(
    loss: Loss,
    rows: Int[Tensor, " b"],
    parameters: Sequence[nn.Parameter],
    optimiser: torch.optim.Optimizer,
    clip: float | None,
) -> float:
    optimiser.zero_grad(set_to_none=True)
    value = loss(rows)
    if not torch.isfinite(value):
        raise FloatingPointError(
            f"the loss became {value.item()}; lower the learning rate or look at the inputs"
        )
    value.backward()  # type: ignore[no-untyped-call]
    if clip is not None:
        nn.utils.clip_grad_norm_(parameters, clip)
    optimiser.step()
    return value.item()


def _optimiser(parameters: Sequence[nn.Parameter], schedule: Schedule) -> torch.optim.Optimizer:
    if schedule.optimiser == "sgd":
        return torch.optim.SGD(
            parameters, schedule.learning_rate, momentum=0.9, weight_decay=schedule.weight_decay
        )
    return torch.optim.AdamW(
        parameters, schedule.learning_rate, eps=schedule.epsilon, weight_decay=schedule.weight_decay
    )


def _save(
    path: Path | None,
    parameters: Sequence[nn.Parameter],
    optimiser: torch.optim.Optimizer,
    epoch: int,
) -> None:
    if path is None:
        return
    tensors = {f"parameter.{i}": p.detach() for i, p in enumerate(parameters)}
    for i, state in optimiser.state_dict()["state"].items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"state.{i}.{name}"] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file({k: v.contiguous() for k, v in tensors.items()}, partial, {"epoch": str(epoch)})
    partial.replace(path)


def _resume(
    path: Path | None, parameters: Sequence[nn.Parameter], optimiser: torch.optim.Optimizer
) -> int:
    if path is None or not path.exists():
        return 0
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        epoch = int(file.metadata()["epoch"])
    tensors = load_file(path)
    if [tuple(p.shape) for p in parameters] != [
        tuple(tensors[f"parameter.{i}"].shape)
        for i in range(sum(k.startswith("parameter.") for k in tensors))
    ]:
        raise ValueError(f"{path} is a checkpoint of other parameters; delete it to start afresh")
    state: dict[int, dict[str, Tensor]] = {}
    with torch.no_grad():
        for i, parameter in enumerate(parameters):
            parameter.copy_(tensors[f"parameter.{i}"])
    for key, value in tensors.items():
        if key.startswith("state."):
            _, i, name = key.split(".")
            state.setdefault(int(i), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return epoch
