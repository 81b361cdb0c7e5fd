"""The compiled ops: functional, differentiable, on CPU and CUDA."""

from fastssl.ops.complementary_correction import complementary_correction
from fastssl.ops.diffuse import diffuse
from fastssl.ops.joint_distribution import joint_distribution
from fastssl.ops.knn_graph import knn_graph
from fastssl.ops.mutual_information import mutual_information
from fastssl.ops.propagate_labels import propagate_labels
from fastssl.ops.softmax_hessian_product import softmax_hessian_product
from fastssl.ops.unit_perturbation import unit_perturbation

__all__ = [
    "complementary_correction",
    "diffuse",
    "joint_distribution",
    "knn_graph",
    "mutual_information",
    "propagate_labels",
    "softmax_hessian_product",
    "unit_perturbation",
]
