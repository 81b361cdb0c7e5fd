#include "../unit_perturbation.h"

#include "numeric.cuh"
#include "reduce.cuh"

namespace fastssl::cuda {
namespace {

constexpr int kThreads = 256;

// A block owns a sample.
template <class scalar_t>
__global__ void __launch_bounds__(kThreads)
    unit_perturbation_kernel(const scalar_t* __restrict__ direction, acc_t<scalar_t> radius,
                             scalar_t* __restrict__ perturbation, int64_t D) {
  using acc = acc_t<scalar_t>;
  const scalar_t* sample = direction + int64_t(blockIdx.x) * D;
  acc largest = 0;
  for (int64_t d = threadIdx.x; d < D; d += kThreads) {
    largest = acc(fmax(largest, fabs(load(sample[d]))));
  }
  const acc scale = scale_before_squaring(block_max<kThreads>(largest));
  acc squares = 0;
  for (int64_t d = threadIdx.x; d < D; d += kThreads) {
    const acc x = load(sample[d]) * scale;
    squares += x * x;
  }
  const acc factor = scale_to_radius(acc(sqrt(block_sum<kThreads>(squares))), radius);
  for (int64_t d = threadIdx.x; d < D; d += kThreads) {
    store(perturbation + int64_t(blockIdx.x) * D + d, load(sample[d]) * scale * factor);
  }
}

}  // namespace

template <class scalar_t, class acc>
cudaError_t unit_perturbation(const scalar_t* direction, acc radius, scalar_t* perturbation,
                              int64_t N, int64_t D, cudaStream_t stream) {
  const Launch shape{dim3(unsigned(N)), dim3(kThreads), 0, stream};
  return launch(unit_perturbation_kernel<scalar_t>, shape, direction, radius, perturbation, D);
}

#define FASTSSL_INSTANTIATE(scalar_t)                                                          \
  template cudaError_t unit_perturbation(const scalar_t*, acc_t<scalar_t>, scalar_t*, int64_t, \
                                         int64_t, cudaStream_t);
FASTSSL_INSTANTIATE(float)
FASTSSL_INSTANTIATE(double)
FASTSSL_INSTANTIATE(__half)
FASTSSL_INSTANTIATE(__nv_bfloat16)
#undef FASTSSL_INSTANTIATE

}  // namespace fastssl::cuda
