"""The compiled ops: functional, differentiable, on CPU and CUDA."""

from fastssl.ops.augment import augment
from fastssl.ops.complementary_correction import complementary_correction
from fastssl.ops.joint_distribution import joint_distribution
from fastssl.ops.mutual_information import mutual_information
from fastssl.ops.softmax_hessian_product import softmax_hessian_product
from fastssl.ops.unit_perturbation import unit_perturbation

__all__ = [
    "augment",
    "complementary_correction",
    "joint_distribution",
    "mutual_information",
    "softmax_hessian_product",
    "unit_perturbation",
]
