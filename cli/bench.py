"""`fastssl bench`: the ops' speed on this machine, against eager PyTorch and the usual forms."""

import importlib
from pathlib import Path

import click

from fastssl.errors import InputError


@click.command()
@click.argument("ops", nargs=-1, metavar="[OP]...")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option(
    "--threads", default=1, show_default=True, type=click.IntRange(1), help="CPU threads."
)
@click.option(
    "--rounds", default=15, show_default=True, type=click.IntRange(3), help="Turns a provider."
)
@click.option("--out", type=click.Path(path_type=Path), help="CSV to append the rows to.")
def bench(ops: tuple[str, ...], device: str, threads: int, rounds: int, out: Path | None) -> None:
    """Time forward + backward of each OP (default: all) against its alternatives.

    The alternatives take turns in one process; results must agree before anything is timed. In a
    checkout the rows are appended to benchmarks/results/, elsewhere to the file given by --out.
    """
    import torch

    import fastssl.ops
    from fastssl.benchmarks import harness
    from fastssl.training.device import resolve_device

    unknown = [op for op in ops if op not in fastssl.ops.__all__]
    if unknown:
        raise InputError(f"OP is {unknown[0]!r}; expected one of {', '.join(fastssl.ops.__all__)}")
    where = resolve_device(device)
    results = Path(harness.__file__).parent / "results"
    if out is None and results.is_dir():
        out = results / f"{where.type}.csv"
    torch.set_num_threads(threads)
    click.echo(f"{harness.device_name(where)}, {threads} thread(s), torch {torch.__version__}")
    limits = harness.machine_limits(where)
    times = harness.time_in_turns(limits, where, rounds)
    new = list(harness.rows("machine", "forward", torch.float32, "", where, times))
    for limit, row in zip(limits, new, strict=True):
        click.echo(f"  {limit.name:36} {harness.limit_rate(limit, row.median_ms)}")
    if out is not None:
        harness.append(out, new)
    for op in ops or fastssl.ops.__all__:
        module = importlib.import_module(f"fastssl.benchmarks.{op}")
        for case in module.CASES:
            providers = list(module.providers(*case, where, torch.float32))
            harness.assert_equal_results(providers)
            times = harness.time_in_turns(providers, where, rounds)
            shape = "x".join(map(str, case))
            new = list(harness.rows(op, "forward+backward", torch.float32, shape, where, times))
            _show(op, shape, new)
            if out is not None:
                harness.append(out, new)
    if out is not None:
        click.echo(f"rows appended to {out}")


def _show(op: str, shape: str, rows: list) -> None:
    ours = rows[0].median_ms
    click.echo(f"\n{op} ({shape.replace('x', ', ')}), float32, forward + backward")
    for row in rows:
        ratio = "" if row is rows[0] else f"{row.median_ms / ours:8.2f} x fastssl"
        click.echo(
            f"  {row.provider:24}{row.median_ms:10.4f} ms  "
            f"({row.low_ms:.4f} to {row.high_ms:.4f}){ratio}"
        )
