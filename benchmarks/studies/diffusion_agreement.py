"""How far diffuse agrees with SciPy's float64 conjugate gradients on the diffusion benchmark.

    FASTSSL_BENCH_FEATURES=features.npz python -m fastssl.benchmarks.studies.diffusion_agreement

N = 50,000 rows, C classes, the problems of `fastssl bench diffuse`: the largest difference relative
to the largest score, and the share of rows whose likeliest class is the same.
"""

import torch

from fastssl.benchmarks.diffuse import ALPHA, ITERATIONS, TOLERANCE, problem, scipy_by_class
from fastssl.ops import diffuse

N = 50_000


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    for C in (10, 100):
        graph, seeds = problem(N, C)
        scores, iterations = diffuse(graph, seeds, ALPHA, TOLERANCE, ITERATIONS)
        expected = scipy_by_class(graph)(seeds)
        error = (scores - expected).abs().max() / expected.abs().max()
        by_class = ((scores - expected).norm(dim=0) / expected.norm(dim=0)).max()
        same = (scores.argmax(1) == expected.argmax(1)).double().mean()
        print(
            f"C = {C}: {len(graph.col)} entries, {int(iterations.min())} to "
            f"{int(iterations.max())} iterations, relative error {error:.2g} "
            f"(of the worst class's norm {by_class:.2g}), same class {100 * same:.4f} %",
            flush=True,
        )


if __name__ == "__main__":
    main()
