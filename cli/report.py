"""`fastssl report`: runs side by side."""

from collections.abc import Callable, Sequence
from pathlib import Path

import click

from fastssl.cli.table import aligned
from fastssl.errors import InputError
from fastssl.reporting.curves import draw_curves, short_names
from fastssl.reporting.drawing import write_png
from fastssl.reporting.figures import figures
from fastssl.reporting.page import write_report
from fastssl.reporting.results import Result, results, summaries
from fastssl.training.record import RunFolder


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option(
    "--out",
    "outs",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The report (.html), or the curves alone (.png); may be repeated."
    "  [default: report.html in RUN, or beside the first of several]",
)
def report(runs: tuple[Path, ...], outs: tuple[Path, ...]) -> None:
    """One page about RUN folders, and their test accuracies in a table.

    The page is a single HTML file that needs nothing else: curves of all terms and accuracies, the
    runs overlaid; calibration, accuracy of every class, confusion matrix and the most confident
    mistakes as images; the figures of the algorithm's own (ccn: boundaries, corrections, learning
    curves and more, beside the baseline where it is among the runs); the split, the configuration
    and the environment. It is made from the folders alone, and says what one of them does not have.
    Runs that differ by their seed alone are also summed up as mean ± standard deviation.

    \b
    fastssl report runs/a
    fastssl report runs/a runs/b --out comparison.html --out curves.png
    """  # noqa: D301  (click's mark for lines it must not join)
    folders = [RunFolder.open(path) for path in runs]
    if not outs:
        outs = (folders[0].report_html if len(runs) == 1 else runs[0].parent / "report.html",)
    for out in outs:
        if out.is_dir() or not out.parent.is_dir():
            raise InputError(f"out: {out} is not a file name in an existing folder")
        if out.suffix.lower() not in KINDS:
            raise InputError(f"out: {out}; expected a name that ends in {' or '.join(KINDS)}")
    table = [["run", "algorithm", "data", "labels", "seed", "network", "test accuracy %"]]
    found = []
    for name, folder in zip(short_names(runs), folders, strict=True):
        for result in results(folder):
            found.append(result)
            table.append([name, *columns(result)])
    made = [KINDS[out.suffix.lower()](folders, out) for out in outs]
    click.echo(aligned(table, right=(3, 4, 6)))
    for mean in summaries(found):
        algorithm, data, labels, _, network, _ = columns(mean.example)
        click.echo(
            f"{algorithm} on {data}, {labels} labels, {network}: "
            f"{100 * mean.mean:.2f} ± {100 * mean.std:.2f} % over {mean.n} seeds"
        )
    for line in (line for lines in made for line in lines):
        click.echo(line)


def page(folders: Sequence[RunFolder], out: Path) -> list[str]:
    """Write the report; what is not in it and where it is, a line each."""
    missing = write_report(folders, out)
    return [*(f"not in the report: {line}" for line in missing), f"report: {out}"]


def plot(folders: Sequence[RunFolder], out: Path) -> list[str]:
    """Write the curves, and the algorithm's own figures beside them; where they are."""
    draw_curves(folders, out)
    lines = [f"plot: {out}"]
    for drawing in figures(folders):
        path = out.with_stem(f"{out.stem}-{drawing.name}")
        write_png(drawing.figure, path)
        lines.append(f"plot: {path}\n  {drawing.caption}")
    return lines


KINDS: dict[str, Callable[[Sequence[RunFolder], Path], list[str]]] = {".html": page, ".png": plot}


def columns(result: Result) -> list[str]:
    """A result as the cells after the run's name."""
    labels = "all" if result.labels is None else str(result.labels)
    if result.accuracy is not None:
        reached = f"{100 * result.accuracy:.2f}"
    elif result.step < result.steps:
        reached = f"at step {result.step} of {result.steps}"
    else:
        reached = "none"
    seed = str(result.seed)
    return [result.algorithm, result.data_name, labels, seed, result.network, reached]
