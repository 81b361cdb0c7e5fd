#include "../kernels/unit_perturbation.h"

#include "../torch_api.h"
#include "channels_last.h"

namespace fastssl {
namespace {

constexpr const char* kName = "unit_perturbation";

// The direction as N dense samples; in what order they hold their numbers, a norm does not care.
Tensor dense_samples(const Tensor& direction) {
  FASTSSL_CHECK(direction.dim() > 0 && direction.numel() > 0, kName,
                ": expected a direction [N, ...], not empty");
  return is_channels_last(direction) ? direction : aten::contiguous(direction);
}

Tensor unit_perturbation_cpu(const Tensor& direction, double radius) {
  const Tensor samples = dense_samples(direction);
  Tensor perturbation = aten::empty_like(samples);
  const int64_t N = samples.size(0), D = samples.numel() / N;
  dispatch_floats<CpuTypes>(samples, kName, [&]<class scalar_t>() {
    cpu::unit_perturbation(pointer<scalar_t>(samples), cpu::acc_t<scalar_t>(radius),
                           mutable_pointer<scalar_t>(perturbation), N, D);
  });
  return perturbation;
}

#ifdef FASTSSL_WITH_CUDA
Tensor unit_perturbation_cuda(const Tensor& direction, double radius) {
  const aten::accelerator::DeviceGuard guard(direction.get_device_index());
  const Tensor samples = dense_samples(direction);
  Tensor perturbation = aten::empty_like(samples);
  const int64_t N = samples.size(0), D = samples.numel() / N;
  dispatch_floats<CudaTypes>(samples, kName, [&]<class scalar_t>() {
    check_launch(cuda::unit_perturbation(pointer<scalar_t>(samples), cpu::acc_t<scalar_t>(radius),
                                         mutable_pointer<scalar_t>(perturbation), N, D,
                                         current_stream(samples)),
                 kName);
  });
  return perturbation;
}
#endif

}  // namespace
}  // namespace fastssl

STABLE_TORCH_LIBRARY_IMPL(fastssl, CPU, m) {
  m.impl("unit_perturbation", TORCH_BOX(&fastssl::unit_perturbation_cpu));
}
#ifdef FASTSSL_WITH_CUDA
STABLE_TORCH_LIBRARY_IMPL(fastssl, CUDA, m) {
  m.impl("unit_perturbation", TORCH_BOX(&fastssl::unit_perturbation_cuda));
}
#endif
