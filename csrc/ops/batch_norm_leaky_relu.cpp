#include "../kernels/batch_norm_leaky_relu.h"

#include <limits>

#include "../torch_api.h"
#include "channels_last.h"

namespace fastssl {
namespace {

constexpr const char* kName = "batch_norm_leaky_relu";

NormShape check_maps(const Tensor& maps, int64_t pool) {
  FASTSSL_CHECK(is_channels_last(maps) && maps.numel() > 0, kName,
                ": expected maps [N, K, H, W] in channels_last order, not empty");
  FASTSSL_CHECK(pool == 1 || pool == 2, kName, ": expected pool 1 or 2");
  FASTSSL_CHECK(maps.size(2) >= pool && maps.size(3) >= pool, kName,
                ": expected maps of at least pool x pool pixels");
  const NormShape shape{maps.size(0), maps.size(1), maps.size(2), maps.size(3), pool};
  FASTSSL_CHECK(shape.strips() <= std::numeric_limits<int32_t>::max(), kName,
                ": expected N times H below 2^31");
  return shape;
}

void check_channels(const Tensor& maps, const Tensor& channels) {
  FASTSSL_CHECK(channels.dim() == 1 && channels.size(0) == maps.size(1) &&
                    channels.is_contiguous() && channels.scalar_type() == accumulator_dtype(maps) &&
                    channels.device() == maps.device(),
                kName,
                ": expected dense weight, bias, mean and variance [K] of the dtype that "
                "maps accumulate in");
}

void check_gradient(const Tensor& grad, const Tensor& maps, const NormShape& shape) {
  FASTSSL_CHECK(is_channels_last(grad) && grad.scalar_type() == maps.scalar_type() &&
                    grad.device() == maps.device() && grad.size(0) == shape.N &&
                    grad.size(1) == shape.K && grad.size(2) == shape.out_height() &&
                    grad.size(3) == shape.out_width(),
                kName, ": expected a gradient like the output");
}

Tensor allocate_maps(const Tensor& like, const NormShape& shape, int64_t H, int64_t W) {
  const int64_t K = shape.K;
  return allocate_strided(like, {shape.N, K, H, W}, {H * W * K, 1, W * K, K});
}

Tensor allocate_channels(const Tensor& maps) {
  return allocate(maps, {maps.size(1)}, accumulator_dtype(maps));
}

template <class acc>
NormChannels<acc> channels_of(const Tensor& weight, const Tensor& bias, const Tensor& mean,
                              const Tensor& variance) {
  return {pointer<acc>(weight), pointer<acc>(bias), pointer<acc>(mean), pointer<acc>(variance)};
}

std::tuple<Tensor, Tensor, Tensor> batch_norm_leaky_relu_cpu(const Tensor& maps,
                                                             const Tensor& weight,
                                                             const Tensor& bias, double eps,
                                                             double negative_slope, int64_t pool) {
  const NormShape shape = check_maps(maps, pool);
  check_channels(maps, weight);
  check_channels(maps, bias);
  Tensor output = allocate_maps(maps, shape, shape.out_height(), shape.out_width());
  Tensor mean = allocate_channels(maps), variance = allocate_channels(maps);
  dispatch_floats<CpuTypes>(maps, kName, [&]<class scalar_t>() {
    using acc = cpu::acc_t<scalar_t>;
    const scalar_t* x = pointer<scalar_t>(maps);
    cpu::batch_moments(x, mutable_pointer<acc>(mean), mutable_pointer<acc>(variance), shape);
    cpu::batch_norm_leaky_relu(x, channels_of<acc>(weight, bias, mean, variance), eps,
                               acc(negative_slope), mutable_pointer<scalar_t>(output), shape);
  });
  return {output, mean, variance};
}

std::tuple<Tensor, Tensor, Tensor> batch_norm_leaky_relu_backward_cpu(
    const Tensor& grad, const Tensor& maps, const Tensor& weight, const Tensor& bias,
    const Tensor& mean, const Tensor& variance, double eps, double negative_slope, int64_t pool) {
  const NormShape shape = check_maps(maps, pool);
  check_gradient(grad, maps, shape);
  for (const Tensor* channels : {&weight, &bias, &mean, &variance}) check_channels(maps, *channels);
  Tensor grad_maps = allocate_maps(maps, shape, shape.H, shape.W);
  Tensor grad_weight = allocate_channels(maps), grad_bias = allocate_channels(maps);
  dispatch_floats<CpuTypes>(maps, kName, [&]<class scalar_t>() {
    using acc = cpu::acc_t<scalar_t>;
    cpu::batch_norm_leaky_relu_backward(pointer<scalar_t>(grad), pointer<scalar_t>(maps),
                                        channels_of<acc>(weight, bias, mean, variance), eps,
                                        acc(negative_slope), mutable_pointer<scalar_t>(grad_maps),
                                        mutable_pointer<acc>(grad_weight),
                                        mutable_pointer<acc>(grad_bias), shape);
  });
  return {grad_maps, grad_weight, grad_bias};
}

#ifdef FASTSSL_WITH_CUDA
Tensor allocate_workspace(const Tensor& maps, const NormShape& shape) {
  return allocate(maps, {cuda::batch_norm_workspace(shape)}, ScalarType::Double);
}

std::tuple<Tensor, Tensor, Tensor> batch_norm_leaky_relu_cuda(const Tensor& maps,
                                                              const Tensor& weight,
                                                              const Tensor& bias, double eps,
                                                              double negative_slope, int64_t pool) {
  const NormShape shape = check_maps(maps, pool);
  check_channels(maps, weight);
  check_channels(maps, bias);
  const aten::accelerator::DeviceGuard guard(maps.get_device_index());
  Tensor output = allocate_maps(maps, shape, shape.out_height(), shape.out_width());
  Tensor mean = allocate_channels(maps), variance = allocate_channels(maps);
  Tensor workspace = allocate_workspace(maps, shape);
  dispatch_floats<CudaTypes>(maps, kName, [&]<class scalar_t>() {
    using acc = cpu::acc_t<scalar_t>;
    const scalar_t* x = pointer<scalar_t>(maps);
    const cudaStream_t stream = current_stream(maps);
    check_launch(
        cuda::batch_moments(x, mutable_pointer<double>(workspace), mutable_pointer<acc>(mean),
                            mutable_pointer<acc>(variance), shape, stream),
        kName);
    check_launch(cuda::batch_norm_leaky_relu(x, channels_of<acc>(weight, bias, mean, variance), eps,
                                             acc(negative_slope), mutable_pointer<scalar_t>(output),
                                             shape, stream),
                 kName);
  });
  return {output, mean, variance};
}

std::tuple<Tensor, Tensor, Tensor> batch_norm_leaky_relu_backward_cuda(
    const Tensor& grad, const Tensor& maps, const Tensor& weight, const Tensor& bias,
    const Tensor& mean, const Tensor& variance, double eps, double negative_slope, int64_t pool) {
  const NormShape shape = check_maps(maps, pool);
  check_gradient(grad, maps, shape);
  for (const Tensor* channels : {&weight, &bias, &mean, &variance}) check_channels(maps, *channels);
  const aten::accelerator::DeviceGuard guard(maps.get_device_index());
  Tensor grad_maps = allocate_maps(maps, shape, shape.H, shape.W);
  Tensor grad_weight = allocate_channels(maps), grad_bias = allocate_channels(maps);
  Tensor workspace = allocate_workspace(maps, shape);
  dispatch_floats<CudaTypes>(maps, kName, [&]<class scalar_t>() {
    using acc = cpu::acc_t<scalar_t>;
    check_launch(cuda::batch_norm_leaky_relu_backward(
                     pointer<scalar_t>(grad), pointer<scalar_t>(maps),
                     channels_of<acc>(weight, bias, mean, variance), eps, acc(negative_slope),
                     mutable_pointer<double>(workspace), mutable_pointer<scalar_t>(grad_maps),
                     mutable_pointer<acc>(grad_weight), mutable_pointer<acc>(grad_bias), shape,
                     current_stream(maps)),
                 kName);
  });
  return {grad_maps, grad_weight, grad_bias};
}
#endif

}  // namespace
}  // namespace fastssl

STABLE_TORCH_LIBRARY_IMPL(fastssl, CPU, m) {
  m.impl("batch_norm_leaky_relu", TORCH_BOX(&fastssl::batch_norm_leaky_relu_cpu));
  m.impl("batch_norm_leaky_relu_backward", TORCH_BOX(&fastssl::batch_norm_leaky_relu_backward_cpu));
}
#ifdef FASTSSL_WITH_CUDA
STABLE_TORCH_LIBRARY_IMPL(fastssl, CUDA, m) {
  m.impl("batch_norm_leaky_relu", TORCH_BOX(&fastssl::batch_norm_leaky_relu_cuda));
  m.impl("batch_norm_leaky_relu_backward",
         TORCH_BOX(&fastssl::batch_norm_leaky_relu_backward_cuda));
}
#endif
