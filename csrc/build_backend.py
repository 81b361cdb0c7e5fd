"""scikit-build-core, building against the installed torch and saying in one line what is missing.

The extension uses torch's stable C ABI only, so the headers of any torch >= 2.11 will do, and torch
is never imported. pip's isolated environment hides site-packages from sys.path, but sysconfig still
names the target environment's: an installed torch is found there and nothing is downloaded. Without
one, torch becomes a build requirement. FASTSSL_TORCH_DIR names another torch folder.
"""

import importlib.util
import os
import re
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path

try:
    from scikit_build_core import build as _build
    from scikit_build_core.build import *  # noqa: F403
except ImportError:  # run as a script by CMake, which asks only for the folder
    _build = None

TORCH = "torch>=2.11"
HEADER = "include/torch/csrc/stable/library.h"


def find_torch() -> Path | None:
    """The folder of a torch package with stable-ABI headers, or None."""
    if named := os.environ.get("FASTSSL_TORCH_DIR"):
        if not Path(named, HEADER).exists():
            raise SystemExit(f"fastssl: FASTSSL_TORCH_DIR={named} holds no {HEADER}")
        return Path(named)
    spec = importlib.util.find_spec("torch")
    folders = list(spec.submodule_search_locations or []) if spec else []
    folders += [Path(sysconfig.get_path(key), "torch") for key in ("platlib", "purelib")]
    return next((Path(folder) for folder in folders if Path(folder, HEADER).exists()), None)


def torch_version(torch: Path) -> str:
    """The version of the torch package in a folder, read without importing it."""
    text = Path(torch, "version.py").read_text()
    match = re.search(r"__version__\s*=\s*'([^']+)'", text)
    return match[1] if match else "unknown"


def require_compiler() -> None:
    """Stop with one line if there is no C++ compiler."""
    named = os.environ.get("CXX")
    candidates = [shlex.split(named)[0]] if named else ["c++", "g++", "clang++"]
    if not any(shutil.which(candidate) for candidate in candidates):
        raise SystemExit(
            f"fastssl: no C++ compiler found (looked for {', '.join(candidates)}): "
            "install g++ >= 12 or clang++ >= 16, or name one in CXX"
        )


def get_requires_for_build_wheel(config_settings=None):
    """scikit-build-core's, and torch only where none is installed."""
    return _build.get_requires_for_build_wheel(config_settings) + ([] if find_torch() else [TORCH])


def get_requires_for_build_editable(config_settings=None):
    """scikit-build-core's, and torch only where none is installed."""
    return _build.get_requires_for_build_editable(config_settings) + (
        [] if find_torch() else [TORCH]
    )


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    """Build a wheel."""
    require_compiler()
    return _build.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    """Build an editable wheel."""
    require_compiler()
    return _build.build_editable(wheel_directory, config_settings, metadata_directory)


if __name__ == "__main__":
    torch = find_torch()
    if torch is None:
        sys.exit("fastssl: no torch >= 2.11: install it, or name its folder in FASTSSL_TORCH_DIR")
    print(f"{torch.as_posix()};{torch_version(torch)}")
