"""Where a training step's time goes: steps a second, how busy the device is, and its kernels.

    python -m fastssl.benchmarks.studies.step_profile --device cuda --precision bf16 --compile graph

The step is that of the benchmark `training_step`: on a GPU MUSCLE with Mean Teacher on conv_large,
of each image four views for the student and one for the teacher; on the CPU MUSCLE on small_cnn.
"""

import argparse

import torch
from torch.profiler import ProfilerActivity, profile

from fastssl.benchmarks import training_step
from fastssl.benchmarks.harness import wall_ms
from fastssl.training.step import COMPILERS

WARM_UP, LISTED = 10, 25


def main() -> None:
    """Time the step, profile some more of them, and print what ran longest."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", choices=("bf16", "fp32"))
    parser.add_argument("--compile", default="none", choices=COMPILERS)
    parser.add_argument("--rows", type=int, default=128, help="images a step")
    parser.add_argument("--steps", type=int, default=50, help="that are timed")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    on_gpu = device.type == "cuda"
    dtype = torch.bfloat16 if arguments.precision == "bf16" else torch.float32
    step = training_step.our_step(arguments.rows, 32, device, dtype, arguments.compile)
    for _ in range(WARM_UP):
        step()
    own = wall_ms(step, arguments.steps, device)
    print(f"{own:.3f} ms a step, {1e3 / own:.1f} steps/s, compile {arguments.compile}")

    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    profiled = max(1, arguments.steps // 10)
    with profile(activities=kinds) as found:
        wall_ms(step, profiled, device)
    averages = found.key_averages()
    if on_gpu:
        busy = sum(event.self_device_time_total for event in averages) / 1e3 / profiled
        print(f"device busy {busy:.3f} ms a step, {100 * busy / own:.1f} % of its time")
    order = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    print(averages.table(sort_by=order, row_limit=LISTED, max_name_column_width=60))


if __name__ == "__main__":
    main()
