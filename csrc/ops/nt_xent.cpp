#include "../kernels/nt_xent.h"

#include "../torch_api.h"

namespace fastssl {
namespace {

constexpr const char* kName = "nt_xent";

struct PairedFeatures {
  Tensor a, b;  // [N, D], contiguous
  int64_t N, D;
};

PairedFeatures paired_features(const Tensor& features_a, const Tensor& features_b,
                               double temperature) {
  FASTSSL_CHECK(features_a.dim() == 2 && features_b.dim() == 2 &&
                    features_a.size(0) == features_b.size(0) &&
                    features_a.size(1) == features_b.size(1) && features_a.numel() > 0,
                kName, ": expected features_a and features_b [N, D], not empty");
  FASTSSL_CHECK(features_a.scalar_type() == features_b.scalar_type() &&
                    features_a.device() == features_b.device(),
                kName, ": features_a and features_b differ in dtype or device");
  FASTSSL_CHECK(temperature > 0, kName, ": expected a temperature above 0");
  return {as_contiguous(features_a), as_contiguous(features_b), features_a.size(0),
          features_a.size(1)};
}

void check_backward(const PairedFeatures& features, const Tensor& grad, const Tensor& log_sums) {
  const ScalarType dtype = accumulator_dtype(features.a);
  FASTSSL_CHECK(
      grad.numel() == 1 && grad.scalar_type() == dtype && grad.device() == features.a.device(),
      kName, "_backward: expected a scalar gradient in the accumulation dtype");
  FASTSSL_CHECK(log_sums.numel() == 2 * features.N && log_sums.is_contiguous() &&
                    log_sums.scalar_type() == dtype && log_sums.device() == features.a.device(),
                kName, "_backward: expected the log_sums [2N] of the forward call");
}

template <class T>
T* pointer_or_null(Tensor* tensor) {
  return tensor != nullptr ? mutable_pointer<T>(*tensor) : nullptr;
}

struct Cpu {
  static void contrast(const PairedFeatures& features, double temperature, Tensor& loss,
                       Tensor& log_sums) {
    dispatch_floats<CpuTypes>(features.a, kName, [&]<class scalar_t>() {
      using acc = cpu::acc_t<scalar_t>;
      cpu::nt_xent(pointer<scalar_t>(features.a), pointer<scalar_t>(features.b), temperature,
                   mutable_pointer<acc>(loss), mutable_pointer<acc>(log_sums), features.N,
                   features.D);
    });
  }

  static void differentiate(const PairedFeatures& features, double temperature, const Tensor& grad,
                            const Tensor& log_sums, Tensor* grad_a, Tensor* grad_b) {
    dispatch_floats<CpuTypes>(features.a, kName, [&]<class scalar_t>() {
      using acc = cpu::acc_t<scalar_t>;
      cpu::nt_xent_backward(*pointer<acc>(grad), pointer<acc>(log_sums),
                            pointer<scalar_t>(features.a), pointer<scalar_t>(features.b),
                            temperature, pointer_or_null<scalar_t>(grad_a),
                            pointer_or_null<scalar_t>(grad_b), features.N, features.D);
    });
  }
};

#ifdef FASTSSL_WITH_CUDA
struct Cuda {
  static void contrast(const PairedFeatures& features, double temperature, Tensor& loss,
                       Tensor& log_sums) {
    const aten::accelerator::DeviceGuard guard(loss.get_device_index());
    const int64_t N = features.N, D = features.D, M = 2 * N;
    Tensor unit = allocate(loss, {M, D}), lengths = allocate(loss, {M}),
           partials = allocate(loss, {cuda::contrast_tiles(N), M}), positives = allocate(loss, {M});
    dispatch_floats<CudaTypes>(features.a, kName, [&]<class scalar_t>() {
      using acc = cpu::acc_t<scalar_t>;
      check_launch(cuda::nt_xent(pointer<scalar_t>(features.a), pointer<scalar_t>(features.b),
                                 acc(temperature), mutable_pointer<acc>(unit),
                                 mutable_pointer<acc>(lengths), mutable_pointer<acc>(partials),
                                 mutable_pointer<acc>(positives), mutable_pointer<acc>(loss),
                                 mutable_pointer<acc>(log_sums), N, D, current_stream(loss)),
                   kName);
    });
  }

  static void differentiate(const PairedFeatures& features, double temperature, const Tensor& grad,
                            const Tensor& log_sums, Tensor* grad_a, Tensor* grad_b) {
    const int64_t N = features.N, D = features.D, M = 2 * N;
    const int64_t rows = N * ((grad_a != nullptr) + (grad_b != nullptr));
    if (rows == 0) return;
    const aten::accelerator::DeviceGuard guard(grad.get_device_index());
    Tensor unit = allocate(log_sums, {M, D}), lengths = allocate(log_sums, {M}),
           sums = allocate(log_sums, {cuda::contrast_groups(N), rows, D});
    dispatch_floats<CudaTypes>(features.a, kName, [&]<class scalar_t>() {
      using acc = cpu::acc_t<scalar_t>;
      check_launch(cuda::nt_xent_backward(
                       pointer<acc>(grad), pointer<acc>(log_sums), pointer<scalar_t>(features.a),
                       pointer<scalar_t>(features.b), acc(temperature), mutable_pointer<acc>(unit),
                       mutable_pointer<acc>(lengths), mutable_pointer<acc>(sums),
                       pointer_or_null<scalar_t>(grad_a), pointer_or_null<scalar_t>(grad_b), N, D,
                       current_stream(grad)),
                   kName);
    });
  }
};
#endif

template <class Device>
std::tuple<Tensor, Tensor> nt_xent(const Tensor& features_a, const Tensor& features_b,
                                   double temperature) {
  const PairedFeatures features = paired_features(features_a, features_b, temperature);
  const ScalarType dtype = accumulator_dtype(features.a);
  Tensor loss = allocate(features.a, {}, dtype),
         log_sums = allocate(features.a, {2 * features.N}, dtype);
  Device::contrast(features, temperature, loss, log_sums);
  return {loss, log_sums};
}

template <class Device>
std::tuple<Tensor, Tensor> nt_xent_backward(const Tensor& grad, const Tensor& log_sums,
                                            const Tensor& features_a, const Tensor& features_b,
                                            double temperature, bool needs_a, bool needs_b) {
  const PairedFeatures features = paired_features(features_a, features_b, temperature);
  check_backward(features, grad, log_sums);
  Tensor grad_a = needs_a ? allocate_like(features.a) : allocate(features.a, {0}),
         grad_b = needs_b ? allocate_like(features.b) : allocate(features.b, {0});
  Device::differentiate(features, temperature, grad, log_sums, needs_a ? &grad_a : nullptr,
                        needs_b ? &grad_b : nullptr);
  return {grad_a, grad_b};
}

}  // namespace
}  // namespace fastssl

STABLE_TORCH_LIBRARY_IMPL(fastssl, CPU, m) {
  m.impl("nt_xent", TORCH_BOX(&fastssl::nt_xent<fastssl::Cpu>));
  m.impl("nt_xent_backward", TORCH_BOX(&fastssl::nt_xent_backward<fastssl::Cpu>));
}
#ifdef FASTSSL_WITH_CUDA
STABLE_TORCH_LIBRARY_IMPL(fastssl, CUDA, m) {
  m.impl("nt_xent", TORCH_BOX(&fastssl::nt_xent<fastssl::Cuda>));
  m.impl("nt_xent_backward", TORCH_BOX(&fastssl::nt_xent_backward<fastssl::Cuda>));
}
#endif
