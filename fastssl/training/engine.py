"""The training loop, for any algorithm: one function, read from top to bottom."""

import time
from collections.abc import Callable
from typing import Any

import torch
from tqdm import tqdm

from fastssl.algorithms.base import Algorithm, State
from fastssl.algorithms.ranks import ALONE, Ranks
from fastssl.algorithms.state import TrainingImages
from fastssl.errors import StoppedError
from fastssl.training.checkpoint import Checkpoints
from fastssl.training.distributed import agree, first_alone
from fastssl.training.generators import generator_states
from fastssl.training.loss_watch import LossWatch
from fastssl.training.record import MetricsLog, validation_accuracy
from fastssl.training.schedules import Stages
from fastssl.training.signals import stop_on_signal
from fastssl.training.step import RecordedStep, Step, adjust


def train(
    algorithm: Algorithm,
    take_step: Step | RecordedStep,
    optimizer: torch.optim.Optimizer,
    settings: Callable[[int], dict[str, Any]],
    evaluate: Callable[[int], dict[str, float]],
    metrics: MetricsLog | None,
    checkpoints: Checkpoints,
    *,
    first_step: int,
    stages: Stages,
    steps_per_pass: int,
    log_every: int,
    eval_every: int,
    checkpoint_every: int,
    checkpoint_minutes: float | None = None,
    images: TrainingImages | None = None,
    ranks: Ranks = ALONE,
) -> None:
    """Train from first_step to the end; log, evaluate and save at intervals and at the end.

    Of several processes each calls this with its rows; the first one logs, evaluates and saves.

    Args:
        algorithm: on its device, the same in every process.
        take_step: takes one, and gives its batch and loss.
        optimizer: over the algorithm's parameters.
        settings: what the optimiser's parameter groups hold at a step, its "lr" among it.
        evaluate: values to log, given the number of steps done.
        metrics: where one line a logged or evaluated step goes; None in all processes but the
            first.
        checkpoints: where the state goes.
        first_step: 0, or the step of the checkpoint just loaded.
        stages: of the whole run.
        steps_per_pass: steps from one `before_epoch` to the next.
        log_every: steps between two looks at the loss. Its terms wait on the device until then.
        eval_every: steps between two calls of `evaluate`.
        checkpoint_every: steps between two checkpoints; a validation accuracy above all before it
            gets one of its own.
        checkpoint_minutes: after which there is one earlier.
        images: what an algorithm that looks at all images before a pass looks at.
        ranks: the processes that train the algorithm.

    Raises:
        DivergedError: the loss is not finite; it is looked at when a step is logged, evaluated or
            saved, and nothing after the first such step is saved as a checkpoint.
        StoppedError: Ctrl-C or SIGTERM; the state after the last whole step is saved.
        InputError: the run folder cannot be written.
        PeerError: one of these in the first process, as the others see it.
    """
    steps = stages.steps

    def state(done: int) -> State:
        stage, within, _ = stages.at(done)
        return State(done, within // steps_per_pass, stage, images)

    def due(done: int, every: int) -> bool:
        return done % every == 0 or done == steps

    algorithm.train()
    device = next(algorithm.parameters()).device
    watch = LossWatch(algorithm, ranks, checkpoints.folder)
    best = checkpoints.best_accuracy()
    saved_at = time.monotonic()
    shown: dict[str, float] = {}
    hidden = None if ranks.rank == 0 else True
    progress = tqdm(initial=first_step, total=steps, unit="step", disable=hidden)
    with progress, stop_on_signal(patient=ranks.count > 1) as stop:
        for step in range(first_step, steps):
            within = stages.at(step)[1]
            if within == 0:
                take_step.begin_stage()
            if within % steps_per_pass == 0:
                algorithm.before_epoch(state(step))
            changed = settings(step)
            adjust(optimizer, changed)

            done = step + 1
            batch, loss = take_step(step, state(done))
            watch.add(done, loss, batch)
            progress.update()

            late = checkpoint_minutes and time.monotonic() - saved_at > 60 * checkpoint_minutes
            stopping, late = agree(ranks, stop.requested, bool(late))
            logging, evaluating = due(done, log_every), due(done, eval_every)
            saving = due(done, checkpoint_every) or checkpoints.stays(done) or late or stopping
            if logging or evaluating or saving:
                values = watch.look()
                generators = generator_states(ranks, device)
                row = {"lr": changed["lr"], **values} if logging else {}
                with first_alone(ranks) as first:
                    if first and evaluating:
                        row |= evaluate(done)
                    if first and row:
                        metrics.append(done, row)
                        shown |= {key.removeprefix("term/"): value for key, value in row.items()}
                        progress.set_postfix(shown)
                    accuracy = validation_accuracy(row)
                    if accuracy is not None and (best is None or accuracy > best):
                        best, saving = accuracy, True
                    if first and saving:
                        metrics.sync()
                        checkpoints.save(
                            done, algorithm, optimizer, generators, validation=accuracy
                        )
                if saving:
                    saved_at = time.monotonic()
            if stopping and done < steps:
                raise StoppedError(f"stopped after step {done} of {steps}")
