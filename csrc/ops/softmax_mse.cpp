#include "../kernels/softmax_mse.h"

#include "row_loss.h"

namespace fastssl {
namespace {

constexpr const char* kName = "softmax_mse";

std::tuple<Tensor, Tensor> softmax_mse_cpu(const Tensor& target_logits, const Tensor& logits,
                                           bool needs_gradient) {
  const auto [N, C] = targeted_rows_shape(kName, target_logits, logits);
  const Tensor t = as_contiguous(target_logits), x = as_contiguous(logits);
  Tensor loss = allocate_scalar(x), gradient = allocate_gradient(x, needs_gradient);
  dispatch_floats<CpuTypes>(x, kName, [&]<class scalar_t>() {
    using acc = cpu::acc_t<scalar_t>;
    cpu::softmax_mse(pointer<scalar_t>(t), pointer<scalar_t>(x),
                     gradient_pointer<scalar_t>(gradient), mutable_pointer<acc>(loss), N, C);
  });
  return {loss, gradient};
}

Tensor softmax_mse_backward_cpu(const Tensor& grad, const Tensor& gradient, const Tensor&) {
  return scaled_gradient_cpu(kName, grad, gradient, gradient.numel());
}

#ifdef FASTSSL_WITH_CUDA
std::tuple<Tensor, Tensor> softmax_mse_cuda(const Tensor& target_logits, const Tensor& logits,
                                            bool needs_gradient) {
  const auto [N, C] = targeted_rows_shape(kName, target_logits, logits);
  const aten::accelerator::DeviceGuard guard(logits.get_device_index());
  const Tensor t = as_contiguous(target_logits), x = as_contiguous(logits);
  Tensor loss = allocate_scalar(x), gradient = allocate_gradient(x, needs_gradient);
  Tensor workspace = allocate_workspace(x);
  dispatch_floats<CudaTypes>(x, kName, [&]<class scalar_t>() {
    using acc = cpu::acc_t<scalar_t>;
    check_launch(
        cuda::softmax_mse(pointer<scalar_t>(t), pointer<scalar_t>(x),
                          gradient_pointer<scalar_t>(gradient), mutable_pointer<double>(workspace),
                          mutable_pointer<acc>(loss), N, C, current_stream(x)),
        kName);
  });
  return {loss, gradient};
}

Tensor softmax_mse_backward_cuda(const Tensor& grad, const Tensor& gradient, const Tensor&) {
  return scaled_gradient_cuda(kName, grad, gradient, gradient.numel());
}
#endif

}  // namespace
}  // namespace fastssl

STABLE_TORCH_LIBRARY_IMPL(fastssl, CPU, m) {
  m.impl("softmax_mse", TORCH_BOX(&fastssl::softmax_mse_cpu));
  m.impl("softmax_mse_backward", TORCH_BOX(&fastssl::softmax_mse_backward_cpu));
}
#ifdef FASTSSL_WITH_CUDA
STABLE_TORCH_LIBRARY_IMPL(fastssl, CUDA, m) {
  m.impl("softmax_mse", TORCH_BOX(&fastssl::softmax_mse_cuda));
  m.impl("softmax_mse_backward", TORCH_BOX(&fastssl::softmax_mse_backward_cuda));
}
#endif
