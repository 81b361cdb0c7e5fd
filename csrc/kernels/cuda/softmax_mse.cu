#include "../softmax_mse.h"

#include "row_loss.cuh"

namespace fastssl::cuda {
namespace {

template <class scalar_t>
struct SoftmaxMse {
  using acc = acc_t<scalar_t>;

  const scalar_t* target_logits;  // [N, C]
  const scalar_t* logits;         // [N, C]
  scalar_t* gradient;             // [N, C] or null
  int64_t C;

  __device__ __forceinline__ void add(int64_t n, int lane, RowTotal& total) const {
    const SoftmaxRow<scalar_t> target(target_logits + n * C, C, lane), x(logits + n * C, C, lane);
    const acc ratio = target.inverse / x.inverse;
    acc squares = 0, mean = 0;
    for_columns(C, lane, [&](int64_t c) {
      const acc d = difference(x, target, ratio, c);
      squares += d * d;
      mean += x.p(c) * d;
    });
    total.sum += double(warp_sum(squares));
    if (gradient == nullptr) return;
    mean = warp_sum(mean);
    for_columns(C, lane, [&](int64_t c) {
      store(gradient + n * C + c, 2 * x.p(c) * (difference(x, target, ratio, c) - mean));
    });
  }
};

}  // namespace

template <class scalar_t, class acc>
cudaError_t softmax_mse(const scalar_t* target_logits, const scalar_t* logits, scalar_t* gradient,
                        double* workspace, acc* loss, int64_t N, int64_t C, cudaStream_t stream) {
  const SoftmaxMse<scalar_t> rows{target_logits, logits, gradient, C};
  return launch_row_loss(rows, N, double(N) * double(C), workspace, loss, stream);
}

#define FASTSSL_INSTANTIATE(scalar_t)                                                    \
  template cudaError_t softmax_mse(const scalar_t*, const scalar_t*, scalar_t*, double*, \
                                   acc_t<scalar_t>*, int64_t, int64_t, cudaStream_t);
FASTSSL_INSTANTIATE(float)
FASTSSL_INSTANTIATE(double)
FASTSSL_INSTANTIATE(__half)
FASTSSL_INSTANTIATE(__nv_bfloat16)
#undef FASTSSL_INSTANTIATE

}  // namespace fastssl::cuda
