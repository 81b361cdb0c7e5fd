"""What an algorithm's networks put out while it trained, kept so that a figure needs no data.

outputs/plane-STEP.safetensors, of points in the plane: the classes that each network gives a grid
of G x G points, after every evaluation. outputs/final.safetensors, of the end: the features of some
test images, and images and logits of those on which the networks disagree.

N training points, n and M test images, K channels, H x W pixels, D features, C classes.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fastssl.errors import InputError
from fastssl.training.record import RunFolder, write_atomic

FORMAT = 1


@dataclass(frozen=True)
class Plane:
    """The networks' classes over the plane after a step, and what they were trained on.

    The networks are in the order of `Algorithm.predictors`: the one the paper evaluates is first.
    """

    step: int
    reach: float  # the grid is evenly spaced over [-reach, reach] in both coordinates
    classes: dict[str, Tensor]  # uint8 [G,G] of each network; row i is the i-th second coordinate
    points: Tensor  # float32 [N,2], the training points
    labels: Tensor  # int64 [N], their classes, known to the training or not
    labeled: Tensor  # int64, the positions of those whose labels were known


@dataclass(frozen=True)
class FinalOutputs:
    """What the networks of the last step make of test images."""

    step: int
    class_names: tuple[str, ...]
    features: Tensor  # float32 [n,D], the trained network's, of some test images
    labels: Tensor  # int64 [n], theirs
    images: Tensor  # uint8 [M,K,H,W], those the networks disagree on; points float32 [M,K]
    image_labels: Tensor  # int64 [M]
    logits: dict[str, Tensor]  # float32 [M,C] of each network


def write_plane(folder: RunFolder, plane: Plane) -> None:
    """Write the plane of a step.

    Raises:
        InputError: the folder cannot be written.
    """
    tensors = {"points": plane.points, "labels": plane.labels, "labeled": plane.labeled}
    tensors |= {f"classes.{name}": value for name, value in plane.classes.items()}
    header = {"step": plane.step, "reach": plane.reach, "networks": list(plane.classes)}
    _write(folder.outputs / f"plane-{plane.step:08d}.safetensors", header, tensors)


def read_planes(folder: RunFolder) -> list[Plane]:
    """All planes of a run, by step; none if its data are not points in the plane.

    Raises:
        InputError: one is damaged.
    """
    planes = []
    for path in folder.outputs.glob("plane-*.safetensors"):
        header, tensors = _read(path)
        classes = {name: tensors[f"classes.{name}"] for name in header["networks"]}
        rest = {key: tensors[key] for key in ("points", "labels", "labeled")}
        planes.append(Plane(header["step"], header["reach"], classes, **rest))
    return sorted(planes, key=lambda plane: plane.step)


def write_final(folder: RunFolder, found: FinalOutputs) -> None:
    """Write the outputs of the end.

    Raises:
        InputError: the folder cannot be written.
    """
    keys = ("features", "labels", "images", "image_labels")
    tensors = {key: getattr(found, key) for key in keys}
    tensors |= {f"logits.{name}": value for name, value in found.logits.items()}
    header = {
        "step": found.step,
        "class_names": found.class_names,
        "networks": list(found.logits),
    }
    _write(folder.outputs / "final.safetensors", header, tensors)


def read_final(folder: RunFolder) -> FinalOutputs | None:
    """The outputs of the end; None of a run that has not reached it.

    Raises:
        InputError: the file is damaged.
    """
    path = folder.outputs / "final.safetensors"
    if not path.exists():
        return None
    header, tensors = _read(path)
    keys = ("features", "labels", "images", "image_labels")
    return FinalOutputs(
        header["step"],
        tuple(header["class_names"]),
        **{key: tensors[key] for key in keys},
        logits={name: tensors[f"logits.{name}"] for name in header["networks"]},
    )


def _write(path: Path, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot create {path.parent}: {error.strerror or error}") from error
    own = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps({"format": FORMAT, **header})
    write_atomic(path, save(own, metadata={"header": text}))


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of a file that `_write` wrote."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = json.loads(file.metadata()["header"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if header.pop("format") != FORMAT:
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(f"{path}: not outputs that this version of fastssl wrote") from error
    return header, tensors


def grid(reach: float, size: int) -> Tensor:
    """Points float32 [size*size,2], evenly spaced over [-reach, reach]^2, by rows."""
    axis = torch.linspace(-reach, reach, size)
    second, first = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([first, second], -1).flatten(0, 1)
