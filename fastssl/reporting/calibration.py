"""Whether a network is as often right as it says. N images in B bins of confidence.

Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 2.
"""

from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from fastssl.reporting.drawing import look, plain

BINS = 15


@dataclass(frozen=True)
class Reliability:
    """Equal bins of the confidence, those without an image left out."""

    confidence: list[float]  # mean of each bin
    accuracy: list[float]
    share: list[float]  # of the images
    ece: float  # expected calibration error, from 0 to 1


def reliability(confidences: Tensor, right: Tensor) -> Reliability:
    """Bin N > 0 confidences float [N] in (0, 1] of predictions that are right, bool [N], or not."""
    index = (confidences.double() * BINS).ceil().long().clamp(1, BINS) - 1
    n = torch.bincount(index, minlength=BINS).double()
    filled = n > 0
    sums = [torch.zeros(BINS, dtype=torch.float64) for _ in range(2)]
    for total, values in zip(sums, (confidences, right), strict=True):
        total.index_add_(0, index, values.double())
    confidence, accuracy = ((total / n)[filled] for total in sums)
    share = n[filled] / n.sum()
    ece = float((share * (confidence - accuracy).abs()).sum())
    return Reliability(confidence.tolist(), accuracy.tolist(), share.tolist(), ece)


def draw_reliability(found: dict[int, tuple[str, Reliability]]) -> Figure:
    """The reliability diagram of several runs, given by their numbers, each with its name."""
    figure = Figure(figsize=(4.0, 3.8), dpi=190)
    panel = figure.subplots()
    panel.plot([0, 1], [0, 1], color="#888888", linewidth=1, label="as often right as it says")
    for run, (name, bins) in found.items():
        line = look(run)
        panel.plot(bins.confidence, bins.accuracy, linewidth=1, alpha=0.5, **line)
        sizes = [6 + 90 * share for share in bins.share]
        label = plain(f"{name}: ECE {100 * bins.ece:.2f} %")
        panel.scatter(
            bins.confidence, bins.accuracy, sizes, line["color"], label=label, clip_on=False
        )
    panel.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence", ylabel="accuracy")
    panel.grid(alpha=0.3, linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)
    legend = panel.legend(fontsize=8, framealpha=0.7, loc="best")
    for handle in legend.legend_handles[1:]:
        handle.set_sizes([20])
    figure.tight_layout()
    return figure
