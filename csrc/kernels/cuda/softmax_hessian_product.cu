#include "../softmax_hessian_product.h"

#include "softmax.cuh"

namespace fastssl::cuda {
namespace {

constexpr int kRowsPerBlock = 4;

// A warp owns a row.
template <class scalar_t>
__global__ void __launch_bounds__(kRowsPerBlock* kWarp, 1)
    softmax_hessian_product_kernel(const scalar_t* __restrict__ logits,
                                   const scalar_t* __restrict__ tangent,
                                   scalar_t* __restrict__ product, int64_t N, int64_t C) {
  using acc = acc_t<scalar_t>;
  const int lane = threadIdx.x % kWarp;
  const int64_t n = int64_t(blockIdx.x) * kRowsPerBlock + threadIdx.x / kWarp;
  if (n >= N) return;  // whole warps
  const scalar_t* x = logits + n * C;
  const scalar_t* t = tangent + n * C;
  acc maximum, inverse;
  softmax_statistics(x, C, lane, maximum, inverse);
  acc shift = -std::numeric_limits<acc>::infinity();
  for (int64_t c = lane; c < C; c += kWarp) {
    if (load(x[c]) == maximum) shift = acc(fmax(shift, load(t[c])));
  }
  shift = warp_max(shift);
  acc dot = 0;
  for (int64_t c = lane; c < C; c += kWarp) {
    dot += exponential(load(x[c]) - maximum) * (load(t[c]) - shift);
  }
  dot = warp_sum(dot) * inverse;
  for (int64_t c = lane; c < C; c += kWarp) {
    store(product + n * C + c,
          exponential(load(x[c]) - maximum) * inverse * ((load(t[c]) - shift) - dot));
  }
}

}  // namespace

template <class scalar_t>
cudaError_t softmax_hessian_product(const scalar_t* logits, const scalar_t* tangent,
                                    scalar_t* product, int64_t N, int64_t C, cudaStream_t stream) {
  const Launch shape{dim3(unsigned(ceil_div(N, kRowsPerBlock))), dim3(kRowsPerBlock * kWarp), 0,
                     stream};
  return launch(softmax_hessian_product_kernel<scalar_t>, shape, logits, tangent, product, N, C);
}

#define FASTSSL_INSTANTIATE(scalar_t)                                                       \
  template cudaError_t softmax_hessian_product(const scalar_t*, const scalar_t*, scalar_t*, \
                                               int64_t, int64_t, cudaStream_t);
FASTSSL_INSTANTIATE(float)
FASTSSL_INSTANTIATE(double)
FASTSSL_INSTANTIATE(__half)
FASTSSL_INSTANTIATE(__nv_bfloat16)
#undef FASTSSL_INSTANTIATE

}  // namespace fastssl::cuda
