"""CUDA on the CPU: runs the project's .cu files under a checker, without a GPU.

cuda_on_cpu.h says how it works, checker.py runs kernels from tests, mutate.py scores the tests.
"""
