"""What a finished run predicted for its test part, kept so that a report needs no data.

predictions.safetensors holds, for every network that is evaluated, the class and the confidence it
gives each test image, and the images themselves of its most confident mistakes. N test images of K
channels, H x W pixels, M of them kept.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fastssl.errors import InputError
from fastssl.training.evaluation import Evaluation
from fastssl.training.record import write_atomic

FORMAT = 1
KEPT = 24  # mistakes of the network the paper evaluates


@dataclass(frozen=True)
class Mistakes:
    """The most confident ones of the network the paper evaluates, the surest first."""

    rows: Tensor  # int64 [M], of the test part
    images: Tensor  # uint8 [M,K,H,W]; [M] zeros where the data are points
    names: tuple[str, ...]  # the images' files, or their numbers in the test part


@dataclass(frozen=True)
class Predictions:
    """Every network's classes and confidences for N test images.

    The networks are in the order of `Algorithm.predictors`: the one the paper evaluates is first.
    """

    step: int
    class_names: tuple[str, ...]
    labels: Tensor  # int64 [N]
    classes: dict[str, Tensor]  # int64 [N]
    confidences: dict[str, Tensor]  # float32 [N], the softmax of the class
    mistakes: Mistakes


def surest_mistakes(found: Evaluation, labels: Tensor) -> Tensor:
    """Rows int64 [M] of the first network's most confident mistakes, M at most KEPT."""
    classes, confidences = (next(iter(x.values())) for x in (found.classes, found.confidences))
    wrong = (classes != labels).nonzero().flatten()
    return wrong[confidences[wrong].argsort(descending=True, stable=True)[:KEPT]]


def write_predictions(
    path: Path,
    found: Evaluation,
    labels: Tensor,
    *,
    step: int,
    class_names: tuple[str, ...],
    images_at: Callable[[Tensor], Tensor],
    name_of: Callable[[int], str],
) -> None:
    """Write predictions.safetensors.

    Args:
        path: of the file.
        found: of the test part, on the host.
        labels: int64 [N].
        step: of the networks.
        class_names: C of them.
        images_at: the images uint8 [M,K,H,W], or points, at rows int64 [M] of the test part.
        name_of: what to call the image of a row.

    Raises:
        InputError: the file cannot be written.
    """
    rows = surest_mistakes(found, labels)
    images = images_at(rows)
    if images.dtype != torch.uint8:
        images = torch.zeros(len(rows), dtype=torch.uint8)
    header = {
        "format": FORMAT,
        "step": step,
        "class_names": class_names,
        "networks": list(found.classes),
        "mistakes": [name_of(row) for row in rows.tolist()],
    }
    tensors = {"labels": labels, "mistakes.rows": rows, "mistakes.images": images.contiguous()}
    for name in found.classes:
        tensors[f"classes.{name}"] = found.classes[name]
        tensors[f"confidences.{name}"] = found.confidences[name]
    write_atomic(path, save(tensors, metadata={"header": json.dumps(header)}))


def read_predictions(path: Path) -> Predictions:
    """Read predictions.safetensors.

    Raises:
        InputError: it is not one that this version of fastssl wrote.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = json.loads(file.metadata()["header"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if header["format"] != FORMAT:
            raise InputError(f"{path}: format {header['format']}, this version reads {FORMAT}")
        networks, names = header["networks"], tuple(header["class_names"])
        found = Predictions(
            step=header["step"],
            class_names=names,
            labels=tensors["labels"],
            classes={name: tensors[f"classes.{name}"] for name in networks},
            confidences={name: tensors[f"confidences.{name}"] for name in networks},
            mistakes=Mistakes(
                tensors["mistakes.rows"], tensors["mistakes.images"], tuple(header["mistakes"])
            ),
        )
        _check(found)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not predictions that fastssl wrote ({error})") from error
    return found


def _check(found: Predictions) -> None:
    """Shapes fit together and every class has a name."""
    n, most = len(found.labels), len(found.class_names)
    for values in (found.labels, *found.classes.values()):
        if values.shape != (n,) or (n and not 0 <= int(values.min()) <= int(values.max()) < most):
            raise ValueError("classes that have no name, or of another number of images")
    if not found.classes or any(x.shape != (n,) for x in found.confidences.values()):
        raise ValueError("confidences of another number of images")
    rows, images, names = found.mistakes.rows, found.mistakes.images, found.mistakes.names
    inside = not len(rows) or (int(rows.min()) >= 0 and int(rows.max()) < n)
    if not (len(rows) == len(images) == len(names) and inside and images.dtype == torch.uint8):
        raise ValueError("mistakes that do not fit the images")
