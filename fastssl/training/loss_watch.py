"""The losses of the steps since they were last looked at, kept on the device until then.

Looking is one transfer. So a step costs no synchronisation, and yet the first step whose loss is
not finite is found, with the rows it was of. B rows of a step.
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from fastssl.algorithms.base import Algorithm, Batch
from fastssl.algorithms.loss import Loss
from fastssl.algorithms.ranks import Ranks
from fastssl.errors import DivergedError, InputError
from fastssl.training.distributed import average
from fastssl.training.record import write_atomic

LISTED = 8  # rows that the message names; the file has them all


@dataclass
class LossWatch:
    """Losses and rows of the last steps of one run.

    Attributes:
        algorithm: whose weights are saved when a loss is not finite.
        ranks: the processes that train it; a loss is the mean of theirs.
        folder: where that goes.
    """

    algorithm: Algorithm
    ranks: Ranks
    folder: Path
    _steps: list[tuple[int, dict[str, Tensor], Tensor, Tensor]] = field(default_factory=list)

    def add(self, step: int, loss: Loss, batch: Batch) -> None:
        """Keep copies of what step number `step` gave: its losses, its rows and their labels."""
        losses = {"loss": loss.total, **{f"term/{name}": x for name, x in loss.terms.items()}}
        losses = {name: value.detach().clone() for name, value in losses.items()}
        self._steps.append((step, losses, batch.index.clone(), batch.labels.clone()))

    def look(self) -> dict[str, float]:
        """The last step's loss and terms on the host; every process must call.

        Raises:
            DivergedError: one of them is not finite since the last look. `diverged-STEP.json` and
                `.safetensors` in the folder then hold what is needed to look into it.
        """
        steps, self._steps = self._steps, []
        values = torch.stack([x.double() for _, losses, _, _ in steps for x in losses.values()])
        average(self.ranks, [values])
        numbers = iter(values.tolist())
        history = {step: {n: next(numbers) for n in losses} for step, losses, _, _ in steps}
        for step, _, index, labels in steps:
            if not all(map(math.isfinite, history[step].values())):
                index, labels = self.ranks.gather(index), self.ranks.gather(labels)
                raise DivergedError(self._describe(step, index.cpu(), labels.cpu(), history))
        return history[steps[-1][0]]

    def _describe(
        self, step: int, index: Tensor, labels: Tensor, history: dict[int, dict[str, float]]
    ) -> str:
        """What happened, in one line; saves the rest of it."""
        terms = ", ".join(f"{name} = {value:g}" for name, value in history[step].items())
        rows = ", ".join(map(str, index[:LISTED].tolist()))
        more = f" and {len(index) - LISTED} more" if len(index) > LISTED else ""
        where = self._save(step, index, labels, history) if self.ranks.rank == 0 else ""
        return (
            f"the loss is not finite at step {step}: {terms}; training images {rows}{more}; "
            f"lower optim.lr{where}"
        )

    def _save(
        self, step: int, index: Tensor, labels: Tensor, history: dict[int, dict[str, float]]
    ) -> str:
        """Write the two files; where they are, as an end of a sentence."""
        tensors = {f"algorithm.{k}": v.contiguous() for k, v in self.algorithm.state_dict().items()}
        about = {
            "step": step,
            "noticed": max(history),  # the weights are those after this step
            "index": index.tolist(),
            "labels": labels.tolist(),
            "losses": {  # JSON has no nan
                number: {name: x if math.isfinite(x) else str(x) for name, x in row.items()}
                for number, row in history.items()
            },
        }
        path = self.folder / f"diverged-{step:08d}.json"
        try:
            self.folder.mkdir(exist_ok=True)
            write_atomic(path.with_suffix(".safetensors"), save({**tensors, "index": index}))
            write_atomic(path, (json.dumps(about, indent=1) + "\n").encode())
        except (OSError, InputError) as error:
            return f" ({error})"
        return f"; all rows, the losses before it and the weights after step {max(history)}: {path}"
