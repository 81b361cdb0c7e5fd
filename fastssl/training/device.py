"""Which device a run uses."""

import torch

import fastssl
from fastssl.errors import InputError


def resolve_device(name: str) -> torch.device:
    """The device called `name`: "cpu", "cuda", "cuda:1", or "auto" for CUDA where it can be used.

    Raises:
        InputError: there is no such device here, or fastssl was built without kernels for it.
    """
    if name == "auto":
        return torch.device("cpu" if _missing_cuda() else "cuda")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdecimal()):
        raise InputError(f"device: {name!r}; expected cpu, cuda, cuda:NUMBER or auto")
    if kind == "cuda":
        if missing := _missing_cuda():
            raise InputError(f"device: {name} cannot be used, {missing} (see `fastssl doctor`)")
        if number and int(number) >= torch.cuda.device_count():
            raise InputError(
                f"device: there is no {name}, this machine has {torch.cuda.device_count()} GPU(s)"
            )
    elif number:
        raise InputError(f"device: {name!r}; the CPU has no number")
    return torch.device(name)


def _missing_cuda() -> str:
    """Why CUDA cannot be used here; empty if it can."""
    if not torch.backends.cuda.is_built():
        return "this torch is a CPU build"
    if not torch.cuda.is_available():
        return "torch finds no GPU and driver"
    if not fastssl.build_info()["cuda"]:
        return "fastssl was built without CUDA"
    return ""
