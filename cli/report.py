"""`fastssl report`: runs side by side."""

from pathlib import Path

import click

from fastssl.cli.table import aligned
from fastssl.data.sources import short_name
from fastssl.errors import InputError
from fastssl.reporting.curves import draw_curves, short_names
from fastssl.reporting.drawing import write_png
from fastssl.reporting.figures import figures
from fastssl.reporting.results import Result, results, summaries
from fastssl.training.record import RunFolder


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="PNG",
    help="Where the plot goes.  [default: comparison.png beside the first RUN]",
)
def report(runs: tuple[Path, ...], out: Path | None) -> None:
    """Compare RUN folders: test accuracies in a table, all curves in one plot.

    Runs that differ by their seed alone are also summed up as mean ± standard deviation. What an
    algorithm has figures of its own for (ccn: boundaries, corrections, learning curves and more,
    beside the baseline where it is among the runs) goes into further plots beside the first.
    """
    folders = [RunFolder.open(path) for path in runs]
    out = out or runs[0].parent / "comparison.png"
    if out.is_dir() or not out.parent.is_dir():
        raise InputError(f"out: {out} is not a file name in an existing folder")
    names = short_names(runs)
    table = [["run", "algorithm", "data", "labels", "seed", "network", "test accuracy %"]]
    found = []
    for name, folder in zip(names, folders, strict=True):
        for result in results(folder):
            found.append(result)
            table.append([name, *columns(result)])
    draw_curves(folders, out)
    click.echo(aligned(table, right=(3, 4, 6)))
    for mean in summaries(found):
        algorithm, data, labels, _, network, _ = columns(mean.example)
        click.echo(
            f"{algorithm} on {data}, {labels} labels, {network}: "
            f"{100 * mean.mean:.2f} ± {100 * mean.std:.2f} % over {mean.n} seeds"
        )
    click.echo(f"plot: {out}")
    for drawing in figures(folders):
        path = out.with_stem(f"{out.stem}-{drawing.name}")
        write_png(drawing.figure, path)
        click.echo(f"plot: {path}\n  {drawing.caption}")


def columns(result: Result) -> list[str]:
    """A result as the cells after the run's name."""
    labels = "all" if result.labels is None else str(result.labels)
    if result.accuracy is None:
        reached = f"at step {result.step} of {result.steps}"
    else:
        reached = f"{100 * result.accuracy:.2f}"
    data = short_name(result.data)
    return [result.algorithm, data, labels, str(result.seed), result.network, reached]
