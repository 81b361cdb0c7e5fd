"""`fastssl doctor`: what is installed, what is missing, how to get it."""

import importlib.metadata
import importlib.util
import platform

import click
import torch

import fastssl
from fastssl.cli.table import aligned

PACKAGES = (
    "torch",
    "numpy",
    "scikit-learn",
    "safetensors",
    "pillow",
    "matplotlib",
    "jinja2",
    "click",
    "tqdm",
)
# What an optional package is for.
EXTRAS = (
    ("onnxscript", "onnx", "fastssl export --format onnx"),
    ("tensorboard", "tensorboard", "fastssl train --tensorboard"),
)


@click.command()
def doctor() -> None:
    """Versions, devices, how the extension was built, what is missing and how to get it."""
    build = fastssl.build_info()
    click.echo(section("versions", versions(build["version"])))
    click.echo(section("devices", devices()))
    click.echo(section("extension", extension(build)))
    notes = missing(build)
    click.echo("missing\n" + "\n".join(f"  {note}" for note in notes or ["nothing"]))


def section(title: str, rows: list[tuple[str, str]]) -> str:
    """A heading and its rows, indented."""
    lines = aligned(rows).splitlines()
    return "\n".join([title, *(f"  {line}" for line in lines)]) + "\n"


def versions(own: str) -> list[tuple[str, str]]:
    """Name and version of everything that takes part."""
    rows = [("fastssl", own), ("python", platform.python_version())]
    for name in PACKAGES:
        try:
            rows.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            rows.append((name, "not installed"))
    return rows


def devices() -> list[tuple[str, str]]:
    """Every device that torch finds."""
    capability = torch.backends.cpu.get_cpu_capability()
    rows = [("cpu", f"{torch.get_num_threads()} threads, {platform.machine()} {capability}")]
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        memory = f"{properties.total_memory / 2**30:.0f} GiB"
        architecture = f"sm_{properties.major}{properties.minor}"
        rows.append((f"cuda:{number}", f"{properties.name}, {memory}, {architecture}"))
    return rows


def extension(build: dict[str, str]) -> list[tuple[str, str]]:
    """How the compiled part was built."""
    absent = {"cuda": "none (CPU-only build)", "architectures": "none"}
    names = [name for name in build if name != "version"]
    return [(name.replace("_", " "), build[name] or absent.get(name, "unknown")) for name in names]


def missing(build: dict[str, str]) -> list[str]:
    """What would make more of this machine, each with the way to get it."""
    notes = []
    if not build["cuda"]:
        notes.append(
            "CUDA kernels: install the CUDA toolkit (nvcc), then build again: pip install . "
            "(FASTSSL_CUDA=ON makes a missing toolkit an error)"
        )
    if torch.version.cuda is None:
        notes.append("CUDA in torch: this is a CPU build; see https://pytorch.org/get-started")
    elif not torch.cuda.is_available():
        notes.append("a GPU: torch finds no NVIDIA GPU and driver; nvidia-smi should list one")
    for package, extra, use in EXTRAS:
        if importlib.util.find_spec(package) is None:
            notes.append(f"{use}: pip install 'fastssl[{extra}]'")
    return notes
