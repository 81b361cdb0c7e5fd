// The extension module and the schema of every op: the table of contents of csrc/.
#include <Python.h>

#include "kernels/cpu/dispatch.h"
#include "torch_api.h"

STABLE_TORCH_LIBRARY(fastssl, m) {
  m.def(
      "augment(Tensor images, Tensor integers, Tensor factors, int[] plans, int seed, Tensor step, "
      "Tensor index, Tensor mean, Tensor std, ScalarType dtype, bool channels_last) -> Tensor");
  m.def(
      "batch_norm_leaky_relu(Tensor maps, Tensor weight, Tensor bias, float eps, float "
      "negative_slope, int pool) -> (Tensor, Tensor, Tensor)");
  m.def(
      "batch_norm_leaky_relu_backward(Tensor grad, Tensor maps, Tensor weight, Tensor bias, Tensor "
      "mean, Tensor variance, float eps, float negative_slope, int pool) -> (Tensor, Tensor, "
      "Tensor)");
  m.def(
      "complementary_correction(Tensor raw_output, Tensor features, Tensor raw_weight, Tensor "
      "raw_bias, Tensor feature1_weight, Tensor feature1_bias, Tensor feature2_weight, Tensor "
      "feature2_bias, Tensor join_weight, Tensor join_bias, Tensor out_weight, Tensor out_bias, "
      "float negative_slope) -> Tensor");
  m.def(
      "complementary_correction_backward(Tensor grad, Tensor raw_output, Tensor features, Tensor "
      "raw_weight, Tensor raw_bias, Tensor feature1_weight, Tensor feature1_bias, Tensor "
      "feature2_weight, Tensor feature2_bias, Tensor join_weight, Tensor join_bias, Tensor "
      "out_weight, Tensor out_bias, float negative_slope, bool needs_raw_output, bool "
      "needs_features, bool needs_parameters) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, "
      "Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "diffuse(Tensor crow, Tensor col, Tensor value, Tensor seeds, float alpha, float tolerance, "
      "int max_iterations) -> (Tensor, Tensor)");
  m.def(
      "diffuse_product(Tensor crow, Tensor col, Tensor value, Tensor vectors, int first_row, float "
      "alpha) -> Tensor");
  m.def("entropy(Tensor logits, bool needs_gradient) -> (Tensor, Tensor)");
  m.def("entropy_backward(Tensor grad, Tensor gradient, Tensor logits) -> Tensor");
  m.def("joint_distribution(Tensor logits_a, Tensor logits_b) -> Tensor");
  m.def(
      "joint_distribution_backward(Tensor grad, Tensor logits_a, Tensor logits_b, bool needs_a, "
      "bool needs_b) -> (Tensor, Tensor)");
  m.def(
      "kl_divergence(Tensor target_logits, Tensor logits, bool needs_gradient) -> (Tensor, "
      "Tensor)");
  m.def("kl_divergence_backward(Tensor grad, Tensor gradient, Tensor logits) -> Tensor");
  m.def(
      "knn_graph_neighbors(Tensor rows, Tensor? queries, Tensor? own, int k) -> (Tensor index, "
      "Tensor value)");
  m.def(
      "knn_graph_symmetrize(Tensor index, Tensor weight, int begin, int end) -> (Tensor start, "
      "Tensor column, Tensor value)");
  m.def("mutual_information(Tensor logits_a, Tensor logits_b) -> (Tensor, Tensor)");
  m.def(
      "mutual_information_backward(Tensor grad, Tensor joint, Tensor logits_a, Tensor logits_b, "
      "bool needs_a, bool needs_b) -> (Tensor, Tensor)");
  m.def("nt_xent(Tensor features_a, Tensor features_b, float temperature) -> (Tensor, Tensor)");
  m.def(
      "nt_xent_backward(Tensor grad, Tensor log_sums, Tensor features_a, Tensor features_b, float "
      "temperature, bool needs_a, bool needs_b) -> (Tensor, Tensor)");
  m.def(
      "pseudo_label_cross_entropy(Tensor weak_logits, Tensor strong_logits, float threshold, bool "
      "needs_gradient) -> (Tensor, Tensor, Tensor)");
  m.def(
      "pseudo_label_cross_entropy_backward(Tensor grad, Tensor gradient, Tensor logits) -> Tensor");
  m.def("softmax_hessian_product(Tensor logits, Tensor tangent) -> Tensor");
  m.def(
      "softmax_mse(Tensor target_logits, Tensor logits, bool needs_gradient) -> (Tensor, Tensor)");
  m.def("softmax_mse_backward(Tensor grad, Tensor gradient, Tensor logits) -> Tensor");
  m.def("unit_perturbation(Tensor direction, float radius) -> Tensor");
  m.def(
      "weighted_cross_entropy(Tensor logits, Tensor targets, Tensor weights, bool needs_gradient) "
      "-> (Tensor, Tensor)");
  m.def("weighted_cross_entropy_backward(Tensor grad, Tensor gradient, Tensor logits) -> Tensor");
}

namespace {

PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                          "_C",
                          "fastssl's compiled ops, registered as torch.ops.fastssl",
                          -1,
                          nullptr,
                          nullptr,
                          nullptr,
                          nullptr,
                          nullptr};

}  // namespace

// Importing the module runs the static registrations above and in ops/. Its attributes say how it
// was built.
PyMODINIT_FUNC PyInit__C(void) {
  PyObject* module = PyModule_Create(&definition);
  if (module == nullptr) return nullptr;
  const char* const attributes[][2] = {
      {"compiler", FASTSSL_COMPILER},
      {"cuda", FASTSSL_CUDA_VERSION},
      {"architectures", FASTSSL_CUDA_ARCHITECTURES},
      {"torch_headers", FASTSSL_TORCH_HEADERS},
      {"cpu_capability", fastssl::cpu::level_name()},
  };
  for (const auto& [name, value] : attributes) {
    if (PyModule_AddStringConstant(module, name, value) < 0) {
      Py_DECREF(module);
      return nullptr;
    }
  }
  return module;
}
