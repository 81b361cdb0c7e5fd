"""The training loop, for any algorithm: one function, read from top to bottom."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from tqdm import tqdm

from fastssl.algorithms.base import Algorithm, Batch, State
from fastssl.algorithms.loss import Loss
from fastssl.errors import DivergedError, StoppedError
from fastssl.training.checkpoint import Checkpoints
from fastssl.training.interrupt import stop_on_interrupt
from fastssl.training.record import MetricsLog

FULL_PRECISION = nullcontext()


def train(
    algorithm: Algorithm,
    batch_at: Callable[[int], Batch],
    optimizer: torch.optim.Optimizer,
    settings: Callable[[int], dict[str, Any]],
    evaluate: Callable[[int], dict[str, float]],
    metrics: MetricsLog,
    checkpoints: Checkpoints,
    *,
    first_step: int,
    steps: int,
    steps_per_pass: int,
    log_every: int,
    eval_every: int,
    checkpoint_every: int,
    autocast: AbstractContextManager = FULL_PRECISION,
) -> None:
    """Train for steps first_step..steps-1; log, evaluate and save at intervals and at the end.

    Args:
        algorithm: on its device.
        batch_at: the batch of a step, on the same device.
        optimizer: over the algorithm's parameters.
        settings: what the optimiser's parameter groups hold at a step, its "lr" among it.
        evaluate: values to log, given the number of steps done.
        metrics: where one line a logged or evaluated step goes.
        checkpoints: where the state goes.
        first_step: 0, or the step of the checkpoint just loaded.
        steps: of the whole run.
        steps_per_pass: steps from one `before_epoch` to the next.
        log_every: steps between two looks at the loss. Its terms wait on the device until then.
        eval_every: steps between two calls of `evaluate`.
        checkpoint_every: steps between two checkpoints.
        autocast: around the loss; the backward takes the dtypes of the forward.

    Raises:
        DivergedError: the loss is not finite at a step that is logged or saved.
        StoppedError: Ctrl-C; the state after the last whole step is saved.
        InputError: the run folder cannot be written.
    """

    def due(done: int, every: int) -> bool:
        return done % every == 0 or done == steps

    algorithm.train()
    shown: dict[str, float] = {}
    progress = tqdm(initial=first_step, total=steps, unit="step", disable=None)
    with progress, stop_on_interrupt() as stop:
        for step in range(first_step, steps):
            if step % steps_per_pass == 0:
                algorithm.before_epoch(State(step, step // steps_per_pass))
            changed = settings(step)
            for group in optimizer.param_groups:
                group.update(changed)

            batch = batch_at(step)
            with autocast:
                loss = algorithm.loss(batch)
            optimizer.zero_grad()
            loss.total.backward()
            optimizer.step()

            done = step + 1
            algorithm.after_step(State(done, done // steps_per_pass))
            progress.update()

            logging, saving = due(done, log_every), due(done, checkpoint_every) or stop.requested
            row: dict[str, float] = {}
            if logging or saving:
                values = finite_values(loss, done)
                if logging:
                    row |= {"lr": changed["lr"], **values}
            if due(done, eval_every):
                row |= evaluate(done)
            if row:
                metrics.append(done, row)
                shown |= {key.removeprefix("term/"): value for key, value in row.items()}
                progress.set_postfix(shown)
            if saving:
                metrics.sync()
                checkpoints.save(done, algorithm, optimizer)
            if stop.requested and done < steps:
                raise StoppedError(f"stopped after step {done} of {steps}")


def finite_values(loss: Loss, step: int) -> dict[str, float]:
    """The loss and its terms on the host, in one transfer.

    Raises:
        DivergedError: one of them is not finite.
    """
    names = ["loss", *(f"term/{name}" for name in loss.terms)]
    scalars = torch.stack([t.detach().double() for t in (loss.total, *loss.terms.values())])
    values = dict(zip(names, scalars.tolist(), strict=True))
    if not all(math.isfinite(value) for value in values.values()):
        listed = ", ".join(f"{name} = {value:g}" for name, value in values.items())
        raise DivergedError(f"the loss is not finite at step {step}: {listed}; lower optim.lr")
    return values
