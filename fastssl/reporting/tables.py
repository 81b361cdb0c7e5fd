"""A table of results from its runs' folders: the paper's figures beside ours, Markdown and CSV."""

import csv
import io
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastssl.errors import InputError
from fastssl.reporting.results import Result, results
from fastssl.training.record import RunFolder, read_metrics, write_atomic

COLUMNS = (
    *("row", "column", "seed", "network", "figure", "value", "steps"),
    *("fastssl", "torch", "device", "threads"),
)


@dataclass(frozen=True)
class Entry:
    """One run of a cell: its place in the table, and its folder."""

    row: str
    column: str
    paper: str
    seed: int
    folder: Path
    figure: str = "accuracy"  # "error" is 1 - accuracy; others by their names in metrics.jsonl

    @property
    def scale(self) -> int:
        """From what a run records to what the table shows: shares become percents."""
        return 1 if self.figure.startswith("entropy") else 100


def records(entries: Sequence[Entry]) -> list[dict[str, object]]:
    """What the finished runs reached, one record a run: the network the paper evaluates.

    Raises:
        InputError: a run's files are damaged.
    """
    found = []
    for entry in entries:
        if not (entry.folder / "run.json").exists():
            continue
        folder = RunFolder.open(entry.folder)
        result, about = results(folder)[0], folder.description()
        if result.accuracy is not None:
            value = _value(entry.figure, result)
            place = {"row": entry.row, "column": entry.column, "seed": entry.seed}
            reached = {"network": result.network, "figure": entry.figure, "value": value}
            found.append(
                {**place, **reached, "steps": result.steps}
                | {key: about.get(key, "") for key in COLUMNS[7:]}
            )
    return found


def _value(figure: str, result: Result) -> float:
    """A figure of a finished run's test part, of the network the paper evaluates."""
    if figure == "accuracy":
        return result.accuracy
    if figure == "error":
        return 1 - result.accuracy
    last = read_metrics(result.folder.metrics_jsonl)[-1]
    key = f"{figure}/test/{result.network}"
    if key not in last:
        raise InputError(f"{result.folder.metrics_jsonl}: the last line has no {key}")
    return last[key]


def as_csv(found: Sequence[dict[str, object]]) -> str:
    """Records as CSV, a line a run."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return text.getvalue()


def as_markdown(title: str, entries: Sequence[Entry], found: Sequence[dict[str, object]]) -> str:
    """Mean ± std (n) of every cell, and the paper's figure where there is one."""
    rows = list(dict.fromkeys(entry.row for entry in entries))
    columns = list(dict.fromkeys(entry.column for entry in entries))
    known = {(entry.row, entry.column): entry for entry in entries}
    lines = [
        f"# {title}",
        "",
        "| | " + " | ".join(columns) + " |",
        "|---" * (1 + len(columns)) + "|",
    ]
    for row in rows:
        cells = []
        for column in columns:
            entry = known.get((row, column))
            if entry is None:
                cells.append("")
                continue
            own = [r for r in found if (r["row"], r["column"]) == (row, column)]
            cells.append(_cell([entry.scale * r["value"] for r in own], entry.paper))
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(values: Sequence[float], paper: str) -> str:
    """96.40 ± 0.81 (n = 5), paper 97.1 ± 0.2."""
    if not values:
        ours = "–"
    elif len(values) == 1:
        ours = f"{values[0]:.2f} (n = 1)"
    else:
        mean, std = statistics.mean(values), statistics.stdev(values)
        ours = f"{mean:.2f} ± {std:.2f} (n = {len(values)})"
    return f"{ours}, paper {paper}" if paper else ours


def write_table(folder: Path, title: str, entries: Sequence[Entry]) -> str:
    """Write table.md and cells.csv in a folder from the runs that are finished; the Markdown.

    Raises:
        InputError: a run's files are damaged, or the folder cannot be written.
    """
    found = records(entries)
    text = as_markdown(title, entries, found)
    write_atomic(folder / "cells.csv", as_csv(found).encode())
    write_atomic(folder / "table.md", text.encode())
    return text
