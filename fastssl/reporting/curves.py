"""Training curves of one or several runs, as one picture."""

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fastssl.errors import InputError
from fastssl.training.record import RunFolder, read_metrics, write_atomic

Rows = list[dict[str, float]]

PANEL = (4.8, 3.4)  # inches
LEGEND_LINE = 0.25  # inches
LEGEND_COLUMNS = 3
# Okabe and Ito's palette: told apart by colour-blind readers, too.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", ":", "-.")  # networks of one run; runs beyond the palette
TITLES = {
    "term/supervised": "cross entropy of the labeled images (nats)",
    "term/mutual_information": "mutual information of the views (nats)",
}


def draw_curves(folders: Sequence[RunFolder], path: Path) -> None:
    """Draw a PNG: a panel for each loss term and one for accuracy, the runs overlaid.

    Raises:
        InputError: a run has no metrics yet, or `path` cannot be written.
    """
    names = short_names([folder.path for folder in folders])
    runs = {name: logged(folder) for name, folder in zip(names, folders, strict=True)}
    terms = {key for rows in runs.values() for row in rows for key in row if key[:5] == "term/"}
    known = [term for term in TITLES if term in terms]
    terms = known + sorted(terms.difference(known))

    columns = min(LEGEND_COLUMNS, len(runs))
    legend = LEGEND_LINE * (-(-len(runs) // columns) + 1)
    width, height = PANEL[0] * (len(terms) + 1), PANEL[1] + legend
    figure = Figure(figsize=(width, height), dpi=120)
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(terms) + 1, squeeze=False)[0]
    for panel, term in zip(panels, terms, strict=False):
        _draw_term(panel, term, runs)
    _draw_accuracy(panels[-1], runs)
    for panel in panels:
        panel.set_xlabel("step")
        panel.set_xlim(left=0)
        panel.grid(alpha=0.3, linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *panels[-1].get_legend_handles_labels(),
        loc="lower left",
        bbox_to_anchor=(0.02, 0),
        ncols=columns,
        frameon=False,
    )
    figure.tight_layout(rect=(0, legend / height, 1, 1))
    image = io.BytesIO()
    canvas.print_png(image)
    write_atomic(path, image.getvalue())


def short_names(paths: Sequence[Path]) -> list[str]:
    """A name for each run folder: its last part, or all of the path where two would be the same."""
    last = [path.resolve().name for path in paths]
    return [
        name if last.count(name) == 1 else str(path) for name, path in zip(last, paths, strict=True)
    ]


def logged(folder: RunFolder) -> Rows:
    """The rows of a run's metrics.jsonl.

    Raises:
        InputError: there are none.
    """
    rows = read_metrics(folder.metrics_jsonl)
    if not rows:
        raise InputError(f"{folder.path}: nothing was logged yet")
    return rows


def _draw_term(panel: Axes, term: str, runs: dict[str, Rows]) -> None:
    """One term of the loss; runs without it leave no line."""
    panel.set_title(TITLES.get(term, term.removeprefix("term/")), fontsize=10, loc="left")
    for number, rows in enumerate(runs.values()):
        points = [(row["step"], row[term]) for row in rows if term in row]
        if points:
            panel.plot(*zip(*points, strict=True), linewidth=1.2, **_look(number))
    if term == "term/supervised":
        panel.set_yscale("log")  # from ln C to thousandths: the fall is what there is to see


def _draw_accuracy(panel: Axes, runs: dict[str, Rows]) -> None:
    """Accuracy on the part the run was watched on; the legend has the last value of every part."""
    panel.set_title("accuracy (%)", fontsize=10, loc="left")
    for number, (name, rows) in enumerate(runs.items()):
        for network, values in _accuracies(rows).items():
            part = "validation" if "validation" in values else "test"
            steps, percents = zip(*values[part], strict=True)
            last = ", ".join(f"{p} {points[-1][1]:.2f} %" for p, points in values.items())
            which = "" if network == "network" else f" {network}"
            look = _look(number) | {"label": f"{name}{which}: {last}"}
            panel.plot(steps, percents, marker=".", markersize=4, linewidth=1.4, **look)


def _accuracies(rows: Rows) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Steps and percents of every accuracy, by network, then part."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        for key, value in row.items():
            if key.startswith("accuracy/"):
                _, part, network = key.split("/")
                points = found.setdefault(network, {}).setdefault(part, [])
                points.append((row["step"], 100 * value))
    return found


def _look(number: int) -> dict[str, str]:
    """Colour and line style of a run."""
    style, colour = divmod(number, len(COLOURS))
    return {"color": COLOURS[colour], "linestyle": STYLES[style % len(STYLES)]}
