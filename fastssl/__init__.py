"""Image classifiers from a handful of labels: MUSCLE and CCN on a C++/CUDA core."""

import torch  # noqa: F401  (the extension links against the libraries that this loads)

from fastssl import _C

__version__ = "0.1.0"
__all__ = ["LabelDiffusion", "build_info"]


def __getattr__(name: str) -> object:
    """LabelDiffusion, imported when asked for: it brings scikit-learn."""
    if name != "LabelDiffusion":
        raise AttributeError(f"module 'fastssl' has no attribute {name!r}")
    from fastssl.estimators import LabelDiffusion

    return LabelDiffusion


def build_info() -> dict[str, str]:
    """How the compiled extension was built.

    Returns:
        "version" of fastssl, "compiler", "cuda" (the toolkit's version, empty for a CPU-only
        build), "architectures" (of the CUDA kernels), "torch_headers" (the torch it was compiled
        against) and "cpu_capability" (the instruction set its CPU kernels use on this machine).
    """
    names = ("compiler", "cuda", "architectures", "torch_headers", "cpu_capability")
    return {"version": __version__, **{name: getattr(_C, name) for name in names}}
