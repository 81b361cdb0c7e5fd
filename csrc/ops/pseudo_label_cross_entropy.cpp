#include "../kernels/pseudo_label_cross_entropy.h"

#include "row_loss.h"

namespace fastssl {
namespace {

constexpr const char* kName = "pseudo_label_cross_entropy";

// N rows of C classes, V strong views.
struct ViewsShape {
  int64_t N, C, V;
};

ViewsShape views_shape(const Tensor& weak_logits, const Tensor& strong_logits) {
  const auto [N, C] = rows_shape(kName, weak_logits);
  const int64_t views = strong_logits.dim() - 2;
  FASTSSL_CHECK((views == 0 || views == 1) && strong_logits.size(views) == N &&
                    strong_logits.size(views + 1) == C && strong_logits.numel() > 0,
                kName, ": expected strong_logits [N, C] or [V, N, C]");
  FASTSSL_CHECK(weak_logits.scalar_type() == strong_logits.scalar_type() &&
                    weak_logits.device() == strong_logits.device(),
                kName, ": weak_logits and strong_logits differ in dtype or device");
  return {N, C, views == 1 ? strong_logits.size(0) : 1};
}

int64_t divisor(const Tensor& gradient) {
  return gradient.numel() / gradient.size(gradient.dim() - 1);
}

std::tuple<Tensor, Tensor, Tensor> pseudo_label_cross_entropy_cpu(const Tensor& weak_logits,
                                                                  const Tensor& strong_logits,
                                                                  double threshold,
                                                                  bool needs_gradient) {
  const auto [N, C, V] = views_shape(weak_logits, strong_logits);
  const Tensor weak = as_contiguous(weak_logits), strong = as_contiguous(strong_logits);
  Tensor loss = allocate_scalar(weak), kept = allocate_scalar(weak);
  Tensor gradient = allocate_gradient(strong, needs_gradient);
  dispatch_floats<CpuTypes>(weak, kName, [&]<class scalar_t>() {
    using acc = cpu::acc_t<scalar_t>;
    cpu::pseudo_label_cross_entropy(pointer<scalar_t>(weak), pointer<scalar_t>(strong), threshold,
                                    gradient_pointer<scalar_t>(gradient),
                                    mutable_pointer<acc>(loss), mutable_pointer<acc>(kept), N, C,
                                    V);
  });
  return {loss, kept, gradient};
}

Tensor pseudo_label_cross_entropy_backward_cpu(const Tensor& grad, const Tensor& gradient,
                                               const Tensor&) {
  return scaled_gradient_cpu(kName, grad, gradient, divisor(gradient));
}

#ifdef FASTSSL_WITH_CUDA
std::tuple<Tensor, Tensor, Tensor> pseudo_label_cross_entropy_cuda(const Tensor& weak_logits,
                                                                   const Tensor& strong_logits,
                                                                   double threshold,
                                                                   bool needs_gradient) {
  const auto [N, C, V] = views_shape(weak_logits, strong_logits);
  const aten::accelerator::DeviceGuard guard(weak_logits.get_device_index());
  const Tensor weak = as_contiguous(weak_logits), strong = as_contiguous(strong_logits);
  Tensor loss = allocate_scalar(weak), kept = allocate_scalar(weak);
  Tensor gradient = allocate_gradient(strong, needs_gradient), workspace = allocate_workspace(weak);
  dispatch_floats<CudaTypes>(weak, kName, [&]<class scalar_t>() {
    using acc = cpu::acc_t<scalar_t>;
    check_launch(
        cuda::pseudo_label_cross_entropy(
            pointer<scalar_t>(weak), pointer<scalar_t>(strong), threshold,
            gradient_pointer<scalar_t>(gradient), mutable_pointer<double>(workspace),
            mutable_pointer<acc>(loss), mutable_pointer<acc>(kept), N, C, V, current_stream(weak)),
        kName);
  });
  return {loss, kept, gradient};
}

Tensor pseudo_label_cross_entropy_backward_cuda(const Tensor& grad, const Tensor& gradient,
                                                const Tensor&) {
  return scaled_gradient_cuda(kName, grad, gradient, divisor(gradient));
}
#endif

}  // namespace
}  // namespace fastssl

STABLE_TORCH_LIBRARY_IMPL(fastssl, CPU, m) {
  m.impl("pseudo_label_cross_entropy", TORCH_BOX(&fastssl::pseudo_label_cross_entropy_cpu));
  m.impl("pseudo_label_cross_entropy_backward",
         TORCH_BOX(&fastssl::pseudo_label_cross_entropy_backward_cpu));
}
#ifdef FASTSSL_WITH_CUDA
STABLE_TORCH_LIBRARY_IMPL(fastssl, CUDA, m) {
  m.impl("pseudo_label_cross_entropy", TORCH_BOX(&fastssl::pseudo_label_cross_entropy_cuda));
  m.impl("pseudo_label_cross_entropy_backward",
         TORCH_BOX(&fastssl::pseudo_label_cross_entropy_backward_cuda));
}
#endif
