// The tensors of losses that are means over rows of logits.
#pragma once

#include "../kernels/row_loss.h"
#include "../torch_api.h"

namespace fastssl {

// N rows of C classes.
struct RowsShape {
  int64_t N, C;
};

inline RowsShape rows_shape(const char* op, const Tensor& logits) {
  FASTSSL_CHECK(logits.dim() == 2 && logits.numel() > 0, op, ": expected logits [N, C], not empty");
  return {logits.size(0), logits.size(1)};
}

// Of logits beside target logits of the same rows.
inline RowsShape targeted_rows_shape(const char* op, const Tensor& target_logits,
                                     const Tensor& logits) {
  const RowsShape shape = rows_shape(op, logits);
  FASTSSL_CHECK(target_logits.dim() == 2 && target_logits.size(0) == shape.N &&
                    target_logits.size(1) == shape.C,
                op, ": expected target_logits and logits [N, C]");
  FASTSSL_CHECK(target_logits.scalar_type() == logits.scalar_type() &&
                    target_logits.device() == logits.device(),
                op, ": target_logits and logits differ in dtype or device");
  return shape;
}

// An uninitialised scalar of the accumulation dtype.
inline Tensor allocate_scalar(const Tensor& logits) {
  return allocate(logits, {}, accumulator_dtype(logits));
}

// Uninitialised, of the logits' shape; empty if it is not needed.
inline Tensor allocate_gradient(const Tensor& logits, bool needed) {
  return needed ? allocate_like(logits) : allocate(logits, {0});
}

// What a kernel takes: null for a gradient that is not needed.
template <class scalar_t>
scalar_t* gradient_pointer(Tensor& gradient) {
  return gradient.numel() == 0 ? nullptr : mutable_pointer<scalar_t>(gradient);
}

inline void check_gradient(const char* op, const Tensor& grad, const Tensor& gradient) {
  FASTSSL_CHECK(gradient.numel() > 0 && gradient.is_contiguous(), op,
                ": the forward call was not told that it needs a gradient");
  FASTSSL_CHECK(grad.numel() == 1 && grad.scalar_type() == accumulator_dtype(gradient) &&
                    grad.device() == gradient.device(),
                op, ": expected a scalar gradient in the accumulation dtype");
}

// The gradient of a mean over `divisor` times grad, from that of the sum.
inline Tensor scaled_gradient_cpu(const char* op, const Tensor& grad, const Tensor& gradient,
                                  int64_t divisor) {
  check_gradient(op, grad, gradient);
  Tensor scaled = allocate_like(gradient);
  dispatch_floats<CpuTypes>(gradient, op, [&]<class scalar_t>() {
    using acc = cpu::acc_t<scalar_t>;
    cpu::scale_gradient(*pointer<acc>(grad), double(divisor), pointer<scalar_t>(gradient),
                        mutable_pointer<scalar_t>(scaled), gradient.numel());
  });
  return scaled;
}

#ifdef FASTSSL_WITH_CUDA
inline Tensor allocate_workspace(const Tensor& logits) {
  return allocate(logits, {cuda::kRowLossWorkspace}, ScalarType::Double);
}

inline Tensor scaled_gradient_cuda(const char* op, const Tensor& grad, const Tensor& gradient,
                                   int64_t divisor) {
  check_gradient(op, grad, gradient);
  const aten::accelerator::DeviceGuard guard(gradient.get_device_index());
  Tensor scaled = allocate_like(gradient);
  dispatch_floats<CudaTypes>(gradient, op, [&]<class scalar_t>() {
    using acc = cpu::acc_t<scalar_t>;
    check_launch(cuda::scale_gradient(
                     pointer<acc>(grad), double(divisor), pointer<scalar_t>(gradient),
                     mutable_pointer<scalar_t>(scaled), gradient.numel(), current_stream(gradient)),
                 op);
  });
  return scaled;
}
#endif

}  // namespace fastssl
