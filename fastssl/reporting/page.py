"""One self-contained HTML page about one or several runs, from their folders alone.

N test images, C classes.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure

from fastssl.errors import InputError
from fastssl.reporting.calibration import Reliability, draw_reliability, reliability
from fastssl.reporting.confusion import READABLE, confusion, draw_confusion, most_confused
from fastssl.reporting.curves import curve_figures, short_names
from fastssl.reporting.drawing import COLOURS, data_uri, image_uri, png
from fastssl.reporting.figures import figures
from fastssl.reporting.results import Result, results, summaries
from fastssl.training.predictions import Predictions, read_predictions
from fastssl.training.record import RunFolder, write_atomic

BROAD = 7.0  # inches, beyond which a figure is scrolled sideways on a phone
LISTED = 200  # positions of a part that are written out
APART = 0.5  # share of a cell's row from which its text is white


@dataclass(frozen=True)
class Picture:
    """A figure as the page holds it."""

    title: str
    caption: str
    uri: str
    broad: bool = False  # of several panels, whose letters a phone's width is too small for


@dataclass
class About:
    """What the page says of one run; what its folder does not have is listed in `missing`."""

    name: str
    path: str
    colour: str
    results: list[Result]
    config: dict[str, str]
    environment: dict[str, str]
    split: list[tuple[str, str]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    network: str = ""  # the one the paper evaluates, which the rest is about
    calibration: dict[str, Reliability] = field(default_factory=dict)  # of every network
    classes: list[dict[str, Any]] = field(default_factory=list)
    confusion: list[dict[str, Any]] = field(default_factory=list)  # rows; none if C is large
    confusion_picture: Picture | None = None
    confused: list[tuple[str, str, int]] = field(default_factory=list)
    mistakes: list[dict[str, str]] = field(default_factory=list)
    tested: int = 0
    wrong: int = 0


def write_report(folders: Sequence[RunFolder], path: Path) -> list[str]:
    """Write the page.

    Args:
        folders: of the runs, which are overlaid and tabulated.
        path: of the HTML file.

    Returns:
        What the page could not show, a line each.

    Raises:
        InputError: a run's run.json or metrics.jsonl is damaged, a run has logged nothing yet, or
            the file cannot be written.
    """
    names = short_names([folder.path for folder in folders])
    runs = [
        about(n, name, folder) for n, (name, folder) in enumerate(zip(names, folders, strict=True))
    ]
    curves = [Picture(title, alt, _uri(fig)) for title, alt, fig in curve_figures(folders)]
    calibrated = {n: run for n, run in enumerate(runs) if run.network}
    diagram = None
    if calibrated:
        bins = {n: (run.name, run.calibration[run.network]) for n, run in calibrated.items()}
        eces = "; ".join(f"{name}: {100 * found.ece:.2f} %" for name, found in bins.values())
        uri = _uri(draw_reliability(bins))
        diagram = Picture("Reliability diagram", f"ECE of {eces}", uri)
    missing = [f"{run.name}: {line}" for run in runs for line in run.missing]
    try:
        drawings = figures(folders)
    except InputError as error:
        drawings = []
        missing.append(f"figures of the algorithm's own: {error}")
    text = _template().render(
        runs=runs,
        means=summaries([result for run in runs for result in run.results]),
        curves=curves,
        diagram=diagram,
        figures=[
            Picture(name, caption, _uri(figure), broad=figure.get_figwidth() > BROAD)
            for name, caption, figure in drawings
        ],
        differences=differences(runs),
    )
    write_atomic(path, text.encode())
    return missing


def _template() -> jinja2.Template:
    """The page, in which every value is escaped, and what cannot be filled in is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")


def _uri(figure: Figure) -> str:
    return data_uri(png(figure))


def about(number: int, name: str, folder: RunFolder) -> About:
    """All that a run's folder has for the page.

    Raises:
        InputError: run.json or metrics.jsonl is damaged.
    """
    description = folder.description()
    data = description.get("data")
    facts = {k: v for k, v in description.items() if k not in ("format", "config", "data")}
    run = About(
        name,
        str(folder.path),
        COLOURS[number % len(COLOURS)],
        results(folder),
        flat(description.get("config")),
        flat(facts),
    )
    try:
        run.split = split_facts(json.loads(folder.split_json.read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        run.missing.append("which images were labeled: split.json is not there or damaged")
    try:
        found = predictions_of(folder, run.results[0])
    except InputError as error:
        run.missing.append(f"confusion, calibration and mistakes: {error}")
    else:
        labeled = data.get("labeled") if isinstance(data, dict) else None
        show_predictions(run, found, labeled)
    return run


def predictions_of(folder: RunFolder, result: Result) -> Predictions:
    """The predictions that a run has left.

    Raises:
        InputError: there are none, with the reason, or they are damaged.
    """
    if folder.predictions.exists():
        return read_predictions(folder.predictions)
    if result.step < result.steps:
        raise InputError(
            f"the run is at step {result.step} of {result.steps}, and its predictions for the test "
            "part are written at its end"
        )
    if result.accuracy is None:
        raise InputError("the run had no test images")
    raise InputError(f"{folder.predictions.name} is not in the folder")


def show_predictions(run: About, found: Predictions, labeled: list[int] | None) -> None:
    """Fill in what is known from predictions, given the labeled images of every class."""
    names, labels = found.class_names, found.labels
    for network, classes in found.classes.items():
        right = classes == labels
        run.calibration[network] = reliability(found.confidences[network], right)
    run.network, classes = next(iter(found.classes.items()))
    confidences = found.confidences[run.network]
    counts = confusion(labels, classes, len(names))
    run.tested, run.wrong = len(labels), int((classes != labels).sum())
    for c, (name, row) in enumerate(zip(names, counts.tolist(), strict=True)):
        given = str(labeled[c]) if labeled and len(labeled) == len(names) else ""
        share = row[c] / sum(row) if sum(row) else None
        entry = {"name": name, "labeled": given, "n": sum(row), "right": row[c], "accuracy": share}
        run.classes.append(entry)
        if len(names) <= READABLE:
            run.confusion.append({"name": name, "cells": [_cell(x, sum(row)) for x in row]})
    run.confused = [(names[p.label], names[p.taken_for], p.count) for p in most_confused(counts)]
    if len(names) > READABLE:
        title = "Confusion matrix"
        caption = f"Share of every class that was given each of the {len(names)} classes"
        run.confusion_picture = Picture(title, caption, _uri(draw_confusion(counts)))
    if found.mistakes.images.dim() == 4:
        mistakes = found.mistakes
        for row, image, file in zip(
            mistakes.rows.tolist(), mistakes.images, mistakes.names, strict=True
        ):
            entry = {
                "uri": image_uri(image),
                "file": file,
                "label": names[labels[row]],
                "taken_for": names[classes[row]],
                "confidence": f"{confidences[row]:.3f}",
            }
            run.mistakes.append(entry)


def _cell(count: int, total: int) -> dict[str, Any]:
    """A cell of the confusion matrix: its count, its share of the row, and whether it is dark."""
    share = count / total if total else 0.0
    return {"count": count, "share": f"{share:.3f}", "dark": share > APART}


def split_facts(split: dict[str, Any]) -> list[tuple[str, str]]:
    """What split.json says, for people; the first positions of the small parts among it."""
    parts = [part for part in ("labeled", "unlabeled", "validation", "test") if split[part]]
    facts = [(f"{part} images", str(len(split[part]))) for part in parts]
    facts += [(key, str(split[key])) for key in ("rule", "seed", "source", "fingerprint")]
    if split["sequestered"]:
        facts.append(("subclasses without labels", ", ".join(map(str, split["sequestered"]))))
    positions = split["labeled"]
    more = f" and {len(positions) - LISTED} more" if len(positions) > LISTED else ""
    facts.append(("positions of the labeled images", _listed(positions[:LISTED]) + more))
    return facts


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))


def flat(fields: Any, prefix: str = "") -> dict[str, str]:
    """JSON values by dotted key, as text."""
    if not isinstance(fields, dict):
        return {prefix.removesuffix("."): "none" if fields is None else str(fields)}
    values: dict[str, str] = {}
    for key, value in fields.items():
        values |= flat(value, f"{prefix}{key}.")
    return values


def differences(runs: Sequence[About]) -> list[tuple[str, list[str]]]:
    """The keys of the configuration in which runs differ, each with every run's value."""
    keys = dict.fromkeys(key for run in runs for key in run.config)
    rows = [(key, [run.config.get(key, "–") for run in runs]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]
