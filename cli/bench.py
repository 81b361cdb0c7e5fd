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
@click.option(
    "--dtype",
    default="float32",
    show_default=True,
    type=click.Choice(("bfloat16", "float16", "float32", "float64")),
    help="Of the inputs; without an OP, time those that take it.",
)
@click.option("--compile/--no-compile", default=True, help="Time torch.compile too.")
@click.option("--plot", is_flag=True, help="Time nothing; draw a PNG of the rows there are.")
@click.option("--out", type=click.Path(path_type=Path), help="CSV of the rows.")
def bench(
    names: tuple[str, ...],
    device: str,
    threads: int,
    rounds: int,
    case: str | None,
    dtype: str,
    compile: bool,
    plot: bool,
    out: Path | None,
) -> None:
    """Time each OP (default: all) against its alternatives: forward, backward and both.

    The alternatives take turns in one process; results must agree before anything is timed, and
    compiling is not timed. In a checkout the rows are appended to benchmarks/results/, elsewhere
    to the file given by --out; --plot draws the newest of them beside that file. On a GPU there is
    a second table, of the device's own time: the same calls replayed from CUDA graphs.
    """
    import torch

    from fastssl.benchmarks import harness, rows
    from fastssl.training.device import resolve_device
    from fastssl.training.step import has_cpp_compiler

    if unknown := set(names) - set(harness.names()):
        raise InputError(f"OP is {min(unknown)!r}; expected one of {', '.join(harness.names())}")
    if plot:  # rows of a GPU too, where there is none
        return _plot(out or rows.RESULTS / f"{device.partition(':')[0]}.csv")
    where, kind = resolve_device(device), getattr(torch, dtype)
    names = names or harness.names_of(kind)
    chosen = {name: _cases(name, case, where, kind) for name in names}
    if out is None and rows.RESULTS.is_dir():
        out = rows.RESULTS / f"{where.type}.csv"
    torch.set_num_threads(threads)
    run = rows.Run.now(where)
    click.echo(f"{run.device}, {threads} thread(s), torch {run.torch}")
    if compile and not has_cpp_compiler():
        click.echo("torch.compile is left out: it needs a C++ compiler, and there is none")
        compile = False
    with harness.stream(where):
        for new in _measure(run, chosen, where, kind, rounds, compile):
            click.echo(_machine(new) if new[0].op == "machine" else _table(new))
            if out is not None:
                rows.append(out, new)
    if out is not None:
        click.echo(f"\nrows appended to {out}")


def _cases(
    name: str, case: str | None, device: "torch.device", dtype: "torch.dtype"
) -> list[tuple[int, ...]]:
    """The shapes to time a benchmark at: its own, or the one that is asked for."""
    from fastssl.benchmarks import harness

    module = harness.load(name)
    own, dtypes = harness.cases(module, device), harness.dtypes(module)
    if dtype not in dtypes:
        known = ", ".join(map(harness.plain, dtypes))
        raise InputError(f"--dtype is {harness.plain(dtype)}; {name} expects {known}")
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
    dtype: "torch.dtype",
    rounds: int,
    compile: bool,
) -> "Iterator[list[Row]]":
    """The rows of the machine's own limits, then those of every case, a clock after the other."""
    from fastssl.benchmarks import harness
    from fastssl.benchmarks.rows import Row

    limits, works = zip(*harness.machine_limits(device, dtype), strict=True)
    for clock in harness.clocks(device):
        times = harness.time_in_turns(limits, "forward", device, rounds, clock)
        yield [
            Row.of(run, "machine", name, "forward", clock, dtype, "", work, samples)
            for (name, samples), work in zip(times.items(), works, strict=True)
        ]
    for name, cases in chosen.items():
        module = harness.load(name)
        for case in cases:
            implementations = list(module.implementations(*case, device, dtype))
            if compile:
                implementations[2:2] = harness.compiled(implementations)
            implementations.append(harness.empty_call(module, device, dtype))
            modes, shape = harness.modes(implementations[0]), "x".join(map(str, case))
            exact = harness.comparable(dtype)
            compared = implementations
            if exact != dtype:
                compared = list(module.implementations(*case, device, exact))
            for mode in modes:
                harness.assert_equal_results(compared, mode, harness.tolerance(module))
            for clock in harness.clocks(device):
                new = []
                for mode in modes:
                    work = harness.total_work(module, case, device, dtype, mode)
                    times = harness.time_in_turns(implementations, mode, device, rounds, clock)
                    for each, samples in times.items():
                        own = harness.Work(0, 0) if each == harness.EMPTY_CALL else work
                        row = Row.of(run, name, each, mode, clock, dtype, shape, own, samples)
                        new.append(row)
                if new:
                    yield new


def _machine(new: "list[Row]") -> str:
    cells = []
    for row in new:
        rate = row.bytes or row.flops
        unit = "GB/s" if row.bytes else "GFLOP/s"
        cells.append([f"  {row.implementation}", f"{rate / row.median_ms / 1e6:.1f} {unit}"])
    return aligned(cells, right=(1,))


def _table(new: "list[Row]") -> str:
    """Milliseconds in every mode, and how many times the first one's they are."""
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
    first = new[0]
    title = f"\n{first.op} ({first.shape.replace('x', ', ')}), {first.dtype}, {first.clock} time\n"
    return title + aligned(table, right=range(1, 2 * len(modes) + 1))


def _plot(results: Path) -> None:
    from fastssl.benchmarks import picture, rows

    if not results.exists():
        raise InputError(f"out: there are no rows in {results}; `fastssl bench` makes them")
    picture.draw(rows.read(results), results.with_suffix(".png"))
    click.echo(f"plot: {results.with_suffix('.png')}")
