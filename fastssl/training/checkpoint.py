"""Checkpoints: algorithm, optimiser, random generators and step, enough to resume bit for bit.

A checkpoint is two files. `step-00000400.safetensors` holds the tensors and, as its metadata, a
header; `step-00000400.json` holds the same header and the first file's sha256. The JSON is written
last: a checkpoint without it does not exist. Nothing is ever unpickled.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

import fastssl
from fastssl.algorithms.base import Algorithm
from fastssl.errors import InputError
from fastssl.training.generators import check_generators, restore_generators
from fastssl.training.record import TEMPORARY, write_atomic

FORMAT = 2
KEPT = 2  # the last ones; the one before the last is there for when the last gets damaged
FILE = re.compile(r"step-([0-9]{8,})\.(safetensors|json)")
HEADER = {  # its fields and their types
    "format": int,
    "fastssl": str,
    "torch": str,
    "algorithm": str,
    "data": str,
    "split": str,
    "step": int,
    "validation": float | None,
    "tensors": list,
}
MOMENTS = {
    torch.optim.SGD: {"momentum_buffer"},
    torch.optim.Adam: {"step", "exp_avg", "exp_avg_sq"},
}


@dataclass(frozen=True)
class Identity:
    """What a run is of: the weights of one are nothing to another."""

    algorithm: str
    data: str  # fingerprint of the data set
    split: str  # fingerprint of the label split


def saved_steps(folder: Path) -> list[int]:
    """Steps there is a checkpoint of in a folder, ascending."""
    found = (FILE.fullmatch(path.name) for path in folder.glob("step-*.json"))
    return sorted(int(match[1]) for match in found if match)


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run.

    Kept are the last two, the one with the best validation accuracy (the first of equals; the test
    part never chooses), and those of every `keep_every`-th step.
    """

    folder: Path
    identity: Identity
    keep_every: int | None = None

    def steps(self) -> list[int]:
        """Steps there is a checkpoint of, ascending."""
        return saved_steps(self.folder)

    def best(self) -> int | None:
        """Step of the checkpoint with the best validation accuracy; None if none was evaluated."""
        scored = [step for step in self.steps() if self._validation(step) is not None]
        return max(scored, key=lambda step: (self._validation(step), -step), default=None)

    def best_accuracy(self) -> float | None:
        """The best validation accuracy of a checkpoint; None if none was evaluated."""
        best = self.best()
        return None if best is None else self._validation(best)

    def named(self, checkpoint: str) -> int | None:
        """The step of the checkpoint that a user names: "last" (None), "best", or its step.

        Raises:
            InputError: there is no such.
        """
        steps = self.steps()
        if checkpoint == "last":
            return None
        if checkpoint == "best":
            if (best := self.best()) is None:
                raise InputError(
                    "checkpoint: none is the best, the run has no validation part; expected last "
                    "or a step"
                )
            return best
        if not (checkpoint.isdecimal() and int(checkpoint) in steps):
            raise InputError(
                f"checkpoint: {checkpoint}; expected last, best or one of "
                f"{', '.join(map(str, steps)) or 'none yet'}"
            )
        return int(checkpoint)

    def stays(self, step: int) -> bool:
        """Whether a checkpoint of this step is kept for good."""
        return self.keep_every is not None and step % self.keep_every == 0

    def save(
        self,
        step: int,
        algorithm: Algorithm,
        optimizer: torch.optim.Optimizer,
        generators: dict[str, Tensor],
        *,
        validation: float | None = None,
    ) -> None:
        """Write the checkpoint of `step`, then delete those that are not kept.

        Args:
            step: steps done.
            algorithm: its state_dict is saved.
            optimizer: its moments are saved; its settings are the configuration's.
            generators: states of torch's generators, of `generator_states`.
            validation: accuracy on the validation part after this step, if it was evaluated.

        Raises:
            InputError: the folder cannot be written; what was there is still there.
        """
        tensors = {f"algorithm.{name}": value for name, value in algorithm.state_dict().items()}
        tensors |= _moments(optimizer) | generators
        header = {
            "format": FORMAT,
            "fastssl": fastssl.__version__,
            "torch": torch.__version__,
            "algorithm": self.identity.algorithm,
            "data": self.identity.data,
            "split": self.identity.split,
            "step": step,
            "validation": validation,
            "tensors": sorted(tensors),
        }
        contiguous = {name: value.detach().contiguous() for name, value in tensors.items()}
        data = save(contiguous, metadata={"header": json.dumps(header)})
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot create {self.folder}: {error.strerror or error}") from error
        write_atomic(self._path(step, "safetensors"), data)
        sidecar = {**header, "sha256": hashlib.sha256(data).hexdigest()}
        write_atomic(self._path(step, "json"), (json.dumps(sidecar, indent=1) + "\n").encode())
        self._prune()

    def load(
        self,
        algorithm: Algorithm,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        step: int | None = None,
        rank: int = 0,
    ) -> int:
        """Load the last checkpoint, or that of a step, and return its step.

        Without `optimizer`, the networks alone. Nothing is changed unless all of it is sound.

        Args:
            algorithm: as it was built for the run.
            optimizer: over its parameters.
            step: one of `steps()`.
            rank: which of several processes this is: it gets the generators that it had.

        Raises:
            InputError: there is none, it is damaged, or it belongs to another algorithm, network,
                data set or label split, or to another version of fastssl.
        """
        steps = self.steps()
        if not steps:
            raise InputError(f"{self.folder}: no checkpoint there yet")
        step = steps[-1] if step is None else step
        path = self._path(step, "safetensors")
        try:
            header, tensors = self._read(step)
            self._check_identity(header)
            state = section(tensors, "algorithm.")
            if unlike := difference(algorithm.state_dict(), state):
                raise _DamagedError(unlike)
            generators = section(tensors, "generator.")
            try:
                check_generators(generators)
            except ValueError as error:
                raise _DamagedError(str(error)) from error
            moments = None if optimizer is None else _optimizer_state(optimizer, tensors)
        except _ForeignError as error:
            raise InputError(f"checkpoint {path} is of another run: {_line(error)}") from error
        except _DamagedError as error:
            earlier = [s for s in steps if s < step]
            way_out = f"; delete its two files to go back to step {earlier[-1]}" if earlier else ""
            raise InputError(f"broken checkpoint {path}: {_line(error)}{way_out}") from error
        algorithm.load_state_dict(state)
        if optimizer is not None:
            optimizer.load_state_dict(moments)
            restore_generators(generators, rank, _device(algorithm))
        return step

    def last_state(self) -> tuple[int, dict[str, Tensor]]:
        """Step and state_dict of the last checkpoint's algorithm, of whatever data and kind.

        Raises:
            InputError: there is none, or it is damaged.
        """
        steps = self.steps()
        if not steps:
            raise InputError(f"{self.folder}: no checkpoint there yet")
        path = self._path(steps[-1], "safetensors")
        try:
            _, tensors = self._read(steps[-1])
        except _ForeignError as error:
            raise InputError(f"checkpoint {path}: {error}") from error
        except _DamagedError as error:
            raise InputError(f"broken checkpoint {path}: {error}") from error
        return steps[-1], section(tensors, "algorithm.")

    def _path(self, step: int, suffix: str) -> Path:
        return self.folder / f"step-{step:08d}.{suffix}"

    def _validation(self, step: int) -> float | None:
        try:
            return float(json.loads(self._path(step, "json").read_text())["validation"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def _prune(self) -> None:
        """Delete what is not kept, and what a process that was killed left half-written."""
        steps = self.steps()
        kept = {*steps[-KEPT:], *filter(self.stays, steps), self.best()}
        try:
            for path in sorted(self.folder.iterdir()):  # the JSON before the tensors
                match = FILE.fullmatch(path.name.removesuffix(TEMPORARY))
                if match and (int(match[1]) not in kept or path.name.endswith(TEMPORARY)):
                    path.unlink()
        except OSError as error:
            raise InputError(f"cannot clear {self.folder}: {error.strerror or error}") from error

    def _read(self, step: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Header and tensors of one checkpoint, verified as far as is possible without networks."""
        path = self._path(step, "safetensors")
        try:
            sidecar = json.loads(self._path(step, "json").read_text())
            expected = sidecar.pop("sha256")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise _DamagedError("its JSON file is not readable") from error
        if type(sidecar.get("format")) is int and sidecar["format"] != FORMAT:
            raise _ForeignError(
                f"format {sidecar['format']} of fastssl {sidecar.get('fastssl', 'of old')}, "
                f"fastssl {fastssl.__version__} reads format {FORMAT}"
            )
        try:
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            if sha256 != expected:
                raise _DamagedError("its sha256 is not the one in its JSON file")
            with safe_open(path, framework="pt", device="cpu") as file:
                header = json.loads(file.metadata()["header"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
            raise _DamagedError("its tensors are not readable") from error
        if header != sidecar:
            raise _DamagedError("its JSON file was edited")
        _check_header(header)
        if header["step"] != step:
            raise _DamagedError(f"it is of step {header['step']}, not of the step in its name")
        if header["tensors"] != sorted(tensors):
            raise _DamagedError("tensors are missing")
        for name in tensors:
            if name.partition(".")[0] not in ("algorithm", "optimizer", "generator"):
                raise _DamagedError(f"tensor {name} is not of a checkpoint")
        return header, tensors

    def _check_identity(self, header: dict[str, Any]) -> None:
        """A checkpoint is of this run's algorithm, data and split."""
        for key, name in (("algorithm", "algorithm"), ("data", "data"), ("split", "label split")):
            found, own = header[key], getattr(self.identity, key)
            if found != own:
                raise _ForeignError(f"its {name} is {found[:20]}, this run's is {own[:20]}")


class _DamagedError(Exception):
    """What is wrong with a checkpoint; `Checkpoints.load` adds which one it is."""


class _ForeignError(Exception):
    """What a sound checkpoint is of instead; `Checkpoints.load` adds which one it is."""


def _line(error: Exception, most: int = 200) -> str:
    """What an error says, in one line: names in it are from a file that anyone may have made."""
    return " ".join(str(error).split())[:most]


def _device(algorithm: Algorithm) -> torch.device:
    return next(algorithm.parameters()).device


def _check_header(header: dict[str, Any]) -> None:
    """All fields are there, each of its type, and no other."""
    if difference := sorted(header.keys() ^ HEADER.keys()):
        where = "missing" if difference[0] in HEADER else "not of a checkpoint"
        raise _DamagedError(f"field {difference[0]} is {where}")
    for name, kind in HEADER.items():
        if not isinstance(header[name], kind) or isinstance(header[name], bool):
            raise _DamagedError(f"field {name} is {json.dumps(header[name])[:40]}")


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's tensors by the parameter's number and their own name."""
    return {
        f"optimizer.{index}.{name}": value
        for index, entry in optimizer.state_dict()["state"].items()
        for name, value in entry.items()
    }


def _optimizer_state(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]
) -> dict[str, Any]:
    """Inverse of `_moments`, checked against the parameters that the optimiser has now."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    known = MOMENTS[type(optimizer)]
    expected = {f"{i}.{name}": (i, name) for i in range(len(parameters)) for name in known}
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in section(tensors, "optimizer.").items():
        if key not in expected:
            raise _DamagedError(f"tensor optimizer.{key} is not of this optimiser")
        index, name = expected[key]
        parameter = parameters[index]
        like = torch.zeros(()) if name == "step" else parameter
        if (value.shape, value.dtype) != (like.shape, like.dtype):
            raise _DamagedError(f"optimizer.{key} is {_describe(value)}, not {_describe(like)}")
        if name != "step":  # in the parameter's memory format, as the optimiser made it
            value = torch.empty_like(parameter.detach(), device="cpu").copy_(value)
        state.setdefault(index, {})[name] = value
    for index, entry in state.items():
        if missing := sorted(known - entry.keys()):
            raise _DamagedError(f"tensor optimizer.{index}.{missing[0]} is missing")
    return {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}


def section(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors under a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def difference(expected: dict[str, Tensor], found: dict[str, Tensor]) -> str:
    """The first name, shape or dtype in which two state_dicts differ, in words; "" if none."""
    if names := sorted(expected.keys() ^ found.keys()):
        where = "missing" if names[0] in expected else "not of this network"
        return f"tensor {names[0]} is {where}"
    for name, tensor in expected.items():
        if (tensor.shape, tensor.dtype) != (found[name].shape, found[name].dtype):
            return f"{name} is {_describe(found[name])}, not {_describe(tensor)}"
    return ""


def _describe(tensor: Tensor) -> str:
    return f"{tensor.dtype} {tuple(tensor.shape)}".removeprefix("torch.")
