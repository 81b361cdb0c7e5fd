#include "../kernels/mutual_information.h"

#include "joint_distribution.h"

namespace fastssl {
namespace {

void check_backward(const PairedLogits& logits, const Tensor& grad, const Tensor& joint) {
  const ScalarType dtype = accumulator_dtype(logits.a);
  FASTSSL_CHECK(
      grad.numel() == 1 && grad.scalar_type() == dtype && grad.device() == logits.a.device(),
      "mutual_information_backward: expected a scalar gradient in the accumulation dtype");
  FASTSSL_CHECK(joint.numel() == logits.C * logits.C && joint.is_contiguous() &&
                    joint.scalar_type() == dtype && joint.device() == logits.a.device(),
                "mutual_information_backward: expected the joint distribution of the forward call");
}

std::tuple<Tensor, Tensor> mutual_information_cpu(const Tensor& logits_a, const Tensor& logits_b) {
  const PairedLogits logits = paired_logits("mutual_information", logits_a, logits_b);
  const Tensor joint = joint_cpu(logits);
  Tensor information = aten::new_empty(joint, {});
  dispatch_floats<CpuTypes>(logits.a, "mutual_information", [&]<class scalar_t>() {
    using acc = cpu::acc_t<scalar_t>;
    cpu::mutual_information(pointer<acc>(joint), mutable_pointer<acc>(information), logits.C);
  });
  return {information, joint};
}

std::tuple<Tensor, Tensor> mutual_information_backward_cpu(const Tensor& grad, const Tensor& joint,
                                                           const Tensor& logits_a,
                                                           const Tensor& logits_b, bool needs_a,
                                                           bool needs_b) {
  const PairedLogits logits = paired_logits("mutual_information_backward", logits_a, logits_b);
  check_backward(logits, grad, joint);
  Tensor grad_joint = aten::empty_like(joint);
  dispatch_floats<CpuTypes>(logits.a, "mutual_information_backward", [&]<class scalar_t>() {
    using acc = cpu::acc_t<scalar_t>;
    cpu::mutual_information_grad_joint(pointer<acc>(joint), mutable_pointer<acc>(grad_joint),
                                       logits.C);
  });
  return joint_backward_cpu(logits, grad_joint, &grad, needs_a, needs_b);
}

#ifdef FASTSSL_WITH_CUDA
std::tuple<Tensor, Tensor> mutual_information_cuda(const Tensor& logits_a, const Tensor& logits_b) {
  const PairedLogits logits = paired_logits("mutual_information", logits_a, logits_b);
  const aten::accelerator::DeviceGuard guard(logits.a.get_device_index());
  const Tensor joint = joint_cuda(logits);
  Tensor information = aten::new_empty(joint, {}),
         workspace = aten::new_empty(joint, {2, logits.C});
  dispatch_floats<CudaTypes>(logits.a, "mutual_information", [&]<class scalar_t>() {
    using acc = cpu::acc_t<scalar_t>;
    acc* log_marginals = mutable_pointer<acc>(workspace);
    check_launch(cuda::mutual_information(
                     pointer<acc>(joint), log_marginals, log_marginals + logits.C,
                     mutable_pointer<acc>(information), logits.C, current_stream(logits.a)),
                 "mutual_information");
  });
  return {information, joint};
}

std::tuple<Tensor, Tensor> mutual_information_backward_cuda(const Tensor& grad, const Tensor& joint,
                                                            const Tensor& logits_a,
                                                            const Tensor& logits_b, bool needs_a,
                                                            bool needs_b) {
  const PairedLogits logits = paired_logits("mutual_information_backward", logits_a, logits_b);
  check_backward(logits, grad, joint);
  const aten::accelerator::DeviceGuard guard(logits.a.get_device_index());
  Tensor grad_joint = aten::empty_like(joint), log_marginals = aten::new_empty(joint, {logits.C});
  dispatch_floats<CudaTypes>(logits.a, "mutual_information_backward", [&]<class scalar_t>() {
    using acc = cpu::acc_t<scalar_t>;
    check_launch(cuda::mutual_information_grad_joint(
                     pointer<acc>(joint), mutable_pointer<acc>(log_marginals),
                     mutable_pointer<acc>(grad_joint), logits.C, current_stream(logits.a)),
                 "mutual_information_backward");
  });
  return joint_backward_cuda(logits, grad_joint, &grad, needs_a, needs_b);
}
#endif

}  // namespace
}  // namespace fastssl

STABLE_TORCH_LIBRARY_IMPL(fastssl, CPU, m) {
  m.impl("mutual_information", TORCH_BOX(&fastssl::mutual_information_cpu));
  m.impl("mutual_information_backward", TORCH_BOX(&fastssl::mutual_information_backward_cpu));
}
#ifdef FASTSSL_WITH_CUDA
STABLE_TORCH_LIBRARY_IMPL(fastssl, CUDA, m) {
  m.impl("mutual_information", TORCH_BOX(&fastssl::mutual_information_cuda));
  m.impl("mutual_information_backward", TORCH_BOX(&fastssl::mutual_information_backward_cuda));
}
#endif
