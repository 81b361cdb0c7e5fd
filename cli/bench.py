"""`fastssl bench`: the ops' speed on this machine, against eager PyTorch and the usual forms."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastssl.cli.table import aligned
from fastssl.errors import InputError

if TYPE_CHECKING:
    import torch

    from fastssl.benchmarks.rows import Row, Run


@click.command()
@click.argument("names", nargs=-1, metavar="[OP]...")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option(
    "--threads", default=1, show_default=True, type=click.IntRange(1), help="CPU threads."
)
@click.option(
    "--rounds", default=15, show_default=True, type=click.IntRange(3), help="Turns of each."
)
@click.option("--case", metavar="AxB", help="Time OPs of this shape, not of their own ones.")
@click.option("--compile/--no-compile", default=True, help="Time torch.compile too.")
@click.option("--plot", is_flag=True, help="Time nothing; draw a PNG of the rows there are.")
@click.option("--out", type=click.Path(path_type=Path), help="CSV of the rows.")
def bench(
    names: tuple[str, ...],
    device: str,
    threads: int,
    rounds: int,
    case: str | None,
    compile: bool,
    plot: bool,
    out: Path | None,
) -> None:
    """Time each OP (default: all) against its alternatives: forward, backward and both.

    The alternatives take turns in one process; results must agree before anything is timed, and
    compiling is not timed. In a checkout the rows are appended to benchmarks/results/, elsewhere
    to the file given by --out; --plot draws the newest of them beside that file.
    """
    import torch

    from fastssl.benchmarks import harness, rows
    from fastssl.training.device import resolve_device
    from fastssl.training.passes import has_cpp_compiler

    if unknown := set(names) - set(harness.names()):
        raise InputError(f"OP is {min(unknown)!r}; expected one of {', '.join(harness.names())}")
    chosen = {name: _cases(name, case) for name in names or harness.names()}
    if out is None and rows.RESULTS.is_dir():
        out = rows.RESULTS / f"{torch.device(device).type}.csv"
    if plot:
        return _plot(out)
    where = resolve_device(device)
    torch.set_num_threads(threads)
    run = rows.Run.now(where)
    click.echo(f"{run.device}, {threads} thread(s), torch {run.torch}")
    if compile and not has_cpp_compiler():
        click.echo("torch.compile is left out: it needs a C++ compiler, and there is none")
        compile = False
    for new in _measure(run, chosen, where, rounds, compile):
        click.echo(_machine(new) if new[0].op == "machine" else _table(new))
        if out is not None:
            rows.append(out, new)
    if out is not None:
        click.echo(f"\nrows appended to {out}")


def _cases(name: str, case: str | None) -> list[tuple[int, ...]]:
    """The shapes to time a benchmark at: its own, or the one that is asked for."""
    from fastssl.benchmarks import harness

    own = harness.load(name).CASES
    if case is None:
        return own
    sizes = case.split("x")
    if len(sizes) != len(own[0]) or not all(size.isdecimal() and int(size) for size in sizes):
        example = "x".join(map(str, own[0]))
        raise InputError(f"--case is {case!r}; {name} expects a shape such as {example}")
    return [tuple(map(int, sizes))]


def _measure(
    run: "Run",
    chosen: Mapping[str, Sequence[tuple[int, ...]]],
    device: "torch.device",
    rounds: int,
    compile: bool,
) -> "Iterator[list[Row]]":
    """The rows of the machine's own limits, then those of every case."""
    import torch

    from fastssl.benchmarks import harness
    from fastssl.benchmarks.rows import Row

    dtype = torch.float32
    limits = harness.machine_limits(device)
    times = harness.time_in_turns([limit for limit, _ in limits], "forward", device, rounds)
    yield [
        Row.of(run, "machine", limit.name, "forward", dtype, "", work, times[limit.name])
        for limit, work in limits
    ]
    for name, cases in chosen.items():
        module = harness.load(name)
        for case in cases:
            implementations = list(module.implementations(*case, device, dtype))
            if compile:
                implementations[2:2] = harness.compiled(implementations)
            implementations.append(harness.empty_call(module, device, dtype))
            new = []
            for mode in harness.modes(implementations[0]):
                harness.assert_equal_results(implementations, mode, harness.tolerance(module))
                work = harness.total_work(module, case, dtype, mode)
                times = harness.time_in_turns(implementations, mode, device, rounds)
                shape = "x".join(map(str, case))
                for implementation, samples in times.items():
                    own = harness.Work(0, 0) if implementation == harness.EMPTY_CALL else work
                    new.append(Row.of(run, name, implementation, mode, dtype, shape, own, samples))
            yield new


def _machine(new: "list[Row]") -> str:
    cells = []
    for row in new:
        rate = row.bytes or row.flops
        unit = "GB/s" if row.bytes else "GFLOP/s"
        cells.append([f"  {row.implementation}", f"{rate / row.median_ms / 1e6:.1f} {unit}"])
    return aligned(cells, right=(1,))


def _table(new: "list[Row]") -> str:
    """Milliseconds in every mode, and how many times fastssl's they are."""
    modes = list(dict.fromkeys(row.mode for row in new))
    names = list(dict.fromkeys(row.implementation for row in new))
    times = {(row.implementation, row.mode): row.median_ms for row in new}
    table = [["  ms", *(cell for mode in modes for cell in (mode, ""))]]
    for name in names:
        cells = [f"  {name}"]
        for mode in modes:
            ratio = times[name, mode] / times[names[0], mode]
            cells += [f"{times[name, mode]:.4f}", "" if name == names[0] else f"{ratio:.2f}x"]
        table.append(cells)
    title = f"\n{new[0].op} ({new[0].shape.replace('x', ', ')}), {new[0].dtype}\n"
    return title + aligned(table, right=range(1, 2 * len(modes) + 1))


def _plot(results: Path | None) -> None:
    from fastssl.benchmarks import picture, rows

    if results is None or not results.exists():
        raise InputError(f"out: there are no rows in {results}; `fastssl bench` makes them")
    picture.draw(rows.read(results), results.with_suffix(".png"))
    click.echo(f"plot: {results.with_suffix('.png')}")
