#include "../kernels/entropy.h"

#include "row_loss.h"

namespace fastssl {
namespace {

constexpr const char* kName = "entropy";

std::tuple<Tensor, Tensor> entropy_cpu(const Tensor& logits, bool needs_gradient) {
  const auto [N, C] = rows_shape(kName, logits);
  const Tensor x = as_contiguous(logits);
  Tensor loss = allocate_scalar(x), gradient = allocate_gradient(x, needs_gradient);
  dispatch_floats<CpuTypes>(x, kName, [&]<class scalar_t>() {
    using acc = cpu::acc_t<scalar_t>;
    cpu::entropy(pointer<scalar_t>(x), gradient_pointer<scalar_t>(gradient),
                 mutable_pointer<acc>(loss), N, C);
  });
  return {loss, gradient};
}

Tensor entropy_backward_cpu(const Tensor& grad, const Tensor& gradient, const Tensor&) {
  return scaled_gradient_cpu(kName, grad, gradient, gradient.size(0));
}

#ifdef FASTSSL_WITH_CUDA
std::tuple<Tensor, Tensor> entropy_cuda(const Tensor& logits, bool needs_gradient) {
  const auto [N, C] = rows_shape(kName, logits);
  const aten::accelerator::DeviceGuard guard(logits.get_device_index());
  const Tensor x = as_contiguous(logits);
  Tensor loss = allocate_scalar(x), gradient = allocate_gradient(x, needs_gradient);
  Tensor workspace = allocate_workspace(x);
  dispatch_floats<CudaTypes>(x, kName, [&]<class scalar_t>() {
    using acc = cpu::acc_t<scalar_t>;
    check_launch(cuda::entropy(pointer<scalar_t>(x), gradient_pointer<scalar_t>(gradient),
                               mutable_pointer<double>(workspace), mutable_pointer<acc>(loss), N, C,
                               current_stream(x)),
                 kName);
  });
  return {loss, gradient};
}

Tensor entropy_backward_cuda(const Tensor& grad, const Tensor& gradient, const Tensor&) {
  return scaled_gradient_cuda(kName, grad, gradient, gradient.size(0));
}
#endif

}  // namespace
}  // namespace fastssl

STABLE_TORCH_LIBRARY_IMPL(fastssl, CPU, m) {
  m.impl("entropy", TORCH_BOX(&fastssl::entropy_cpu));
  m.impl("entropy_backward", TORCH_BOX(&fastssl::entropy_backward_cpu));
}
#ifdef FASTSSL_WITH_CUDA
STABLE_TORCH_LIBRARY_IMPL(fastssl, CUDA, m) {
  m.impl("entropy", TORCH_BOX(&fastssl::entropy_cuda));
  m.impl("entropy_backward", TORCH_BOX(&fastssl::entropy_backward_cuda));
}
#endif
