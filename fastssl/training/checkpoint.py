"""Checkpoints: algorithm, optimiser, random generators and step, enough to resume bit for bit.

A checkpoint is two files. `step-00000400.safetensors` holds the tensors and, as its metadata, a
header; `step-00000400.json` holds the same header and the first file's sha256. The JSON is written
last: a checkpoint without it does not exist. Nothing is ever unpickled.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fastssl.algorithms.base import Algorithm
from fastssl.errors import InputError
from fastssl.training.record import write_atomic

FORMAT = 1
KEPT = 2


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run: of one algorithm, on one data set."""

    folder: Path
    algorithm: str
    fingerprint: str  # of the data

    def steps(self) -> list[int]:
        """Steps there is a checkpoint of, ascending."""
        names = (path.stem.removeprefix("step-") for path in self.folder.glob("step-*.json"))
        return sorted(int(name) for name in names if name.isdecimal())

    def save(self, step: int, algorithm: Algorithm, optimizer: torch.optim.Optimizer) -> None:
        """Write the checkpoint of `step`, then delete all but the last two.

        Raises:
            InputError: the folder cannot be written.
        """
        moments, scalars = _split_state(optimizer)
        tensors = {f"algorithm.{name}": value for name, value in algorithm.state_dict().items()}
        tensors |= moments | _generator_states(algorithm)
        header = {
            "format": FORMAT,
            "algorithm": self.algorithm,
            "step": step,
            "fingerprint": self.fingerprint,
            "torch": torch.__version__,
            "optimizer": scalars,
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
        for old in self.steps()[:-KEPT]:
            self._path(old, "json").unlink()
            self._path(old, "safetensors").unlink(missing_ok=True)

    def load(self, algorithm: Algorithm, optimizer: torch.optim.Optimizer | None = None) -> int:
        """Load the last checkpoint and return its step; without `optimizer`, the networks alone.

        Nothing is changed unless all of it is sound.

        Raises:
            InputError: there is none, it is damaged, or it belongs to another algorithm, network or
                data set.
        """
        steps = self.steps()
        if not steps:
            raise InputError(f"{self.folder}: no checkpoint there yet")
        path = self._path(steps[-1], "safetensors")
        try:
            header, tensors = self._read(steps[-1])
            state = _section(tensors, "algorithm.")
            _check_like(algorithm.state_dict(), state)
            if optimizer is not None:
                moments = _join_state(optimizer, header["optimizer"], tensors)
        except _DamagedError as error:
            earlier = f"; delete its two files to go back to step {steps[-2]}" if steps[1:] else ""
            raise InputError(f"broken checkpoint {path}: {error}{earlier}") from error
        algorithm.load_state_dict(state)
        if optimizer is not None:
            optimizer.load_state_dict(moments)
            torch.set_rng_state(tensors["generator.cpu"])
            if "generator.cuda" in tensors:
                torch.cuda.set_rng_state(tensors["generator.cuda"], _device(algorithm))
        return header["step"]

    def _path(self, step: int, suffix: str) -> Path:
        return self.folder / f"step-{step:08d}.{suffix}"

    def _read(self, step: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Header and tensors of one checkpoint, verified as far as is possible without networks."""
        path = self._path(step, "safetensors")
        try:
            sidecar = json.loads(self._path(step, "json").read_text())
            expected = sidecar.pop("sha256")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise _DamagedError("its JSON file is not readable") from error
        try:
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            if sha256 != expected:
                raise _DamagedError("its sha256 is not the one in its JSON file")
            with safe_open(path, framework="pt", device="cpu") as file:
                header = json.loads(file.metadata()["header"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise _DamagedError("its tensors are not readable") from error
        if header != sidecar:
            raise _DamagedError("its JSON file was edited")
        if header["format"] != FORMAT:
            raise _DamagedError(f"format {header['format']}, this version reads {FORMAT}")
        if header["step"] != step:
            raise _DamagedError(f"it is of step {header['step']}, not of the step in its name")
        if header["algorithm"] != self.algorithm:
            raise _DamagedError(f"it is of {header['algorithm']}, not of {self.algorithm}")
        if header["fingerprint"] != self.fingerprint:
            raise _DamagedError("it was trained on other data")
        if header["tensors"] != sorted(tensors):
            raise _DamagedError("tensors are missing")
        return header, tensors


class _DamagedError(Exception):
    """Why a checkpoint cannot be used; `Checkpoints.load` adds which one it is."""


def _generator_states(algorithm: Algorithm) -> dict[str, Tensor]:
    """States of torch's default generators, which dropout draws from."""
    states = {"generator.cpu": torch.get_rng_state()}
    device = _device(algorithm)
    if device.type == "cuda":
        states["generator.cuda"] = torch.cuda.get_rng_state(device)
    return states


def _device(algorithm: Algorithm) -> torch.device:
    return next(algorithm.parameters()).device


def _split_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimiser's tensors, and the rest of its state as JSON values."""
    state = optimizer.state_dict()
    moments = {
        f"optimizer.{index}.{name}": value
        for index, entry in state["state"].items()
        for name, value in entry.items()
    }
    return moments, {"param_groups": state["param_groups"]}


def _join_state(
    optimizer: torch.optim.Optimizer, scalars: dict[str, Any], tensors: dict[str, Tensor]
) -> dict[str, Any]:
    """Inverse of `_split_state`, checked against the parameters the optimiser has now."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    current = optimizer.state_dict()["param_groups"]
    if [g["params"] for g in scalars["param_groups"]] != [g["params"] for g in current]:
        raise _DamagedError("its optimiser has other parameters than this one")
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in _section(tensors, "optimizer.").items():
        index, name = key.split(".", 1)
        parameter = parameters[int(index)]
        if value.dim() and (value.shape, value.dtype) != (parameter.shape, parameter.dtype):
            raise _DamagedError(
                f"optimizer.{key} is {_describe(value)}, not {_describe(parameter)}"
            )
        if value.dim():  # laid out as the parameter: a fused optimiser walks through both at once
            value = torch.empty_like(parameter, device=value.device).copy_(value)
        state.setdefault(int(index), {})[name] = value
    return {"state": state, **scalars}


def _section(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors under a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _check_like(expected: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    """Both have the same names, shapes and dtypes."""
    if difference := sorted(expected.keys() ^ found.keys()):
        where = "missing" if difference[0] in expected else "not of this network"
        raise _DamagedError(f"tensor {difference[0]} is {where}")
    for name, tensor in expected.items():
        if (tensor.shape, tensor.dtype) != (found[name].shape, found[name].dtype):
            raise _DamagedError(f"{name} is {_describe(found[name])}, not {_describe(tensor)}")


def _describe(tensor: Tensor) -> str:
    return f"{tensor.dtype} {tuple(tensor.shape)}".removeprefix("torch.")
