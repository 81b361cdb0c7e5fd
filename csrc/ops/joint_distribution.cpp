#include "joint_distribution.h"

#include "../kernels/joint_distribution.h"

namespace fastssl {

PairedLogits paired_logits(const char* op, const Tensor& logits_a, const Tensor& logits_b) {
  FASTSSL_CHECK(logits_a.dim() == 2 && (logits_b.dim() == 2 || logits_b.dim() == 3), op,
                ": expected logits_a [N, C] and logits_b [N, C] or [V, N, C]");
  const int64_t views = logits_b.dim() == 3 ? logits_b.size(0) : 1;
  const int64_t rows = logits_b.dim() - 2;
  FASTSSL_CHECK(
      logits_a.size(0) == logits_b.size(rows) && logits_a.size(1) == logits_b.size(rows + 1), op,
      ": logits_a and logits_b differ in N or C");
  FASTSSL_CHECK(logits_a.numel() > 0 && logits_b.numel() > 0, op, ": empty logits");
  FASTSSL_CHECK(logits_a.scalar_type() == logits_b.scalar_type(), op, ": logits differ in dtype");
  FASTSSL_CHECK(logits_a.device() == logits_b.device(), op, ": logits are on different devices");
  return {aten::contiguous(logits_a), aten::contiguous(logits_b), logits_a.size(0),
          logits_a.size(1), views};
}

namespace {

Tensor empty_gradient(const Tensor& like, bool needed) {
  return needed ? aten::empty_like(like) : aten::new_empty(like, {0});
}

// grad_joint [C, C] as the kernels read it.
Tensor checked_grad_joint(const PairedLogits& logits, const Tensor& grad_joint) {
  FASTSSL_CHECK(
      grad_joint.dim() == 2 && grad_joint.size(0) == logits.C && grad_joint.size(1) == logits.C &&
          grad_joint.scalar_type() == accumulator_dtype(logits.a) &&
          grad_joint.device() == logits.a.device(),
      "joint_distribution_backward: expected a gradient [C, C] in the accumulation dtype");
  return aten::contiguous(grad_joint);
}

Tensor joint_distribution_cpu(const Tensor& logits_a, const Tensor& logits_b) {
  return joint_cpu(paired_logits("joint_distribution", logits_a, logits_b));
}

std::tuple<Tensor, Tensor> joint_distribution_backward_cpu(const Tensor& grad,
                                                           const Tensor& logits_a,
                                                           const Tensor& logits_b, bool needs_a,
                                                           bool needs_b) {
  const PairedLogits logits = paired_logits("joint_distribution_backward", logits_a, logits_b);
  return joint_backward_cpu(logits, grad, nullptr, needs_a, needs_b);
}

}  // namespace

Tensor joint_cpu(const PairedLogits& logits) {
  Tensor joint = aten::new_empty(logits.a, {logits.C, logits.C}, accumulator_dtype(logits.a));
  dispatch_floats<CpuTypes>(logits.a, "joint_distribution", [&]<class scalar_t>() {
    cpu::joint_distribution(pointer<scalar_t>(logits.a), pointer<scalar_t>(logits.b),
                            mutable_pointer<cpu::acc_t<scalar_t>>(joint), logits.N, logits.C,
                            logits.V);
  });
  return joint;
}

std::tuple<Tensor, Tensor> joint_backward_cpu(const PairedLogits& logits, const Tensor& grad_joint,
                                              const Tensor* grad_scale, bool needs_a,
                                              bool needs_b) {
  const Tensor weights = checked_grad_joint(logits, grad_joint);
  Tensor grad_a = empty_gradient(logits.a, needs_a), grad_b = empty_gradient(logits.b, needs_b);
  dispatch_floats<CpuTypes>(logits.a, "joint_distribution_backward", [&]<class scalar_t>() {
    using acc = cpu::acc_t<scalar_t>;
    cpu::joint_distribution_backward(
        pointer<acc>(weights), grad_scale != nullptr ? *pointer<acc>(*grad_scale) : acc(1),
        pointer<scalar_t>(logits.a), pointer<scalar_t>(logits.b),
        needs_a ? mutable_pointer<scalar_t>(grad_a) : nullptr,
        needs_b ? mutable_pointer<scalar_t>(grad_b) : nullptr, logits.N, logits.C, logits.V);
  });
  return {grad_a, grad_b};
}

#ifdef FASTSSL_WITH_CUDA
namespace {

constexpr const char* kName = "joint_distribution";

// Sum over V views of softmax(logits [V, N, C]), [N, C].
template <class scalar_t>
Tensor pooled_softmax(const Tensor& logits, int64_t N, int64_t C, int64_t V) {
  using acc = cpu::acc_t<scalar_t>;
  Tensor probabilities = aten::new_empty(logits, {N, C}, accumulator_dtype(logits));
  check_launch(cuda::pooled_softmax(pointer<scalar_t>(logits), mutable_pointer<acc>(probabilities),
                                    N, C, V, current_stream(logits)),
               kName);
  return probabilities;
}

// What a joint is the symmetric part of: one [C, C] sum of outer products, or several partial ones.
template <class scalar_t>
Tensor joint_sums(const PairedLogits& logits) {
  using acc = cpu::acc_t<scalar_t>;
  const int64_t N = logits.N, C = logits.C, V = logits.V;
  if (C > cuda::kFewClasses) {
    return product(aten::transpose(pooled_softmax<scalar_t>(logits.a, N, C, 1), 0, 1),
                   pooled_softmax<scalar_t>(logits.b, N, C, V));
  }
  Tensor partials =
      aten::new_empty(logits.a, {cuda::joint_partials_count(N), C, C}, accumulator_dtype(logits.a));
  check_launch(
      cuda::joint_partials(pointer<scalar_t>(logits.a), pointer<scalar_t>(logits.b),
                           mutable_pointer<acc>(partials), N, C, V, current_stream(logits.a)),
      kName);
  return partials;
}

// Gradient of one side, for many classes: its probabilities' gradient is the other side's times
// `weights`.
template <class scalar_t>
void softmax_gradient(const Tensor& logits, const Tensor& other, int64_t other_views,
                      const Tensor& weights, const cpu::acc_t<scalar_t>* grad_scale,
                      const PairedLogits& pair, Tensor& gradient) {
  using acc = cpu::acc_t<scalar_t>;
  const Tensor t = product(pooled_softmax<scalar_t>(other, pair.N, pair.C, other_views), weights);
  check_launch(cuda::softmax_gradient(pointer<scalar_t>(logits), pointer<acc>(t), grad_scale,
                                      acc(1 / (double(pair.N) * double(pair.V))),
                                      mutable_pointer<scalar_t>(gradient), pair.N, pair.C,
                                      logits.numel() / (pair.N * pair.C), current_stream(logits)),
               kName);
}

Tensor joint_distribution_cuda(const Tensor& logits_a, const Tensor& logits_b) {
  return joint_cuda(paired_logits(kName, logits_a, logits_b));
}

std::tuple<Tensor, Tensor> joint_distribution_backward_cuda(const Tensor& grad,
                                                            const Tensor& logits_a,
                                                            const Tensor& logits_b, bool needs_a,
                                                            bool needs_b) {
  const PairedLogits logits = paired_logits("joint_distribution_backward", logits_a, logits_b);
  return joint_backward_cuda(logits, grad, nullptr, needs_a, needs_b);
}

}  // namespace

Tensor joint_cuda(const PairedLogits& logits) {
  const aten::accelerator::DeviceGuard guard(logits.a.get_device_index());
  Tensor joint = aten::new_empty(logits.a, {logits.C, logits.C}, accumulator_dtype(logits.a));
  dispatch_floats<CudaTypes>(logits.a, kName, [&]<class scalar_t>() {
    using acc = cpu::acc_t<scalar_t>;
    const Tensor sums = joint_sums<scalar_t>(logits);
    check_launch(cuda::symmetrize(pointer<acc>(sums), sums.numel() / (logits.C * logits.C),
                                  acc(1 / (double(logits.N) * double(logits.V))),
                                  mutable_pointer<acc>(joint), logits.C, current_stream(logits.a)),
                 kName);
  });
  return joint;
}

std::tuple<Tensor, Tensor> joint_backward_cuda(const PairedLogits& logits, const Tensor& grad_joint,
                                               const Tensor* grad_scale, bool needs_a,
                                               bool needs_b) {
  const aten::accelerator::DeviceGuard guard(logits.a.get_device_index());
  const Tensor weights = checked_grad_joint(logits, grad_joint);
  Tensor grad_a = empty_gradient(logits.a, needs_a), grad_b = empty_gradient(logits.b, needs_b);
  dispatch_floats<CudaTypes>(logits.a, kName, [&]<class scalar_t>() {
    using acc = cpu::acc_t<scalar_t>;
    const acc* scale = grad_scale != nullptr ? pointer<acc>(*grad_scale) : nullptr;
    const cudaStream_t stream = current_stream(logits.a);
    if (logits.C <= cuda::kFewClasses) {
      check_launch(cuda::joint_gradients(pointer<acc>(weights), scale, pointer<scalar_t>(logits.a),
                                         pointer<scalar_t>(logits.b),
                                         needs_a ? mutable_pointer<scalar_t>(grad_a) : nullptr,
                                         needs_b ? mutable_pointer<scalar_t>(grad_b) : nullptr,
                                         logits.N, logits.C, logits.V, stream),
                   kName);
      return;
    }
    Tensor symmetric = aten::empty_like(weights);
    check_launch(cuda::symmetrize(pointer<acc>(weights), 1, acc(1), mutable_pointer<acc>(symmetric),
                                  logits.C, stream),
                 kName);
    if (needs_a)
      softmax_gradient<scalar_t>(logits.a, logits.b, logits.V, symmetric, scale, logits, grad_a);
    if (needs_b)
      softmax_gradient<scalar_t>(logits.b, logits.a, 1, symmetric, scale, logits, grad_b);
  });
  return {grad_a, grad_b};
}
#endif

}  // namespace fastssl

STABLE_TORCH_LIBRARY_IMPL(fastssl, CPU, m) {
  m.impl("joint_distribution", TORCH_BOX(&fastssl::joint_distribution_cpu));
  m.impl("joint_distribution_backward", TORCH_BOX(&fastssl::joint_distribution_backward_cpu));
}
#ifdef FASTSSL_WITH_CUDA
STABLE_TORCH_LIBRARY_IMPL(fastssl, CUDA, m) {
  m.impl("joint_distribution", TORCH_BOX(&fastssl::joint_distribution_cuda));
  m.impl("joint_distribution_backward", TORCH_BOX(&fastssl::joint_distribution_backward_cuda));
}
#endif
