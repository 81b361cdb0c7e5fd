"""The compiled ops: functional, differentiable, on CPU and CUDA."""

from fastssl.ops.augment import augment
from fastssl.ops.batch_norm_leaky_relu import batch_norm_leaky_relu
from fastssl.ops.complementary_correction import complementary_correction
from fastssl.ops.diffuse import diffuse
from fastssl.ops.entropy import entropy
from fastssl.ops.joint_distribution import joint_distribution
from fastssl.ops.kl_divergence import kl_divergence
from fastssl.ops.knn_graph import knn_graph
from fastssl.ops.mutual_information import mutual_information
from fastssl.ops.nt_xent import nt_xent
from fastssl.ops.propagate_labels import propagate_labels
from fastssl.ops.pseudo_label_cross_entropy import pseudo_label_cross_entropy
from fastssl.ops.softmax_hessian_product import softmax_hessian_product
from fastssl.ops.softmax_mse import softmax_mse
from fastssl.ops.unit_perturbation import unit_perturbation
from fastssl.ops.weighted_cross_entropy import weighted_cross_entropy

__all__ = [
    "augment",
    "batch_norm_leaky_relu",
    "complementary_correction",
    "diffuse",
    "entropy",
    "joint_distribution",
    "kl_divergence",
    "knn_graph",
    "mutual_information",
    "nt_xent",
    "propagate_labels",
    "pseudo_label_cross_entropy",
    "softmax_hessian_product",
    "softmax_mse",
    "unit_perturbation",
    "weighted_cross_entropy",
]
