"""`fastssl propagate`: labels for all rows of a table of features, from the few that are known."""

import csv
import io
import json
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from fastssl.cli.table import aligned
from fastssl.errors import InputError
from fastssl.ops import diffuse, knn_graph
from fastssl.ops.propagate_labels import (
    UNKNOWN,
    check_labels,
    class_distributions,
    label_seeds,
    pseudo_labels,
)
from fastssl.training.device import resolve_device
from fastssl.training.record import write_atomic

STAGES = ("read", "graph", "diffusion", "write")
ARRAYS = ("features", "labels")  # of an .npz


@click.command()
@click.argument("features", type=click.Path(path_type=Path))
@click.option("--labels", type=click.Path(path_type=Path), help="CSV, where FEATURES is an .npy.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="CSV to write.")
@click.option("--k", default=50, show_default=True, type=click.IntRange(1), help="Neighbours.")
@click.option(
    "--exponent", default=3.0, show_default=True, type=click.FloatRange(0), help="Of similarities."
)
@click.option(
    "--alpha",
    default=0.99,
    show_default=True,
    type=click.FloatRange(0, 1, max_open=True),
    help="Share that a row takes from its neighbours.",
)
@click.option(
    "--iterations", default=20, show_default=True, type=click.IntRange(1), help="At most."
)
@click.option(
    "--index",
    default="exact",
    show_default=True,
    type=click.Choice(["exact", "ivf", "hnsw"]),
    help="How neighbours are found; all but exact need FAISS.",
)
@click.option(
    "--device",
    default="auto",
    metavar="NAME",
    help="cpu, cuda, cuda:1, ...  [default: cuda if usable, else cpu]",
)
@click.option("--json", "as_json", is_flag=True, help="The summary as one JSON object.")
def propagate(
    features: Path,
    labels: Path | None,
    out: Path,
    k: int,
    exponent: float,
    alpha: float,
    iterations: int,
    index: str,
    device: str,
    as_json: bool,
) -> None:
    """Labels for all rows of FEATURES from the few that are known (Iscen et al., 2019).

    FEATURES is an .npz of "features" [N, D] and "labels" [N], -1 or empty where unknown; or an .npy
    of the features alone beside --labels, a CSV with a column "label" and a row for each of them,
    or with a column "index" too, counted from 0, and rows for those that are known.

    The CSV written has the columns index, label, confidence (the share of its class) and weight
    (how far to trust it, 1 for known ones). A row that no known label reaches has no label.
    """
    if not out.absolute().parent.is_dir():
        raise InputError(f"--out: there is no folder {out.absolute().parent}")
    where = resolve_device(device)
    stages = Stages()
    with stages("read"):
        rows, names = read(features, labels)
        classes, known = encode(names)
        x, y = rows.to(where), known.to(where)
        if k >= len(x):
            raise InputError(f"--k is {k}; expected less than the {len(x)} rows of {features}")
    with stages("graph"), acted_upon():
        C = check_labels("propagate", x, y, len(classes))
        graph = knn_graph(x, k, exponent, index=index)
    with stages("diffusion"):
        scores, taken = diffuse(graph, label_seeds(y, C), alpha, max_iterations=iterations)
        distributions = class_distributions(scores)
        found, weights, _ = (t.cpu() for t in pseudo_labels(distributions, y))
        taken = int(taken.max())
    with stages("write"):
        confidence = distributions.cpu().gather(1, found[:, None]).flatten()
        reached = (known >= 0) | (weights > 0) | (confidence > 0)
        write_atomic(out, table(classes, found, confidence, weights, reached))
    stages.close()
    summary = {
        "rows": len(rows),
        "features": rows.shape[1],
        "classes": C,
        "known": int((known >= 0).sum()),
        "unreached": int((~reached).sum()),
        "edges": len(graph.col),
        "recall": graph.recall,
        "iterations": taken,
        "seconds": {name: round(seconds, 3) for name, seconds in stages.seconds.items()},
        "peak_memory_bytes": peak_memory(),
        "out": str(out),
    }
    click.echo(json.dumps(summary) if as_json else text(summary))


class Stages:
    """A progress bar that moves on with every stage, and the seconds that each took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._bar = tqdm(total=len(STAGES), unit="stage", disable=None, leave=False)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self._bar.set_description(name)
        start = time.perf_counter()
        try:
            yield
        except BaseException:
            self.close()  # before the line that says what is wrong
            raise
        self.seconds[name] = time.perf_counter() - start
        self._bar.update()

    def close(self) -> None:
        """Take the bar off the terminal."""
        self._bar.close()


@contextmanager
def acted_upon() -> Iterator[None]:
    """What an op says of features and labels that it cannot take is for the user to act on."""
    try:
        yield
    except (ValueError, ModuleNotFoundError) as error:
        raise InputError(str(error)) from error


def read(features: Path, labels: Path | None) -> tuple[Tensor, list[str]]:
    """Features [N, D] in floating point, and the label of each row as text, empty if unknown."""
    arrays = load(features)
    if isinstance(arrays, np.ndarray):
        if labels is None:
            raise InputError(f"{features} holds features alone; --labels names a CSV beside it")
        return as_features(features, arrays), read_csv(labels, len(arrays))
    if labels is not None:
        raise InputError(f"--labels: {features} is an .npz and holds its own labels")
    if missing := [name for name in ARRAYS if name not in arrays]:
        raise InputError(f"{features} has no array {missing[0]!r}; it has {', '.join(arrays)}")
    rows, given = as_features(features, arrays["features"]), arrays["labels"]
    if given.shape != (len(rows),) or given.dtype.kind not in "iuUS":
        raise InputError(
            f"{features}: labels is {list(given.shape)} of {given.dtype}; expected [{len(rows)}] "
            "of integers or strings"
        )
    return rows, ["" if name == str(UNKNOWN) else name for name in given.astype(str).tolist()]


def load(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    """The array of an .npy, the arrays of an .npz."""
    if path.suffix not in (".npy", ".npz"):
        raise InputError(f"{path} is no .npy or .npz")
    try:
        found = np.load(path, allow_pickle=False)
        return found if isinstance(found, np.ndarray) else dict(found)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except Exception as error:  # zip, header and pickle errors, each of its own kind
        raise InputError(f"{path} cannot be read: {error}") from error


def as_features(path: Path, array: np.ndarray) -> Tensor:
    """An array [N, D] of numbers as a tensor of floating point."""
    if array.ndim != 2 or array.dtype.kind not in "fiu" or 0 in array.shape:
        raise InputError(
            f"{path}: features is {list(array.shape)} of {array.dtype}; expected numbers [N, D]"
        )
    return torch.from_numpy(array if array.dtype in ("f2", "f4", "f8") else array.astype("f4"))


def read_csv(path: Path, N: int) -> list[str]:
    """The label of each of N rows as text, empty if unknown."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns, lines = reader.fieldnames or [], list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if "label" not in columns:
        raise InputError(f"{path} has no column 'label'; its first line is {','.join(columns)}")
    if "index" not in columns and len(lines) != N:
        raise InputError(f"{path} has {len(lines)} rows; expected {N}, or a column 'index'")
    names = [""] * N
    for number, line in enumerate(lines):
        index = line.get("index", str(number)) or ""
        if not index.isdecimal() or int(index) >= N:
            raise InputError(f"{path}: index is {index!r}; expected one of 0 to {N - 1}")
        label = (line["label"] or "").strip()
        names[int(index)] = "" if label == str(UNKNOWN) else label
    return names


def encode(names: list[str]) -> tuple[list[str], Tensor]:
    """The classes, numbers in their order, and the place of each label among them, or -1."""
    classes = sorted(set(names) - {""}, key=lambda name: (not name.isdecimal(), len(name), name))
    if not all(name.isdecimal() for name in classes):
        classes.sort()
    place = {name: number for number, name in enumerate(classes)} | {"": UNKNOWN}
    return classes, torch.tensor([place[name] for name in names], dtype=torch.int64)


def table(
    classes: list[str], labels: Tensor, confidence: Tensor, weights: Tensor, reached: Tensor
) -> bytes:
    """The CSV that is written."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["index", "label", "confidence", "weight"])
    columns = (column.tolist() for column in (labels, confidence, weights, reached))
    for index, (label, share, weight, is_reached) in enumerate(zip(*columns, strict=True)):
        name = classes[label] if is_reached else ""
        writer.writerow([index, name, f"{share:.6f}", f"{weight:.6f}"])
    return text.getvalue().encode()


def peak_memory() -> int:
    """The most memory that this process has held, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def text(summary: dict) -> str:
    """The summary for people."""
    stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in summary["seconds"].items())
    recall = summary["recall"]
    rows = [
        ("rows", f"{summary['rows']} of {summary['features']} features"),
        ("known labels", f"{summary['known']} of {summary['classes']} classes"),
        ("unreached", str(summary["unreached"])),
        ("edges", f"{summary['edges']}" + ("" if recall is None else f", recall {recall:.3f}")),
        ("iterations", str(summary["iterations"])),
        ("seconds", stages),
        ("peak memory", f"{summary['peak_memory_bytes'] / 2**20:.0f} MiB"),
        ("written", summary["out"]),
    ]
    return aligned(rows)
