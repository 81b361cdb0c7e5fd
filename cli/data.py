"""`fastssl data`: what data sets there are, what is in one, and its label splits."""

import inspect
import json
from pathlib import Path
from typing import Any

import click
import torch

from fastssl.cli.data_options import holdout_option, source_options
from fastssl.cli.table import aligned
from fastssl.data.sources import SOURCES, UNKNOWN, Source, load_source
from fastssl.data.sources.image_folder import duplicates
from fastssl.data.splits import PARTS, RULES, LabelSplit, draw_split, split_from_positions
from fastssl.errors import InputError
from fastssl.training.record import write_atomic


@click.group()
def data() -> None:
    """Data sets: which there are, what is in one, who keeps a label, how its views look.

    A SOURCE is a name of `fastssl data list`, a folder of images (one folder a class, unlabeled/
    and, if there is one, test/), or a CSV of file,label beside a tree of images.
    """


@data.command("list")
def list_sources() -> None:
    """The named data sets."""
    rows = [[name, inspect.getdoc(read).splitlines()[0]] for name, read in SOURCES.items()]
    click.echo(aligned(rows))


@data.command()
@click.argument("source")
@source_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of tables.")
def info(source: str, as_json: bool, **place: Any) -> None:
    """Images, classes, normalisation and fingerprint of a SOURCE."""
    found = load_source(source, **place)
    facts = {
        "name": found.name,
        "shape": list(found.shape),
        "training": len(found.labels),
        "unlabeled": int((found.labels == UNKNOWN).sum()),
        "test": len(found.test_labels),
        "classes": found.num_classes,
        "subclasses": len(found.subclasses.names) if found.subclasses else 0,
        "mean": [round(x, 4) for x in found.mean.tolist()],
        "std": [round(x, 4) for x in found.std.tolist()],
        "fingerprint": found.fingerprint,
        "skipped": list(found.files.skipped) if found.files else [],
        "duplicates": duplicates(found, [], list(range(len(found.labels)))),
    }
    counts = {"training": found.labels, "test": found.test_labels}
    if as_json:
        names = found.class_names
        by_class = {
            key: dict(zip(names, per_class(x, found), strict=True)) for key, x in counts.items()
        }
        click.echo(json.dumps({**facts, "by_class": by_class}))
        return
    click.echo(aligned([[key, shown(value)] for key, value in facts.items()]))
    click.echo()
    click.echo(class_table(found, counts))


@data.command()
@click.argument("source")
@source_options
@click.option(
    "--labels",
    type=int,
    metavar="N",
    help="Images that keep their label, over all classes.  [default: all]",
)
@click.option(
    "--rule",
    default="balanced",
    show_default=True,
    metavar="NAME",
    help="How classes share them. " + " ".join(f"{k}: {v}." for k, v in RULES.items()),
)
@click.option("--ratio", type=float, metavar="R", help="Of rule imbalanced: first class to last.")
@click.option(
    "--labeled",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Instead of a rule: the positions, from 0, of the training images that keep their label.",
)
@click.option(
    "--validation", default=0, metavar="N", show_default=True, help="Training images to hold out."
)
@holdout_option
@click.option("--seed", default=0, show_default=True, metavar="N", help="Of the draw.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="split.json",
    show_default=True,
    metavar="FILE",
    help="Where the split goes.",
)
@click.option("--overwrite", is_flag=True, help="Replace that file.")
def split(
    source: str,
    labels: int | None,
    rule: str,
    ratio: float | None,
    labeled: Path | None,
    validation: int,
    holdout: float | None,
    seed: int,
    out: Path,
    overwrite: bool,
    **place: Any,
) -> None:
    """Choose the images of a SOURCE that keep their label.

    The file goes to `fastssl train --split FILE`, which refuses it for any other data.

    \b
    fastssl data split cifar10 --labels 1000 --validation 5000
    fastssl data split cifar20 --labels 800 --rule sequestered
    fastssl data split svhn --labels 500 --rule imbalanced --ratio 50
    """  # noqa: D301  (click's mark for lines it must not join)
    if out.exists() and not overwrite:
        raise InputError(f"out: {out} is there already; replace it with --overwrite")
    if not 0 <= seed < 2**63:
        raise InputError(f"seed: {seed}; expected 0 or more, below 2**63")
    found = load_source(source, **place)
    if labeled is None:
        drawn = draw_split(
            found,
            num_labels=labels,
            num_validation=validation,
            holdout=holdout,
            rule=rule,
            ratio=ratio,
            seed=seed,
        )
    elif labels is not None or validation or ratio is not None or rule != "balanced":
        raise InputError("--labeled excludes --labels, --rule, --ratio and --validation")
    else:
        drawn = split_from_positions(found, read_positions(labeled), holdout=holdout, seed=seed)
    write_atomic(out, drawn.to_json().encode())
    click.echo(class_table(found, {part: labels_of(found, drawn, part) for part in PARTS}))
    if drawn.sequestered:
        names = [found.subclasses.names[g] for g in drawn.sequestered]
        click.echo(f"without labels: {', '.join(names)}")
    click.echo(f"split: {out}")


def read_positions(path: Path) -> list[int]:
    """The whole numbers in a file, apart by blanks, lines or commas, in brackets or not.

    Raises:
        InputError: the file cannot be read, or holds anything else.
    """
    try:
        text = path.read_text()
        return [int(word) for word in text.strip().strip("[]").replace(",", " ").split()]
    except (OSError, ValueError) as error:
        raise InputError(f"labeled: {path} is not a list of whole numbers: {error}") from error


def labels_of(source: Source, drawn: LabelSplit, part: str) -> torch.Tensor:
    """Labels int64 of one part's images."""
    return source.labels[list(getattr(drawn, part))]


def per_class(labels: torch.Tensor, source: Source) -> list[int]:
    """Images of every class, those without a label left out."""
    return torch.bincount(labels[labels != UNKNOWN], minlength=source.num_classes).tolist()


def class_table(source: Source, parts: dict[str, torch.Tensor]) -> str:
    """How many images of every class are in each part that has any; labels int64 by part."""
    parts = {name: labels for name, labels in parts.items() if len(labels)}
    columns = [per_class(labels, source) for labels in parts.values()]
    rows = [[name, *map(str, row)] for name, *row in zip(source.class_names, *columns, strict=True)]
    if unknown := [int((labels == UNKNOWN).sum()) for labels in parts.values()]:
        rows += [["(no label)", *map(str, unknown)]] if any(unknown) else []
    rows.append(["all", *(str(len(labels)) for labels in parts.values())])
    return aligned([["class", *parts], *rows], right=range(1, len(parts) + 1))


def shown(value: Any) -> str:
    """A fact as text: lists without brackets, nothing as a dash."""
    if isinstance(value, list):
        value = ", ".join(" = ".join(x) if isinstance(x, tuple) else str(x) for x in value)
    return str(value) or "-"
