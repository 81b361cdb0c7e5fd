"""Tables of results as runs: which algorithm, data and seeds stand behind each cell."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastssl.errors import unknown_name
from fastssl.recipes.config import Config, override, settable
from fastssl.recipes.experiment import Run, configure, resume, start
from fastssl.training.checkpoint import saved_steps
from fastssl.training.record import RunFolder


@dataclass(frozen=True)
class Cell:
    """One setting of a table, run with several seeds.

    `paper` is the paper's figure, in % and as it prints it, "" where there is none.
    """

    row: str
    column: str
    algorithm: str
    data: str
    changes: dict[str, Any] = field(default_factory=dict)  # to the recipe, by dotted key
    paper: str = ""

    def config(self, seed: int, budget: float) -> Config:
        """The configuration of one of its runs, with a share of the recipe's steps."""
        config = configure(self.algorithm, self.data, {**self.changes, "seed": seed})
        return override(config, {"steps": max(1, round(config.steps * budget))})

    def folder(self, table: Path, seed: int) -> Path:
        """Where that run goes in the folder of its table."""
        return table / f"{self.row} {self.column} seed {seed}".replace(" ", "-").replace("/", "-")


@dataclass(frozen=True)
class Table:
    """A table: rows of methods, columns of settings, test accuracy in each cell."""

    title: str
    seeds: int
    cells: tuple[Cell, ...]

    def select(self, rows: tuple[str, ...]) -> list[Cell]:
        """The cells of the rows of those names, all if there are none.

        Raises:
            InputError: the table has no such row.
        """
        known = {cell.row for cell in self.cells}
        for row in rows:
            if row not in known:
                raise unknown_name("only", row, known)
        return [cell for cell in self.cells if not rows or cell.row in rows]


DIGITS_ROWS = (
    *("supervised", "mean-teacher", "fixmatch"),
    *("muscle", "muscle+mean-teacher", "muscle+fixmatch"),
)
TABLES = {
    "digits": Table(
        title="scikit-learn's digits, test accuracy in % with 20 and 50 labels",
        seeds=5,
        cells=tuple(
            Cell(name, f"{labels} labels", name, "digits", {"data.labels": labels})
            for name in DIGITS_ROWS
            for labels in (20, 50)
        ),
    )
}


def pending(cell: Cell, seed: int, budget: float, table: Path) -> Run | None:
    """A cell's run that is still to be trained, from where it stands; None if it is at its end.

    Raises:
        InputError: its folder holds a run of another configuration; the first difference is named.
    """
    config, path = cell.config(seed, budget), cell.folder(table, seed)
    if not (path / "run.json").exists():
        return start(config, path)
    folder = RunFolder.open(path)
    saved = saved_steps(folder.checkpoints)
    if not saved:
        return start(config, path, overwrite=True)
    same = folder.description().get("config") == json.loads(json.dumps(config.to_json()))
    if same and saved[-1] == config.steps:
        return None
    return resume(path, cell.algorithm, settable(config))
