#include "../kernels/weighted_cross_entropy.h"

#include <algorithm>

#include "row_loss.h"

namespace fastssl {
namespace {

constexpr const char* kName = "weighted_cross_entropy";

RowsShape checked_shape(const Tensor& logits, const Tensor& targets, const Tensor& weights) {
  const RowsShape shape = rows_shape(kName, logits);
  FASTSSL_CHECK(targets.dim() == 1 && targets.size(0) == shape.N && weights.dim() == 1 &&
                    weights.size(0) == shape.N,
                kName, ": expected targets and weights [N]");
  FASTSSL_CHECK(targets.scalar_type() == ScalarType::Long, kName, ": expected targets int64");
  FASTSSL_CHECK(weights.scalar_type() == logits.scalar_type() ||
                    weights.scalar_type() == accumulator_dtype(logits),
                kName, ": expected weights in the logits' dtype or in that of accumulation");
  FASTSSL_CHECK(targets.device() == logits.device() && weights.device() == logits.device(), kName,
                ": inputs differ in device");
  return shape;
}

// Calls body.operator()<scalar_t, weight_t>().
template <class Types, class Body>
void dispatch(const Tensor& logits, const Tensor& weights, const Body& body) {
  dispatch_floats<Types>(logits, kName, [&]<class scalar_t>() {
    if (weights.scalar_type() == logits.scalar_type()) {
      body.template operator()<scalar_t, scalar_t>();
    } else {
      body.template operator()<scalar_t, cpu::acc_t<scalar_t>>();
    }
  });
}

std::tuple<Tensor, Tensor> weighted_cross_entropy_cpu(const Tensor& logits, const Tensor& targets,
                                                      const Tensor& weights, bool needs_gradient) {
  const auto [N, C] = checked_shape(logits, targets, weights);
  const Tensor x = as_contiguous(logits), y = as_contiguous(targets), w = as_contiguous(weights);
  const int64_t* classes = pointer<int64_t>(y);
  FASTSSL_CHECK(std::all_of(classes, classes + N,
                            [C = C](int64_t target) { return target >= 0 && target < C; }),
                kName, ": a target is not a class");
  Tensor loss = allocate_scalar(x), gradient = allocate_gradient(x, needs_gradient);
  dispatch<CpuTypes>(x, w, [&]<class scalar_t, class weight_t>() {
    using acc = cpu::acc_t<scalar_t>;
    cpu::weighted_cross_entropy(pointer<scalar_t>(x), classes, pointer<weight_t>(w),
                                gradient_pointer<scalar_t>(gradient), mutable_pointer<acc>(loss), N,
                                C);
  });
  return {loss, gradient};
}

Tensor weighted_cross_entropy_backward_cpu(const Tensor& grad, const Tensor& gradient,
                                           const Tensor&) {
  return scaled_gradient_cpu(kName, grad, gradient, gradient.size(0));
}

#ifdef FASTSSL_WITH_CUDA
std::tuple<Tensor, Tensor> weighted_cross_entropy_cuda(const Tensor& logits, const Tensor& targets,
                                                       const Tensor& weights, bool needs_gradient) {
  const auto [N, C] = checked_shape(logits, targets, weights);
  const aten::accelerator::DeviceGuard guard(logits.get_device_index());
  const Tensor x = as_contiguous(logits), y = as_contiguous(targets), w = as_contiguous(weights);
  Tensor loss = allocate_scalar(x), gradient = allocate_gradient(x, needs_gradient);
  Tensor workspace = allocate_workspace(x);
  dispatch<CudaTypes>(x, w, [&]<class scalar_t, class weight_t>() {
    using acc = cpu::acc_t<scalar_t>;
    check_launch(cuda::weighted_cross_entropy(
                     pointer<scalar_t>(x), pointer<int64_t>(y), pointer<weight_t>(w),
                     gradient_pointer<scalar_t>(gradient), mutable_pointer<double>(workspace),
                     mutable_pointer<acc>(loss), N, C, current_stream(x)),
                 kName);
  });
  return {loss, gradient};
}

Tensor weighted_cross_entropy_backward_cuda(const Tensor& grad, const Tensor& gradient,
                                            const Tensor&) {
  return scaled_gradient_cuda(kName, grad, gradient, gradient.size(0));
}
#endif

}  // namespace
}  // namespace fastssl

STABLE_TORCH_LIBRARY_IMPL(fastssl, CPU, m) {
  m.impl("weighted_cross_entropy", TORCH_BOX(&fastssl::weighted_cross_entropy_cpu));
  m.impl("weighted_cross_entropy_backward",
         TORCH_BOX(&fastssl::weighted_cross_entropy_backward_cpu));
}
#ifdef FASTSSL_WITH_CUDA
STABLE_TORCH_LIBRARY_IMPL(fastssl, CUDA, m) {
  m.impl("weighted_cross_entropy", TORCH_BOX(&fastssl::weighted_cross_entropy_cuda));
  m.impl("weighted_cross_entropy_backward",
         TORCH_BOX(&fastssl::weighted_cross_entropy_backward_cuda));
}
#endif
