#include "../row_loss.h"

#include "numeric.cuh"
#include "reduce.cuh"

namespace fastssl::cuda {
namespace {

constexpr int kThreads = 256;

// By one warp, always in the same order.
template <class acc>
__global__ void __launch_bounds__(kWarp)
    average_partials_kernel(const double* __restrict__ workspace, int64_t blocks, double divisor,
                            acc* __restrict__ loss, acc* __restrict__ counted, int64_t N) {
  double sum = 0, rows = 0;
  for (int64_t b = threadIdx.x; b < blocks; b += kWarp) {
    sum += workspace[b];
    rows += workspace[kRowLossBlocks + b];
  }
  sum = warp_sum(sum);
  rows = warp_sum(rows);
  if (threadIdx.x != 0) return;
  *loss = acc(sum / divisor);
  if (counted != nullptr) *counted = acc(rows / double(N));
}

template <class scalar_t, class acc>
__global__ void __launch_bounds__(kThreads)
    scale_gradient_kernel(const acc* __restrict__ grad, double divisor,
                          const scalar_t* __restrict__ gradient, scalar_t* __restrict__ scaled,
                          int64_t count) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  store(scaled + i, load(gradient[i]) * acc(double(*grad) / divisor));
}

}  // namespace

template <class acc>
cudaError_t average_partials(const double* workspace, int64_t blocks, double divisor, acc* loss,
                             acc* counted, int64_t N, cudaStream_t stream) {
  return launch(average_partials_kernel<acc>, {dim3(1), dim3(kWarp), 0, stream}, workspace, blocks,
                divisor, loss, counted, N);
}

template <class scalar_t, class acc>
cudaError_t scale_gradient(const acc* grad, double divisor, const scalar_t* gradient,
                           scalar_t* scaled, int64_t count, cudaStream_t stream) {
  const Launch shape{dim3(unsigned(ceil_div(count, kThreads))), dim3(kThreads), 0, stream};
  return launch(scale_gradient_kernel<scalar_t, acc>, shape, grad, divisor, gradient, scaled,
                count);
}

template cudaError_t average_partials(const double*, int64_t, double, float*, float*, int64_t,
                                      cudaStream_t);
template cudaError_t average_partials(const double*, int64_t, double, double*, double*, int64_t,
                                      cudaStream_t);
#define FASTSSL_INSTANTIATE(scalar_t)                                                             \
  template cudaError_t scale_gradient(const acc_t<scalar_t>*, double, const scalar_t*, scalar_t*, \
                                      int64_t, cudaStream_t);
FASTSSL_INSTANTIATE(float)
FASTSSL_INSTANTIATE(double)
FASTSSL_INSTANTIATE(__half)
FASTSSL_INSTANTIATE(__nv_bfloat16)
#undef FASTSSL_INSTANTIATE

}  // namespace fastssl::cuda
