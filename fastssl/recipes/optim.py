"""The optimiser of a run and what changes in it from step to step."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastssl.errors import InputError, unknown_name
from fastssl.training.schedules import cosine, linear_end, seven_sixteenths, warmup

OPTIMIZERS = ("adam", "sgd")
DECAYED = ("all", "kernels")
SCHEDULES = ("cosine", "linear_end", "seven_sixteenths")
LAST_BETA1 = 0.5  # Laine and Aila, "Temporal Ensembling for Semi-Supervised Learning", appendix A


@dataclass(frozen=True)
class OptimConfig:
    """SGD with Nesterov momentum or Adam, and how the learning rate falls.

    Attributes:
        lr: the learning rate at step 0.
        optimizer: "sgd" or "adam".
        momentum: SGD's, or Adam's beta1.
        weight_decay: added to the gradient of the parameters that are decayed.
        decayed: "all" parameters, or "kernels": those of a layer's weights, not its biases or a
            batch norm's.
        schedule: "cosine", half of one; "seven_sixteenths" of one, as FixMatch has it; or
            "linear_end", constant and then on a line to 0 while Adam's beta1 goes to 0.5.
        warmup: the share of a stage in which the rate rises to what the schedule has, on a line.
        horizon: when the cosine reaches 0, in lengths of the run.
        end: the share of the run that linear_end's line takes.
    """

    lr: float
    optimizer: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    decayed: str = "all"
    schedule: str = "cosine"
    warmup: float = 0.0
    horizon: float = 1.0
    end: float = 1 / 6

    def __post_init__(self) -> None:
        check("optim.lr", self.lr, self.lr > 0, "a number above 0")
        check("optim.momentum", self.momentum, 0 < self.momentum < 1, "a number between 0 and 1")
        check("optim.weight_decay", self.weight_decay, self.weight_decay >= 0, "0 or more")
        check("optim.warmup", self.warmup, 0 <= self.warmup < 1, "0 or more, below 1")
        check("optim.horizon", self.horizon, self.horizon >= 1, "1 or more")
        check("optim.end", self.end, 0 <= self.end <= 1, "a number from 0 to 1")
        if self.optimizer not in OPTIMIZERS:
            raise unknown_name("optim.optimizer", self.optimizer, OPTIMIZERS)
        if self.decayed not in DECAYED:
            raise unknown_name("optim.decayed", self.decayed, DECAYED)
        if self.schedule not in SCHEDULES:
            raise unknown_name("optim.schedule", self.schedule, SCHEDULES)

    @property
    def moves_beta(self) -> bool:
        """Whether Adam's beta1, a number that torch wants on the host, goes down at the end."""
        return self.optimizer == "adam" and self.schedule == "linear_end"

    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The optimiser over those of the parameters that are trained by gradient.

        torch's fused one: all parameters in one call, and no look at a number on the device. The
        learning rate is a tensor, which a recorded step finds where it was.
        """
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        rate = torch.tensor(self.lr, dtype=torch.float32, device=trained[0].device)
        groups: list[dict[str, Any]] = [{"params": trained}]
        if self.decayed == "kernels":
            groups = [
                {"params": [parameter for parameter in trained if parameter.dim() > 1]},
                {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
            ]
        if self.optimizer == "adam":
            return torch.optim.Adam(
                groups,
                rate,
                betas=(self.momentum, 0.999),
                weight_decay=self.weight_decay,
                fused=True,
                capturable=rate.device.type == "cuda",
            )
        return torch.optim.SGD(
            groups,
            rate,
            self.momentum,
            weight_decay=self.weight_decay,
            nesterov=True,
            fused=True,
        )

    def settings(self, step: int, steps: int) -> dict[str, Any]:
        """What the optimiser's parameter groups hold at a step of 0..steps-1."""
        lr = self.lr * warmup(step, steps, self.warmup)
        if self.schedule == "cosine":
            return {"lr": lr * cosine(step, steps, self.horizon)}
        if self.schedule == "seven_sixteenths":
            return {"lr": lr * seven_sixteenths(step, steps)}
        factor = linear_end(step, steps, self.end)
        if not self.moves_beta:
            return {"lr": lr * factor}
        beta1 = LAST_BETA1 + (self.momentum - LAST_BETA1) * factor
        return {"lr": lr * factor, "betas": (beta1, 0.999)}


def check(key: str, value: float, holds: bool, expected: str) -> None:
    """Refuse a number that is not finite or does not hold what is expected of it."""
    if not (math.isfinite(value) and holds):
        raise InputError(f"{key}: {value}; expected {expected}")
