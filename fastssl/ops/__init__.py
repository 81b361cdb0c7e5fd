"""The compiled ops: functional, differentiable, on CPU and CUDA."""

from fastssl.ops.complementary_correction import complementary_correction
from fastssl.ops.joint_distribution import joint_distribution
from fastssl.ops.mutual_information import mutual_information

__all__ = ["complementary_correction", "joint_distribution", "mutual_information"]
