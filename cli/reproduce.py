"""`fastssl reproduce`: a table of results, run by run."""

from pathlib import Path
from typing import Any

import click

from fastssl.cli.data_options import data_dir_option
from fastssl.cli.main import INTERRUPTED, OneLineError
from fastssl.cli.pass_options import compile_option, pass_changes, precision_option
from fastssl.errors import InputError, StoppedError, unknown_name
from fastssl.recipes.runs import fit
from fastssl.recipes.tables import TABLES
from fastssl.recipes.tables.cells import Scale, Table, pending, runs
from fastssl.reporting.tables import Entry, write_table


@click.command()
@click.argument("table", required=False)
@click.option("--only", multiple=True, metavar="ROW", help="This row alone; may be repeated.")
@click.option(
    "--column", multiple=True, metavar="COLUMN", help="This column alone; may be repeated."
)
@click.option(
    "--seeds", type=int, metavar="N", help="Runs a cell.  [default: the table's; 1 with --smoke]"
)
@click.option(
    "--budget",
    type=float,
    default=1.0,
    metavar="SHARE",
    help="Share of each recipe's steps, such as 0.1; kept apart from whole runs.  [default: 1]",
)
@click.option(
    "--smoke",
    is_flag=True,
    help="Three steps a stage on 512 training images, to see every row go; kept apart from whole"
    " runs.",
)
@data_dir_option
@click.option("--download", is_flag=True, help="Fetch what is missing of a named data set.")
@click.option(
    "--device", metavar="NAME", help="cpu, cuda, cuda:1, ...  [default: cuda if usable, else cpu]"
)
@precision_option
@compile_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Where runs and table go; those of --smoke and --budget in a folder apart."
    "  [default: runs/reproduce/TABLE]",
)
def reproduce(
    table: str | None,
    only: tuple[str, ...],
    column: tuple[str, ...],
    seeds: int | None,
    budget: float,
    smoke: bool,
    data_dir: str | None,
    download: bool,
    device: str | None,
    precision: str | None,
    compiler: str | None,
    out: Path | None,
) -> None:
    """Train the runs behind TABLE and write it; without TABLE, list the tables there are.

    Runs that are done are kept, one that was stopped is continued: the same command again goes on
    where it left off. Each finished run updates table.md (mean ± standard deviation, the paper's
    figures beside them) and cells.csv (a line a run) in the folder.

    \b
    fastssl reproduce digits --only muscle --seeds 3
    fastssl reproduce muscle/table1 --smoke --data-dir FOLDER
    """  # noqa: D301  (click's mark for lines it must not join)
    if table is None:
        for name, each in TABLES.items():
            click.echo(listed(name, each))
        return
    if table not in TABLES:
        raise unknown_name("table", table, TABLES)
    scale = Scale(budget, smoke)
    if seeds is not None and seeds < 1:
        raise InputError(f"seeds: {seeds}; expected 1 or more")
    chosen = TABLES[table]
    seeds = seeds or (1 if smoke else chosen.seeds)
    out = scale.folder(out or Path("runs", "reproduce", *table.split("/")))
    changes: dict[str, Any] = {"data.data_dir": data_dir, "device": device}
    changes = {key: value for key, value in changes.items() if value is not None}
    changes |= pass_changes(precision, compiler)
    wanted = runs(chosen.select(only, column), seeds, out)
    entries, title = all_entries(chosen, seeds, out), scale.title(chosen.title)
    for number, (cell, seed) in enumerate(wanted, start=1):
        run = pending(cell, seed, scale, out, download=download, **changes)
        place = f"[{number}/{len(wanted)}] {cell.row}, {cell.setting or cell.column}, seed {seed}"
        if run is None:
            click.echo(f"{place}: done")
            continue
        click.echo(f"{place}: from step {run.first_step}")
        try:
            fit(run)
        except StoppedError as error:
            message = f"{error}, saved; the same command again goes on from there"
            raise OneLineError(message, INTERRUPTED) from error
        write_table(out, title, entries)
    click.echo(write_table(out, title, entries))
    click.echo(f"table: {out / 'table.md'}\nruns: {out / 'cells.csv'}")


def listed(name: str, table: Table) -> str:
    """One line on a table: what it is and what it costs."""
    first = runs(table.cells, 1, Path())
    steps = sum(cell.config(seed).steps for cell, seed in first)
    amount = f"{steps / 1e6:.1f} million" if steps >= 1e6 else f"{steps:,}"
    return (
        f"{name}  {table.title}; {len(table.cells)} cells, {table.seeds} seeds; "
        f"cost: {len(first)} runs and {amount} steps a seed, {table.cost}"
    )


def all_entries(table: Table, seeds: int, out: Path) -> list[Entry]:
    """Every figure of a table, chosen now or not, seed by seed."""
    return [
        Entry(cell.row, cell.column, cell.paper, seed, cell.folder(out, seed), cell.figure)
        for cell in table.cells
        for seed in range(seeds)
    ]
