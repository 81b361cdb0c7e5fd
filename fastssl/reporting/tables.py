"""A table of results from its runs' folders: the paper's figures beside ours, Markdown and CSV."""

import csv
import io
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastssl.reporting.results import results
from fastssl.training.record import RunFolder, write_atomic

COLUMNS = (
    *("row", "column", "seed", "network", "accuracy", "steps"),
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
            place = {"row": entry.row, "column": entry.column, "seed": entry.seed}
            reached = {"network": result.network, "accuracy": result.accuracy}
            found.append(
                {**place, **reached, "steps": result.steps}
                | {key: about.get(key, "") for key in COLUMNS[6:]}
            )
    return found


def as_csv(found: Sequence[dict[str, object]]) -> str:
    """Records as CSV, a line a run."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return text.getvalue()


def as_markdown(title: str, entries: Sequence[Entry], found: Sequence[dict[str, object]]) -> str:
    """Mean ± std (n) of every cell in %, and the paper's figure where there is one."""
    rows = list(dict.fromkeys(entry.row for entry in entries))
    columns = list(dict.fromkeys(entry.column for entry in entries))
    paper = {(entry.row, entry.column): entry.paper for entry in entries}
    lines = [
        f"# {title}",
        "",
        "| | " + " | ".join(columns) + " |",
        "|---" * (1 + len(columns)) + "|",
    ]
    for row in rows:
        cells = []
        for column in columns:
            place = row, column
            values = [100 * r["accuracy"] for r in found if (r["row"], r["column"]) == place]
            cells.append(_cell(values, paper.get(place, "")))
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
