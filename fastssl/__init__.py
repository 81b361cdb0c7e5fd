"""Image classifiers from a handful of labels: MUSCLE and CCN on a C++/CUDA core."""

import importlib

import torch  # noqa: F401  (the extension links against the libraries that this loads)

from fastssl import _C

__version__ = "0.1.0"
__all__ = ["Classifier", "LabelDiffusion", "build_info", "fit", "load"]

# Imported when asked for, since they bring scikit-learn and all of training.
LAZY = {
    "Classifier": "classifier",
    "LabelDiffusion": "estimators",
    "fit": "classifier",
    "load": "classifier",
}


def __getattr__(name: str) -> object:
    """What is in LAZY, from its module."""
    if name not in LAZY:
        raise AttributeError(f"module 'fastssl' has no attribute {name!r}")
    return getattr(importlib.import_module(f"fastssl.{LAZY[name]}"), name)


def build_info() -> dict[str, str]:
    """How the compiled extension was built.

    Returns:
        "version" of fastssl, "compiler", "cuda" (the toolkit's version, empty for a CPU-only
        build), "architectures" (of the CUDA kernels), "torch_headers" (the torch it was compiled
        against) and "cpu_capability" (the instruction set its CPU kernels use on this machine).
    """
    names = ("compiler", "cuda", "architectures", "torch_headers", "cpu_capability")
    return {"version": __version__, **{name: getattr(_C, name) for name in names}}
