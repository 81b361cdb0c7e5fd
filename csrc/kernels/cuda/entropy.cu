#include "../entropy.h"

#include "row_loss.cuh"

namespace fastssl::cuda {
namespace {

template <class scalar_t>
struct Entropy {
  using acc = acc_t<scalar_t>;

  const scalar_t* logits;  // [N, C]
  scalar_t* gradient;      // [N, C] or null
  int64_t C;

  __device__ __forceinline__ void add(int64_t n, int lane, RowTotal& total) const {
    const SoftmaxRow<scalar_t> x(logits + n * C, C, lane);
    acc mean = 0;
    for_columns(C, lane, [&](int64_t c) { mean += weighted(x.p(c), x.z(c)); });
    mean = warp_sum(mean);
    total.sum += double(-log_clamped(x.inverse)) - double(mean);
    if (gradient == nullptr) return;
    for_columns(C, lane,
                [&](int64_t c) { store(gradient + n * C + c, weighted(x.p(c), mean - x.z(c))); });
  }
};

}  // namespace

template <class scalar_t, class acc>
cudaError_t entropy(const scalar_t* logits, scalar_t* gradient, double* workspace, acc* loss,
                    int64_t N, int64_t C, cudaStream_t stream) {
  const Entropy<scalar_t> rows{logits, gradient, C};
  return launch_row_loss(rows, N, double(N), workspace, loss, stream);
}

#define FASTSSL_INSTANTIATE(scalar_t)                                                          \
  template cudaError_t entropy(const scalar_t*, scalar_t*, double*, acc_t<scalar_t>*, int64_t, \
                               int64_t, cudaStream_t);
FASTSSL_INSTANTIATE(float)
FASTSSL_INSTANTIATE(double)
FASTSSL_INSTANTIATE(__half)
FASTSSL_INSTANTIATE(__nv_bfloat16)
#undef FASTSSL_INSTANTIATE

}  // namespace fastssl::cuda
