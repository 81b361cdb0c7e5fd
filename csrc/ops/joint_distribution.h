// The tensors of a pair of predictions, for the ops that are made of their joint distribution.
#pragma once

#include "../torch_api.h"

namespace fastssl {

// N rows, C classes and V views of logits_a [N, C] and logits_b [N, C] or [V, N, C].
struct PairedLogits {
  Tensor a, b;  // contiguous
  int64_t N, C, V;
};

PairedLogits paired_logits(const char* op, const Tensor& logits_a, const Tensor& logits_b);

// The joint distribution [C, C].
Tensor joint_cpu(const PairedLogits& logits);
// Gradients of grad_scale * sum(joint * grad_joint), grad_joint [C, C]; one that is not needed is
// an empty tensor.
std::tuple<Tensor, Tensor> joint_backward_cpu(const PairedLogits& logits, const Tensor& grad_joint,
                                              const Tensor* grad_scale, bool needs_a, bool needs_b);

#ifdef FASTSSL_WITH_CUDA
Tensor joint_cuda(const PairedLogits& logits);
std::tuple<Tensor, Tensor> joint_backward_cuda(const PairedLogits& logits, const Tensor& grad_joint,
                                               const Tensor* grad_scale, bool needs_a,
                                               bool needs_b);
#endif

}  // namespace fastssl
