"""`fastssl reproduce`: a table of results, run by run."""

from pathlib import Path

import click

from fastssl.cli.main import INTERRUPTED, OneLineError
from fastssl.errors import InputError, StoppedError, unknown_name
from fastssl.recipes.experiment import fit
from fastssl.recipes.tables import TABLES, Table, pending
from fastssl.reporting.tables import Entry, write_table


@click.command()
@click.argument("table", required=False)
@click.option("--only", multiple=True, metavar="ROW", help="This row alone; may be repeated.")
@click.option("--seeds", type=int, metavar="N", help="Runs a cell.  [default: the table's]")
@click.option(
    "--budget",
    type=float,
    default=1.0,
    metavar="SHARE",
    help="Share of each recipe's steps, such as 0.1; kept apart from whole runs.  [default: 1]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Where runs and table go.  [default: runs/reproduce/TABLE]",
)
def reproduce(
    table: str | None, only: tuple[str, ...], seeds: int | None, budget: float, out: Path | None
) -> None:
    """Train the runs behind TABLE and write it; without TABLE, list the tables there are.

    Runs that are done are kept, one that was stopped is continued: the same command again goes on
    where it left off. Each finished run updates table.md (mean ± standard deviation, the paper's
    figures beside them) and cells.csv (a line a run) in the folder.

    \b
    fastssl reproduce digits --only muscle --seeds 3
    """  # noqa: D301  (click's mark for lines it must not join)
    if table is None:
        for name, each in TABLES.items():
            click.echo(f"{name}  {each.title}; {len(each.cells)} cells, {each.seeds} seeds")
        return
    if table not in TABLES:
        raise unknown_name("table", table, TABLES)
    if not 0 < budget <= 1:
        raise InputError(f"budget: {budget:g}; expected a share above 0, at most 1")
    if seeds is not None and seeds < 1:
        raise InputError(f"seeds: {seeds}; expected 1 or more")
    out = out or Path("runs", "reproduce", table if budget == 1 else f"{table}-budget-{budget:g}")
    chosen = TABLES[table]
    runs = [(cell, seed) for seed in range(seeds or chosen.seeds) for cell in chosen.select(only)]
    entries = all_entries(chosen, seeds or chosen.seeds, out)
    title = chosen.title if budget == 1 else f"{chosen.title}, {budget:g} of the steps"
    for number, (cell, seed) in enumerate(runs, start=1):
        run = pending(cell, seed, budget, out)
        place = f"[{number}/{len(runs)}] {cell.row}, {cell.column}, seed {seed}"
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


def all_entries(table: Table, seeds: int, out: Path) -> list[Entry]:
    """Every run of a table, chosen now or not, seed by seed."""
    return [
        Entry(cell.row, cell.column, cell.paper, seed, cell.folder(out, seed))
        for cell in table.cells
        for seed in range(seeds)
    ]
