"""A problem small enough to train in milliseconds, through the real engine."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from fastssl.algorithms.base import Algorithm, Batch, State
from fastssl.algorithms.loss import Loss
from fastssl.models import Backbone
from fastssl.training.checkpoint import Checkpoints, Identity
from fastssl.training.engine import train
from fastssl.training.record import MetricsLog, read_metrics
from fastssl.training.schedules import Stages, cosine
from fastssl.training.step import Step


@dataclass(frozen=True)
class ProbeConfig:
    """Nothing to set."""


class Probe(Algorithm):
    """Fits random labels with dropout, and counts the calls of its two optional methods."""

    config_type = ProbeConfig
    needs_unlabeled = False

    def __init__(self) -> None:
        extractor = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5))
        super().__init__(Backbone(extractor, 8, 3), ProbeConfig())
        self.register_buffer("steps_seen", torch.tensor(0))
        self.epochs: list[State] = []
        self.states: list[State] = []

    def loss(self, batch: Batch) -> Loss:
        total = nn.functional.cross_entropy(self.network(batch.views[0])[0], batch.labels)
        return Loss(total, {"supervised": total.detach()})

    def before_epoch(self, state: State) -> None:
        self.epochs.append(state)

    def after_step(self, state: State) -> None:
        self.steps_seen += 1
        self.states.append(state)


def batch_at(step: int) -> Batch:
    """Six random images and labels, a function of the step."""
    generator = torch.Generator().manual_seed(step)
    views = torch.randn(1, 6, 1, 2, 2, generator=generator)
    return Batch(views, torch.randint(3, (6,), generator=generator), torch.arange(6))


def sgd(algorithm: Algorithm) -> torch.optim.SGD:
    return torch.optim.SGD(algorithm.parameters(), lr=0.1, momentum=0.9, nesterov=True)


def run(
    algorithm: Algorithm,
    optimizer: torch.optim.Optimizer,
    folder: Path,
    *,
    steps: int = 20,
    starts: tuple[int, ...] = (0,),
    first_step: int = 0,
    batches: Callable[[int], Batch] = batch_at,
    evaluate: Callable[[int], dict[str, float]] | None = None,
    keep_every: int | None = None,
    **intervals: float,
) -> list[dict[str, float]]:
    """Train through the engine in a folder; the rows of its metrics.jsonl."""
    metrics = MetricsLog(folder / "metrics.jsonl", after_step=first_step)
    every = {"log_every": 5, "eval_every": 10, "checkpoint_every": 10, "steps_per_pass": 6}
    try:
        train(
            algorithm,
            Step(algorithm, batches, optimizer),
            optimizer,
            lambda step: {"lr": 0.1 * cosine(step, steps)},
            evaluate or (lambda done: {"accuracy/test/network": done / 100}),
            metrics,
            checkpoints(folder, keep_every),
            first_step=first_step,
            stages=Stages(starts, steps),
            **(every | intervals),
        )
    finally:
        metrics.close()
    return read_metrics(folder / "metrics.jsonl")


def checkpoints(folder: Path, keep_every: int | None = None) -> Checkpoints:
    return Checkpoints(folder / "checkpoints", Identity("probe", "f" * 64, "5" * 64), keep_every)
