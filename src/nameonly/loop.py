"""The only training loop.

A method hands over a loss of image indices, its parameters and how many images there are; the loop
owns order, optimiser, schedule, clipping, checkpoints and the early error on a loss that is not
finite.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
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
        spare_vectors: No weight decay on parameters of one dimension: biases and norms.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    warmup_epochs: float = 0.0
    weight_decay: float = 0.0
    optimiser: Literal["adamw", "sgd"] = "adamw"
    epsilon: float = 1e-8
    clip: float | None = None
    spare_vectors: bool = False

    def __post_init__(self) -> None:
        least = {"batch_size": 1}
        for name in ("epochs", "batch_size", "learning_rate", "warmup_epochs", "weight_decay"):
            if not getattr(self, name) >= least.get(name, 0):
                raise ValueError(
                    f"{name} must be at least {least.get(name, 0)}, got {getattr(self, name)}"
                )
        for name in ("epsilon", "clip"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, got {value}")

    def rate(self, step: int, steps_per_epoch: int) -> float:
        """Return the learning rate of a step, counted from zero."""
        warm = self.warmup_epochs * steps_per_epoch
        if step < warm:
            # a warm-up may end within a step
            return min(self.learning_rate, self.learning_rate * (step + 1) / warm)
        total = self.epochs * steps_per_epoch
        done = (step - warm) / max(1.0, total - warm)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def with_short_warmup(schedule: Schedule) -> Schedule:
    """Return the schedule with a warm-up of at most a quarter of its epochs.

    Else the rate would do nothing but rise where a person shortens a training and not its warm-up.
    A quarter, as the bundled models were trained with, leaves the most to the cosine, and changes
    nothing from 20 epochs on where the warm-up has five.
    """
    return replace(schedule, warmup_epochs=min(schedule.warmup_epochs, schedule.epochs / 4))


@dataclass(frozen=True)
class Trained:
    """All that a training changes, in place.

    Attributes:
        parameters: Have gradients.
        state: Others, such as the running means of batch norms; kept in the checkpoint.
        after_step: Called after every step.
    """

    parameters: Sequence[nn.Parameter]
    state: Sequence[Tensor] = ()
    after_step: Callable[[], None] | None = None


def minimise(
    loss: Loss,
    parameters: "Sequence[nn.Parameter] | Trained",
    n: int,
    schedule: Schedule,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
    on_epoch: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Minimise ``loss`` over ``n`` images and return the mean loss of every epoch.

    The order of images is a function of seed and epoch alone, so a run that resumes from its
    checkpoint takes the same steps as one that was never stopped, provided that the loss is a
    function of its rows: chance inside it must be seeded by them. Losses before the checkpoint are
    told too, except where an older version wrote it, which did not keep them.

    Args:
        loss: Maps image indices (b) to a scalar.
        parameters: Trained in place; or these and what else training changes.
        n: Number of images; indices run from 0 to n - 1.
        schedule: Length, rate and optimiser.
        seed: Of the order of images.
        checkpoint: A safetensors file, written after every epoch and resumed from where it exists.
        on_epoch: Called after every epoch with its number (from one) and mean loss.

    Raises:
        ValueError: If there is no image, or the checkpoint is damaged or belongs to a run with
            other parameters, images, schedule or seed.
        FloatingPointError: If the loss is not finite.
    """
    if n < 1:
        raise ValueError("training needs at least one image, got none")
    trained = parameters if isinstance(parameters, Trained) else Trained(parameters)
    optimiser = _optimiser(trained.parameters, schedule)
    run = f"{n} images, seed {seed}, {schedule}"
    first, means = _resume(checkpoint, run, trained, optimiser)
    steps_per_epoch = math.ceil(n / schedule.batch_size)
    for epoch in range(first, schedule.epochs):
        total = 0.0
        for i, rows in enumerate(_batches(n, schedule.batch_size, seed, epoch)):
            rate = schedule.rate(epoch * steps_per_epoch + i, steps_per_epoch)
            for group in optimiser.param_groups:
                group["lr"] = rate
            total += _step(loss, rows, trained, optimiser, schedule.clip) * len(rows)
        means.append(total / n)
        if checkpoint is not None:
            about = {"epoch": str(epoch + 1), "run": run, "losses": json.dumps(means)}
            _save(checkpoint, about, trained, optimiser)
        if on_epoch is not None:
            on_epoch(epoch + 1, means[-1])
    return means


def _batches(n: int, size: int, seed: int, epoch: int) -> Iterator[Int[Tensor, " b"]]:
    generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
    order = torch.randperm(n, generator=generator)
    yield from (order[start : start + size] for start in range(0, n, size))


def _step(
    loss: Loss,
    rows: Int[Tensor, " b"],
    trained: Trained,
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
        nn.utils.clip_grad_norm_(trained.parameters, clip)
    optimiser.step()
    if trained.after_step is not None:
        trained.after_step()
    return value.item()


def _optimiser(parameters: Sequence[nn.Parameter], schedule: Schedule) -> torch.optim.Optimizer:
    decay = schedule.weight_decay
    groups: list[dict[str, Any]] = [{"params": list(parameters)}]
    if schedule.spare_vectors:
        spared = [p for p in parameters if p.ndim <= 1]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1]},
            {"params": spared, "weight_decay": 0.0},
        ]
    if schedule.optimiser == "sgd":
        return torch.optim.SGD(groups, schedule.learning_rate, momentum=0.9, weight_decay=decay)
    return torch.optim.AdamW(
        groups, schedule.learning_rate, eps=schedule.epsilon, weight_decay=decay
    )


def _save(
    path: Path, about: dict[str, str], trained: Trained, optimiser: torch.optim.Optimizer
) -> None:
    tensors = {f"parameter.{i}": p.detach() for i, p in enumerate(trained.parameters)}
    tensors |= {f"other.{i}": value for i, value in enumerate(trained.state)}
    for i, state in optimiser.state_dict()["state"].items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"state.{i}.{name}"] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written aside and moved, so that a run killed here leaves the last whole checkpoint.
    partial = path.with_suffix(".partial")
    save_file({k: v.contiguous() for k, v in tensors.items()}, partial, about)
    partial.replace(path)


def _resume(
    path: Path | None, run: str, trained: Trained, optimiser: torch.optim.Optimizer
) -> tuple[int, list[float]]:
    """Load a checkpoint in place, where there is one.

    Returns:
        The number of epochs it has behind it, and their mean losses.
    """
    if path is None or not path.exists():
        return 0, []
    about, tensors = _read(path)
    if "epoch" not in about or about.get("run") != run:
        raise ValueError(
            f"{path} is a checkpoint of another run ({about.get('run', 'unknown')}), this run has "
            f"{run}; delete the file to start afresh"
        )
    shapes = [tuple(p.shape) for p in trained.parameters]
    held = [tuple(t.shape) for k, t in tensors.items() if k.startswith("parameter.")]
    keyed = [tuple(tensors[f"parameter.{i}"].shape) for i in range(len(held))]
    others = [(f"other.{i}", value) for i, value in enumerate(trained.state)]
    same = all(key in tensors and tensors[key].shape == value.shape for key, value in others)
    if shapes != keyed or not same:
        raise ValueError(
            f"{path} is a checkpoint of other parameters ({len(keyed)} of them with "
            f"{sum(map(math.prod, keyed))} numbers, here {len(shapes)} with "
            f"{sum(map(math.prod, shapes))}); delete it to start afresh"
        )
    state: dict[int, dict[str, Tensor]] = {}
    with torch.no_grad():
        for i, parameter in enumerate(trained.parameters):
            parameter.copy_(tensors[f"parameter.{i}"])
        for key, other in others:
            other.copy_(tensors[key])
    for key, value in tensors.items():
        if key.startswith("state."):
            _, place, name = key.split(".")
            state.setdefault(int(place), {})[name] = value
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
    return int(about["epoch"]), json.loads(about.get("losses", "[]"))


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            return file.metadata() or {}, {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} cannot be read as a checkpoint ({error}); delete it to start afresh"
        ) from error
