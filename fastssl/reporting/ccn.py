"""CCN's figures, from run folders: boundaries, errors, corrections, curves, representations.

Figures 4 to 9 of Wu et al., "Mutual Learning of Complementary Networks via Residual Correction for
Improving Semi-Supervised Classification". C classes, D features, M test images.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from torch import Tensor

from fastssl.reporting.drawing import COLOURS, Drawing
from fastssl.reporting.results import Result, results
from fastssl.training.outputs import Plane, read_final, read_planes
from fastssl.training.record import RunFolder, read_metrics

NETWORKS = {"net1": "net 1", "net2": "net 2", "ccn": "CCN"}
COLOUR = dict(zip(NETWORKS, (COLOURS[0], COLOURS[1], COLOURS[2]), strict=True))
STEPS_SHOWN = 5
EXAMPLES = 6
LEGEND_CLASSES = 20  # beyond them colours cannot be told apart, and there is no legend
DPI = 130
LINE = {"linewidth": 1.4, "marker": ".", "markersize": 4}  # a marker: one evaluation is no line


@dataclass(frozen=True)
class CCNRun:
    """One run of CCN or of a variant of it."""

    folder: RunFolder
    networks: tuple[Result, ...]  # or one without a name, of a run that has not ended

    @property
    def about(self) -> Result:
        """What it is a run of."""
        return self.networks[0]

    @property
    def setting(self) -> str:
        """Data and labels in words."""
        labels = "all" if self.about.labels is None else self.about.labels
        return f"{self.about.data.rsplit('/', 1)[-1]}, {labels} labels"

    @property
    def variant(self) -> str:
        """Its name in table 3."""
        return self.about.algorithm.removeprefix("ccn").removeprefix("-") or "full"

    @property
    def name(self) -> str:
        """What its figures' files are told apart by."""
        return f"{self.variant}-{self.setting.replace(', ', '-').replace(' ', '-')}"

    @cached_property
    def rows(self) -> list[dict[str, float]]:
        """Its metrics, of the steps that were evaluated, by the part it was watched on."""
        rows = read_metrics(self.folder.metrics_jsonl)
        part = "test"
        if any("accuracy/validation/net1" in row for row in rows):
            part = "validation"
        keys = {f"{kind}/{part}/": kind for kind in ("accuracy", "count")}
        found = []
        for row in rows:
            own = {
                key.removeprefix(prefix): value
                for key, value in row.items()
                for prefix in keys
                if key.startswith(prefix)
            }
            if own:
                found.append({"step": row["step"], **own})
        return found

    def errors(self, network: str) -> tuple[list[float], list[float]]:
        """Steps, and a network's errors in % after them."""
        points = [(row["step"], 100 - 100 * row[network]) for row in self.rows if network in row]
        return [step for step, _ in points], [error for _, error in points]


def figures(folders: Sequence[RunFolder]) -> list[Drawing]:
    """Every figure that these runs have something for; runs of other algorithms are left out.

    Of runs that differ by their seed alone, the first is drawn where a figure shows one run.

    Raises:
        InputError: a run's files are damaged.
    """
    every = [CCNRun(folder, tuple(results(folder))) for folder in folders]
    runs = [run for run in every if run.about.algorithm.split("-")[0] == "ccn"]
    runs = [run for run in runs if run.rows]
    single = {run.about.setting: run for run in sorted(runs, key=lambda r: -r.about.seed)}
    drawings: list[Drawing | None] = [errors_over_settings(runs)]
    for run in runs:
        if single[run.about.setting] is run:
            drawings += [boundaries(run), corrections(run), gallery(run)]
    for run, baseline in _beside_baseline(runs):
        drawings += [learning_curves(run, baseline), representations(run, baseline)]
    return [drawing for drawing in drawings if drawing is not None]


def _beside_baseline(runs: Sequence[CCNRun]) -> list[tuple[CCNRun, CCNRun]]:
    """For data and labels that there are both of: the full model and the baseline of one seed."""
    pairs: dict[str, tuple[CCNRun, CCNRun]] = {}
    for run in sorted(runs, key=lambda r: r.about.seed):
        for other in runs:
            same = (run.setting, run.about.seed) == (other.setting, other.about.seed)
            if same and (run.variant, other.variant) == ("full", "baseline"):
                pairs.setdefault(run.setting, (run, other))
    return list(pairs.values())


def boundaries(run: CCNRun) -> Drawing | None:
    """Where net 1, above, and CCN, below, draw the line while they train (figure 4)."""
    planes = [plane for plane in read_planes(run.folder) if "ccn" in plane.classes]
    if not planes:
        return None
    places = np.unique(np.geomspace(1, len(planes), STEPS_SHOWN).round().astype(int) - 1)
    shown = [planes[place] for place in places]
    figure = Figure(figsize=(max(4.0, 2.3 * len(shown) + 0.3), 5.1), dpi=DPI, layout="constrained")
    panels = figure.subplots(2, len(shown), squeeze=False)
    for row, network in zip(panels, ("net1", "ccn"), strict=True):
        for panel, plane in zip(row, shown, strict=True):
            _draw_plane(panel, plane, network)
            errors = dict(zip(*run.errors(network), strict=True))
            panel.set_title(f"step {plane.step}: {errors[plane.step]:.2f} %", fontsize=9)
        row[0].set_ylabel(NETWORKS[network], fontsize=11)
    figure.legend(
        *panels[0, 0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=3,
        frameon=False,
        fontsize=9,
        markerscale=4,
    )
    caption = (
        f"Decision boundaries of net 1 (above) and CCN (below) in {run.variant} on {run.setting}, "
        f"with the test error after the step; the {len(shown[0].labeled)} labeled points are black."
    )
    return Drawing(f"boundaries-{run.name}", caption, figure)


def _draw_plane(panel: Axes, plane: Plane, network: str) -> None:
    """Regions of the classes, light, the training points on them, the labeled ones black."""
    C = int(plane.labels.max()) + 1
    colours = [COLOURS[(c + 1) % len(COLOURS)] for c in range(C)]
    light = ListedColormap([tuple(0.65 + 0.35 * x for x in to_rgb(c)) for c in colours])
    span = (-plane.reach, plane.reach)
    regions = plane.classes[network].numpy()
    panel.imshow(
        regions,
        cmap=light,
        vmin=0,
        vmax=max(1, C - 1),
        extent=(*span, *span),
        origin="lower",
        interpolation="nearest",
    )
    for c, colour in enumerate(colours):
        x, y = plane.points[plane.labels == c].T.numpy()
        panel.plot(x, y, ".", color=colour, markersize=1.2, label=f"class {c}")
    x, y = plane.points[plane.labeled].T.numpy()
    panel.plot(x, y, "o", color="black", markersize=2.4, label="labeled")
    panel.set(xticks=[], yticks=[], xlim=span, ylim=span, aspect="equal")


def errors_over_settings(runs: Sequence[CCNRun]) -> Drawing | None:
    """The three networks' errors at the end, over data and numbers of labels (figure 5)."""
    groups: dict[str, list[CCNRun]] = {}
    for run in runs:
        if tuple(result.network for result in run.networks) == tuple(NETWORKS):
            groups.setdefault(run.about.setting, []).append(run)
    if not groups:
        return None
    figure = Figure(figsize=(max(4.5, 1.7 * len(groups) + 1.5), 3.8), dpi=DPI, layout="constrained")
    panel = figure.subplots()
    said = []
    for place, network in enumerate(NETWORKS):
        means, stds = [], []
        for group in groups.values():
            values = [100 - 100 * run.networks[place].accuracy for run in group]
            means.append(statistics.mean(values))
            stds.append(statistics.stdev(values) if len(values) > 1 else math.nan)
        x = np.arange(len(groups)) + 0.27 * (place - 1)
        bars = panel.bar(
            x, means, 0.25, yerr=stds, capsize=2, color=COLOUR[network], label=NETWORKS[network]
        )
        labels = [f"{mean:.2f}" for mean in means]
        panel.bar_label(bars, labels, fontsize=7, padding=2)
        said.append(f"{NETWORKS[network]} {', '.join(labels)}")
    names = []
    for group in groups.values():
        first = group[0]
        variant = "" if first.variant == "full" else f"\n{first.variant}"
        names.append(f"{first.setting.replace(', ', chr(10))}{variant}\nn = {len(group)}")
    panel.set_xticks(range(len(groups)), names, fontsize=8)
    panel.set_ylabel("test error (%)")
    panel.set_xlim(-0.6, len(groups) - 0.4)
    panel.margins(y=0.15)
    _plain(panel)
    panel.grid(axis="x", visible=False)
    panel.legend(frameon=False, fontsize=8, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    caption = f"Test errors in % of the three networks, mean ± std over n seeds: {'; '.join(said)}."
    return Drawing("networks", caption, figure)


def corrections(run: CCNRun) -> Drawing | None:
    """Errors of the three networks, and true against false corrections, over steps (figure 6)."""
    counted = [row for row in run.rows if "true_corrections" in row]
    if not counted:
        return None
    figure = Figure(figsize=(9, 3.6), dpi=DPI, layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_errors(left, run, NETWORKS, lambda network: {"color": COLOUR[network]})
    steps = [row["step"] for row in counted]
    sums = {}
    for kind, colour in (("true", COLOURS[2]), ("false", COLOURS[3])):
        values = [row[f"{kind}_corrections"] for row in counted]
        sums[kind] = int(sum(values))
        right.plot(steps, values, **LINE, color=colour, label=f"{kind}, {sums[kind]} in all")
    right.set(xlabel="step", ylabel="images corrected")
    for panel in (left, right):
        panel.set(xlim=(0, None), ylim=(0, None))
        _plain(panel)
        panel.legend(frameon=False, fontsize=8)
    caption = (
        f"{run.variant} on {run.setting}: errors of the three networks while training, and the "
        f"images whose class CCN corrects truly ({sums['true']} summed over {len(steps)} "
        f"evaluations) and falsely ({sums['false']})."
    )
    return Drawing(f"corrections-{run.name}", caption, figure)


def gallery(run: CCNRun) -> Drawing | None:
    """Images that net 1 gets wrong and CCN right: raw output, residual, corrected (figure 7)."""
    found = read_final(run.folder)
    if found is None or "ccn" not in found.logits or found.images.dim() != 4:
        return None
    raw, corrected = found.logits["net1"], found.logits["ccn"]
    before, after, labels = raw.argmax(1), corrected.argmax(1), found.image_labels
    rows = _one_of_each((before != labels) & (after == labels), before, after)
    if not rows:
        return None
    height = 1.3 * len(rows) + 0.9
    figure = Figure(figsize=(9, height), dpi=DPI, layout="constrained")
    panels = figure.subplots(len(rows), 4, squeeze=False, width_ratios=(1.2, 2.4, 2.4, 2.4))
    names = found.class_names
    for line, i in zip(panels, rows, strict=True):
        _draw_image(line[0], found.images[i])
        title = f"{names[labels[i]]},\nnot {names[before[i]]}"
        line[0].set_title(title, fontsize=8)
        for panel, values in zip(
            line[1:], (raw[i], corrected[i] - raw[i], corrected[i]), strict=True
        ):
            _draw_bars(panel, values, right=int(labels[i]), wrong=int(before[i]))
    for panel, title in zip(panels[0, 1:], ("raw output", "residual", "corrected"), strict=True):
        panel.set_title(title, fontsize=9)
    for panel in panels[-1, 1:]:
        panel.set_xlabel("class", fontsize=8)
    caption = (
        f"{run.variant} on {run.setting}: test images that net 1 takes for another class and CCN "
        "corrects. Bars are raw outputs; green is the image's class, orange what net 1 took it for."
    )
    return Drawing(f"gallery-{run.name}", caption, figure)


def _one_of_each(corrected: Tensor, before: Tensor, after: Tensor) -> list[int]:
    """Rows of the corrected images, each pair of classes once before any comes again."""
    seen: dict[tuple[int, int], int] = {}
    ordered = []
    for i in corrected.nonzero().flatten().tolist():
        pair = int(before[i]), int(after[i])
        seen[pair] = seen.get(pair, 0) + 1
        ordered.append((seen[pair], i))
    return [i for _, i in sorted(ordered)[:EXAMPLES]]


def _draw_image(panel: Axes, image: Tensor) -> None:
    pixels = image.permute(1, 2, 0).numpy()
    panel.imshow(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels, cmap="gray", vmin=0, vmax=255)
    panel.set(xticks=[], yticks=[])


def _draw_bars(panel: Axes, values: Tensor, *, right: int, wrong: int) -> None:
    C = len(values)
    colours = ["#999999"] * C
    colours[right], colours[wrong] = COLOURS[2], COLOURS[0]
    panel.bar(range(C), values.numpy(), color=colours, width=0.8)
    panel.axhline(0, color="black", linewidth=0.6)
    if C <= LEGEND_CLASSES:
        panel.set_xticks(range(C))
    panel.tick_params(labelsize=7)
    _plain(panel)


def learning_curves(run: CCNRun, baseline: CCNRun) -> Drawing:
    """Errors of the full model's networks beside the baseline's, over steps (figure 8)."""
    figure = Figure(figsize=(5.6, 3.8), dpi=DPI, layout="constrained")
    panel = figure.subplots()
    ends = []
    for each, style in ((baseline, "--"), (run, "-")):
        present = [name for name in NETWORKS if any(name in row for row in each.rows)]
        look: Callable[[str], dict[str, str]] = lambda name, style=style: {  # noqa: E731
            "color": COLOUR[name],
            "linestyle": style,
        }
        _draw_errors(panel, each, present, look, prefix=f"{each.variant}, ")
        _, errors = each.errors("net1")
        ends.append(f"{each.variant} {errors[-1]:.2f} %")
    panel.set(xlim=(0, None), ylim=(0, None))  # when all lines are there, so that none is cut
    _plain(panel)
    panel.legend(frameon=False, fontsize=8)
    caption = (
        f"{run.setting}, seed {run.about.seed}: errors while training, the full model's lines "
        f"solid, the baseline's dashed; net 1 at the end: {', '.join(ends)}."
    )
    return Drawing(f"curves-{run.name}", caption, figure)


def representations(run: CCNRun, baseline: CCNRun) -> Drawing | None:
    """The last hidden layer by t-SNE, coloured by class, beside the baseline's (figure 9)."""
    outputs = [read_final(each.folder) for each in (baseline, run)]
    if any(found is None for found in outputs):
        return None
    names = outputs[0].class_names
    colours = _class_colours(len(names))
    figure = Figure(figsize=(9.4, 4.6), dpi=DPI, layout="constrained")
    panels = figure.subplots(1, 2)
    for panel, found, each in zip(panels, outputs, (baseline, run), strict=True):
        places = _embedded(found.features)
        for c, name in enumerate(names):
            x, y = places[(found.labels == c).numpy()].T
            panel.plot(x, y, ".", color=colours[c], markersize=3, label=name)
        panel.set(xticks=[], yticks=[])
        panel.set_title(each.variant, fontsize=10)
    if len(names) <= LEGEND_CLASSES:
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=10,
            frameon=False,
            fontsize=8,
            markerscale=3,
            columnspacing=1,
            handletextpad=0,
        )
    caption = (
        f"t-SNE of net 1's last hidden layer on {len(outputs[0].labels)} test images, "
        f"{run.setting}, seed {run.about.seed}, coloured by class: baseline left, full right."
    )
    return Drawing(f"representations-{run.name}", caption, figure)


def _embedded(features: Tensor) -> np.ndarray:
    """Two coordinates [n,2] of features [n,D], the same at every call."""
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(features) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(features.numpy())


def _class_colours(C: int) -> list[tuple[float, ...]]:
    from matplotlib import colormaps

    if C <= LEGEND_CLASSES:
        return list(colormaps["tab10" if C <= 10 else "tab20"].colors)
    return [colormaps["hsv"](c / C) for c in range(C)]


def _draw_errors(
    panel: Axes,
    run: CCNRun,
    networks: Sequence[str] | dict[str, str],
    look: Callable[[str], dict[str, str]],
    prefix: str = "",
) -> None:
    """A line for each network."""
    for network in networks:
        steps, errors = run.errors(network)
        label = f"{prefix}{NETWORKS[network]}"
        panel.plot(steps, errors, **LINE, label=label, **look(network))
    panel.set(xlabel="step", ylabel="error (%)")


def _plain(panel: Axes) -> None:
    panel.grid(alpha=0.3, linewidth=0.6)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
