"""Label diffusion of a million rows on one machine: time, memory, recall, iterations.

    python -m fastssl.benchmarks.studies.million_rows

N rows of D features in C clusters, 10 known labels a cluster, 50 approximate neighbours (FAISS's
inverted lists). What is measured goes to benchmarks/results/million_rows.jsonl, a line a run.
Memory is what the process holds above the features, Linux only.
"""

import argparse
import json
import re
import time
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from fastssl.benchmarks.rows import RESULTS, Run
from fastssl.ops import diffuse, knn_graph
from fastssl.ops.knn_graph import load_faiss
from fastssl.ops.propagate_labels import class_distributions, label_seeds, pseudo_labels

D, C, K, LABELED = 64, 100, 50, 10
SPREAD = 0.7  # of a cluster, against centres of unit spread
PIECE = 1 << 16
STATUS = Path("/proc/self/status")


def clusters(N: int) -> tuple[Tensor, Tensor]:
    """Features [N, D] and the cluster of each row, [N], made in pieces."""
    generator = torch.Generator().manual_seed(0)
    classes = torch.randint(C, (N,), generator=generator)
    centres = torch.randn(C, D, generator=generator)
    features = torch.empty(N, D)
    for rows, own in zip(features.split(PIECE), classes.split(PIECE), strict=True):
        rows.normal_(generator=generator).mul_(SPREAD).add_(centres[own]).relu_()
    return features, classes


def resident(field: str) -> int:
    """Bytes that the process holds now (VmRSS) or held at most since `forget_peak` (VmHWM)."""
    found = re.search(rf"{field}:\s+(\d+) kB", STATUS.read_text())
    return int(found[1]) * 1024


def forget_peak() -> None:
    """Let VmHWM count from here."""
    Path("/proc/self/clear_refs").write_text("5")


def measure(N: int, index: str) -> dict:
    """The whole, from features to pseudo-labels."""
    load_faiss()
    features, classes = clusters(N)
    labels = torch.full_like(classes, -1)
    for c in range(C):
        labels[(classes == c).nonzero().flatten()[:LABELED]] = c
    forget_peak()
    before, start = resident("VmRSS"), time.perf_counter()
    graph = knn_graph(features, K, index=index)
    graph_done, graph_peak = time.perf_counter(), resident("VmHWM")
    scores, iterations = diffuse(graph, label_seeds(labels, C))
    diffused = time.perf_counter()
    found, _, _ = pseudo_labels(class_distributions(scores), labels)
    ended = time.perf_counter()
    unknown = labels < 0
    return {
        "rows": N,
        "features": D,
        "classes": C,
        "index": index,
        "neighbors": K,
        "recall": round(graph.recall, 4),
        "edges": len(graph.col),
        "iterations": int(iterations.max()),
        "graph_s": round(graph_done - start, 1),
        "diffusion_s": round(diffused - graph_done, 1),
        "labels_s": round(ended - diffused, 1),
        "graph_peak_bytes": graph_peak - before,
        "peak_bytes": resident("VmHWM") - before,
        "accuracy": round((found == classes)[unknown].double().mean().item(), 4),
    }


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--index", choices=["ivf", "hnsw"], default="ivf")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    run = Run.now(torch.device("cpu"))
    measured = measure(arguments.rows, arguments.index)
    print(json.dumps(measured, indent=1))
    if RESULTS.is_dir():
        with (RESULTS / "million_rows.jsonl").open("a") as file:
            file.write(json.dumps(measured | asdict(run)) + "\n")


if __name__ == "__main__":
    main()
