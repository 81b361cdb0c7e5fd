"""The figures of README and of the recipes' docstrings, from the runs in results/tables.

    python -m fastssl.benchmarks.records

writes them anew after a table was trained anew; a test holds the files to it. In a table, which
begins with a line that is known, each line that begins with a row's name has figures such as
12.34 ± 5.67, in the order of the row's cells.
"""

import csv
import re
import statistics
from dataclasses import dataclass
from functools import cache

from fastssl.benchmarks.rows import RESULTS

ROOT = RESULTS.parent.parent
FIGURE = re.compile(r" +\d+\.\d+ ± \d+\.\d+")

Cell = tuple[str, str, str]  # table, row, column


@dataclass(frozen=True)
class Record:
    """A table in a file: the line it begins with, and the cells of every row by its name there."""

    path: str
    first_line: str
    rows: dict[str, list[Cell]]


def _digits(row: str) -> list[Cell]:
    return [("digits", row, f"{labels} labels") for labels in (20, 50)]


def _ccn(variant: str) -> list[Cell]:
    name = "ccn" if variant == "full" else f"ccn-{variant}"
    return [("ccn-digits", name, "20 labels"), ("ccn-two_spirals", name, "40 labels")]


METHODS = ("supervised", "label-propagation", "mean-teacher", "fixmatch")
METHODS += ("mean-teacher+label-propagation",)
DIGITS = {
    name: _digits(name)
    for name in (
        *METHODS,
        "muscle",
        *(f"muscle+{each}" for each in METHODS if each != "supervised"),
    )
}
MNIST = {name: [("mnist", name, "100 labels")] for name in ("supervised", "muscle+mean-teacher")}
VARIANTS = ("full", "no-ml", "no-ccn", "no-vat", "baseline")
CCN = [_ccn(variant) for variant in VARIANTS]
CCN[2:4] = [cells[:1] for cells in CCN[2:4]]  # these two are of the digits alone
CCN_IN_WORDS = (
    *("CCN", "without mutual learning", "without the correction"),
    "without virtual adversarial training",
    "baseline: two networks' cross entropy and mutual learning",
)
RECIPES = "fastssl/recipes"
RECORDS = (
    Record("README.md", "| | 20 labels | 50 labels |", DIGITS),
    Record(
        "README.md",
        "| | digits, 20 labels | two spirals, 40 labels, seeds 0 to 9 |",
        dict(zip(CCN_IN_WORDS, CCN, strict=True)),
    ),
    Record(
        "README.md",
        "| | 100 labels | the papers' |",
        {**MNIST, "CCN": [("mnist", "ccn", "100 labels")]},
    ),
    Record(f"{RECIPES}/digits.py", "    labels ", DIGITS),
    Record(f"{RECIPES}/mnist.py", "Result: test error", MNIST),
    Record(
        f"{RECIPES}/ccn.py",
        "                  two_spirals, 40 labels",
        dict(zip(VARIANTS, [cells[::-1] for cells in CCN], strict=True)),
    ),
)


@cache
def figure(cell: Cell) -> str:
    """Mean ± std of a cell's runs, in %."""
    table, row, column = cell
    with (RESULTS / "tables" / f"{table}.csv").open(newline="") as file:
        values = [
            100 * float(each["value"])
            for each in csv.DictReader(file)
            if (each["row"], each["column"]) == (row, column)
        ]
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


def renewed(text: str, record: Record) -> str:
    """A file's text with the figures of a table as the runs have them, each as wide as before.

    Raises:
        ValueError: it has no such table, or a row of it fewer figures.
    """
    lines = text.split("\n")
    starts = [i for i, line in enumerate(lines) if line.startswith(record.first_line)]
    if len(starts) != 1:
        raise ValueError(f"{record.path}: {len(starts)} lines begin with {record.first_line!r}")
    for name, cells in record.rows.items():
        begins = (f"| {name} |", f"    {name} ")
        places = [i for i in range(starts[0], len(lines)) if lines[i].startswith(begins)]
        line = lines[places[0]] if places else ""
        found = list(FIGURE.finditer(line))
        if len(found) < len(cells):
            raise ValueError(f"{record.path}: {len(found)} figures of {name}, not {len(cells)}")
        for match, cell in reversed(list(zip(found, cells, strict=False))):  # more are the paper's
            new = f" {figure(cell)}".rjust(len(match[0]))
            line = line[: match.start()] + new + line[match.end() :]
        lines[places[0]] = line
    return "\n".join(lines)


def main() -> None:
    """Write the files anew."""
    for record in RECORDS:
        path = ROOT / record.path
        path.write_text(renewed(path.read_text(), record))


if __name__ == "__main__":
    main()
