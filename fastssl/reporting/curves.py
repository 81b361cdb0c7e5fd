"""Training curves of one or several runs: a panel for each loss term and one for accuracy."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fastssl.errors import InputError
from fastssl.reporting.drawing import look, plain, write_png
from fastssl.training.record import RunFolder, read_metrics

Rows = list[dict[str, float]]

PANEL = (4.8, 3.4)  # inches
PANELS_A_ROW = 4
ALONE = (4.0, 3.0)  # inches, of a panel on a page: its letters can be read on a phone
LEGEND_LINE = 0.25  # inches
LEGEND_COLUMNS = 3
ACCURACY = "accuracy"
TITLES = {
    "term/supervised": "cross entropy of the labeled images (nats)",
    "term/mutual_information": "mutual information of the views (nats)",
    ACCURACY: "accuracy (%)",
}
NETWORKS = {"_1": "net 1", "_2": "net 2", "_c": "corrected"}  # whose a term of ccn is


def draw_curves(folders: Sequence[RunFolder], path: Path) -> None:
    """Draw a PNG: a panel for each loss term and one for accuracy, the runs overlaid.

    Raises:
        InputError: a run has no metrics yet, or `path` cannot be written.
    """
    runs = logged_runs(folders)
    names = panel_names(runs)
    across = min(PANELS_A_ROW, len(names))
    down = -(-len(names) // across)
    columns = min(LEGEND_COLUMNS, len(runs))
    lines = sum(len(_accuracies(rows)) or 1 for rows in runs.values())
    legend = LEGEND_LINE * (-(-lines // columns) + 1)
    width, height = PANEL[0] * across, PANEL[1] * down + legend
    figure = Figure(figsize=(width, height), dpi=120)
    panels = figure.subplots(down, across, squeeze=False).flatten()
    for panel, name in zip(panels, names, strict=False):
        draw_panel(panel, name, runs)
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    figure.legend(
        *panels[len(names) - 1].get_legend_handles_labels(),
        loc="lower left",
        bbox_to_anchor=(0.02, 0),
        ncols=columns,
        frameon=False,
    )
    figure.tight_layout(rect=(0, legend / height, 1, 1))
    write_png(figure, path)


def curve_figures(folders: Sequence[RunFolder]) -> list[tuple[str, str, Figure]]:
    """Each panel as a figure of its own, accuracy first: title, last values in words, figure.

    Raises:
        InputError: a run has no metrics yet.
    """
    runs = logged_runs(folders)
    found = []
    for name in sorted(panel_names(runs), key=lambda name: name != ACCURACY):
        figure = Figure(figsize=ALONE, dpi=190)
        panel = figure.subplots()
        draw_panel(panel, name, runs)
        if not panel.lines:
            continue
        panel.set_title("", loc="left")
        panel.legend(fontsize=8, framealpha=0.7)
        figure.tight_layout()
        ends = [f"{line.get_label().strip()}: {line.get_ydata()[-1]:.4g}" for line in panel.lines]
        title = title_of(name)
        found.append((title, f"{title} over the steps, at the end {'; '.join(ends)}", figure))
    return found


def short_names(paths: Sequence[Path]) -> list[str]:
    """A name for each run folder: its last part, or all of the path where two would be the same."""
    last = [path.resolve().name for path in paths]
    return [
        name if last.count(name) == 1 else str(path) for name, path in zip(last, paths, strict=True)
    ]


def logged_runs(folders: Sequence[RunFolder]) -> dict[str, Rows]:
    """The rows of each run's metrics.jsonl, by its short name.

    Raises:
        InputError: a run has none.
    """
    runs = {}
    for name, folder in zip(short_names([f.path for f in folders]), folders, strict=True):
        runs[name] = read_metrics(folder.metrics_jsonl)
        if not runs[name]:
            raise InputError(f"{folder.path}: nothing was logged yet")
    return runs


def panel_names(runs: dict[str, Rows]) -> list[str]:
    """The terms that any of the runs logged, the known ones first, and ACCURACY."""
    terms = {key for rows in runs.values() for row in rows for key in row if key[:5] == "term/"}
    known = [term for term in TITLES if term in terms]
    return [*known, *sorted(terms.difference(known)), ACCURACY]


def title_of(name: str) -> str:
    """One of `panel_names` in words."""
    if name in TITLES:
        return TITLES[name]
    term = name.removeprefix("term/")
    network = NETWORKS.get(term[-2:])
    words = (term if network is None else term[:-2]).replace("_", " ")
    return words if network is None else f"{words}, {network}"


def draw_panel(panel: Axes, name: str, runs: dict[str, Rows]) -> None:
    """One of `panel_names`; a run without it leaves no line."""
    if name == ACCURACY:
        _draw_accuracy(panel, runs)
    else:
        _draw_term(panel, name, runs)
    panel.set_title(plain(title_of(name)), fontsize=10, loc="left")
    panel.set_xlabel("step")
    panel.set_xlim(left=0)
    panel.grid(alpha=0.3, linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)


def _draw_term(panel: Axes, term: str, runs: dict[str, Rows]) -> None:
    for number, (name, rows) in enumerate(runs.items()):
        points = [(row["step"], row[term]) for row in rows if term in row]
        if points:
            line = look(number) | {"label": plain(name)}
            panel.plot(*zip(*points, strict=True), linewidth=1.2, **line)
    if term == "term/supervised":
        panel.set_yscale("log")  # from ln C to thousandths: the fall is what there is to see


def _draw_accuracy(panel: Axes, runs: dict[str, Rows]) -> None:
    """On the part the run was watched on; the legend has the last value of every part."""
    for number, (name, rows) in enumerate(runs.items()):
        for place, (network, values) in enumerate(_accuracies(rows).items()):
            part = "validation" if "validation" in values else "test"
            steps, percents = zip(*values[part], strict=True)
            last = ", ".join(f"{p} {points[-1][1]:.2f} %" for p, points in values.items())
            which = "" if network == "network" else f" {network}"
            line = look(number, place) | {"label": plain(f"{name}{which}: {last}")}
            panel.plot(steps, percents, marker=".", markersize=4, linewidth=1.4, **line)


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
