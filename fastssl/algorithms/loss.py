"""What an objective gives: one scalar to minimise, and its terms for the log."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """What `Algorithm.loss` returns; the terms are for the log, nothing waits for their values."""

    total: Tensor  # scalar, differentiable
    terms: dict[str, Tensor]  # detached scalars, still on the device
