"""The rows of the benchmarks as one picture: speed-up over eager, and how near to the floor."""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from fastssl.benchmarks.harness import DEVICE, WALL
from fastssl.benchmarks.rows import Row
from fastssl.reporting.drawing import COLOURS
from fastssl.training.record import write_atomic

MODES = {"forward": COLOURS[1], "backward": COLOURS[0], "both": COLOURS[6]}
WIDTH, LINE, MARGIN = 11.0, 0.3, 1.5  # inches: the figure, a case, titles and legend
STEP = 0.22  # between the modes of a case, in cases


@dataclass(frozen=True)
class Case:
    """The rows of one shape: times in ms by (implementation, mode)."""

    op: str
    shape: str
    dtype: str
    times: dict[tuple[str, str], float]
    floors: dict[str, tuple[float, bool]]  # by mode: ms, and whether it is memory that bounds it
    place: str  # where and with what it was measured

    def speed_up(self, implementation: str, mode: str) -> float | None:
        """How many times faster than eager."""
        eager, own = self.times.get(("eager", mode)), self.times.get((implementation, mode))
        return eager / own if eager and own else None


def cases(rows: Iterable[Row]) -> list[Case]:
    """Every benchmark's shapes as the newest run of each dtype has them, on a GPU in its own time.

    A floor is the time that the machine's own copy takes for the bytes, or its matrix product for
    the operations, whichever is longer, as measured in the same run.
    """
    runs: dict[tuple[str, str], list[Row]] = {}
    newest: dict[tuple[str, str], str] = {}
    for row in rows:
        runs.setdefault((row.date, row.dtype), []).append(row)
        if row.op != "machine":
            newest[row.op, row.dtype] = max(newest.get((row.op, row.dtype), ""), row.date)
    found = []
    for (op, dtype), date in sorted(newest.items()):
        run = runs[date, dtype]
        clock = DEVICE if any((r.op, r.clock) == (op, DEVICE) for r in run) else WALL
        machine = [row for row in run if (row.op, row.clock) == ("machine", clock)]
        byte_ms = next(row.median_ms / row.bytes for row in machine if row.bytes)
        flop_ms = next(row.median_ms / row.flops for row in machine if row.flops)
        timed = [row for row in run if (row.op, row.clock) == (op, clock)]
        for shape in dict.fromkeys(row.shape for row in timed):
            own = [row for row in timed if row.shape == shape]
            times = {(row.implementation, row.mode): row.median_ms for row in own}
            floors = {
                row.mode: max((row.bytes * byte_ms, True), (row.flops * flop_ms, False))
                for row in own
                if row.implementation == "fastssl"
            }
            where = f"{own[0].device}, {own[0].threads} thread(s), torch {own[0].torch}"
            found.append(Case(op, shape, dtype, times, floors, f"{where}, {clock} time"))
    return found


def draw(rows: list[Row], path: Path) -> None:
    """Draw a PNG: left the speed-up over eager, right the fraction of the machine's rate."""
    found = cases(rows)
    height = LINE * 1.6 * len(found) + MARGIN
    figure = Figure(figsize=(WIDTH, height), dpi=120)
    canvas = FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    for y, case in enumerate(found):
        _draw_speed_up(left, y, case)
        _draw_fraction(right, y, case)
    _finish(left, found, "times faster than eager PyTorch", "×")
    _finish(right, found, "share of the machine's own rate", " %")
    left.axvline(1, color="black", linewidth=0.8)
    right.axvline(100, color="black", linewidth=0.8)
    left.set_yticks(range(len(found)), [_label(case) for case in found])
    _legend(figure)
    places = dict.fromkeys(case.place for case in found)
    figure.suptitle("\n".join(places), fontsize=10, x=0.01, ha="left")
    figure.tight_layout(rect=(0, 0.6 / height, 1, 1 - 0.15 / height))
    image = io.BytesIO()
    canvas.print_png(image)
    write_atomic(path, image.getvalue())


def _draw_speed_up(panel: Axes, y: float, case: Case) -> None:
    for number, (mode, colour) in enumerate(MODES.items()):
        at = y + STEP * (number - 1)
        if value := case.speed_up("torch.compile", mode):
            panel.plot(value, at, "D", color=colour, markersize=4, markerfacecolor="white")
        if value := case.speed_up("fastssl", mode):
            panel.plot([1, value], [at, at], color=colour, linewidth=1)
            panel.plot(value, at, "o", color=colour, markersize=5)
            place = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
            panel.annotate(f"{value:.1f}", (value, at), **place, color=colour, fontsize=6.5)


def _draw_fraction(panel: Axes, y: float, case: Case) -> None:
    for number, (mode, colour) in enumerate(MODES.items()):
        if mode in case.floors:
            milliseconds, memory = case.floors[mode]
            percent = 100 * milliseconds / case.times["fastssl", mode]
            at = y + STEP * (number - 1)
            panel.plot(percent, at, "s" if memory else "^", color=colour, markersize=5)


def _finish(panel: Axes, found: list[Case], title: str, unit: str) -> None:
    panel.set_title(title, fontsize=10, loc="left", pad=22)
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}{unit}"))
    panel.grid(axis="x", alpha=0.3, linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)
    panel.set_ylim(len(found) - 0.4, -0.6)
    for y in range(1, len(found)):
        panel.axhline(y - 0.5, color="0.85", linewidth=0.6)
    panel.tick_params(labelsize=8, labeltop=True)
    panel.tick_params(axis="y", length=0)


def _legend(figure: Figure) -> None:
    def mark(marker: str, label: str, **look: object) -> Line2D:
        return Line2D([], [], marker=marker, linestyle="", label=label, **look)

    handles = [mark("o", f"fastssl, {mode}", color=colour) for mode, colour in MODES.items()]
    handles += [
        mark("D", "torch.compile", color="0.3", markerfacecolor="white", markersize=4),
        mark("s", "of the copy bandwidth", color="0.5"),
        mark("^", "of the matrix products' rate", color="0.5"),
    ]
    figure.legend(handles=handles, loc="lower left", ncols=3, frameon=False, fontsize=8)


def _label(case: Case) -> str:
    dtype = "" if case.dtype == "float32" else f", {case.dtype}"
    return f"{case.op}\n({case.shape.replace('x', ', ')}){dtype}"
