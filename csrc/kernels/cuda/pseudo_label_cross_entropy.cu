#include "../pseudo_label_cross_entropy.h"

#include "cross_entropy.cuh"

namespace fastssl::cuda {
namespace {

template <class scalar_t>
struct PseudoLabelCrossEntropy {
  using acc = acc_t<scalar_t>;

  const scalar_t* weak_logits;    // [N, C]
  const scalar_t* strong_logits;  // [V, N, C]
  acc threshold;
  scalar_t* gradient;  // [V, N, C] or null
  int64_t N, C, V;

  __device__ __forceinline__ void add(int64_t n, int lane, RowTotal& total) const {
    const SoftmaxRow<scalar_t> weak(weak_logits + n * C, C, lane);
    const bool kept = weak.inverse >= threshold;  // the largest probability; false if it is NaN
    int64_t label = C;
    if (kept) {
      total.counted += 1;
      for_columns(C, lane, [&](int64_t c) {
        if (c < label && weak.z(c) == 0) label = c;
      });
      label = -warp_max(-label);
    }
    for (int64_t row = n; row < V * N; row += N) {
      scalar_t* of_row = gradient == nullptr ? nullptr : gradient + row * C;
      if (kept) {
        total.sum += cross_entropy_row(strong_logits + row * C, label, acc(1), of_row, C, lane);
      } else {
        fill_row(of_row, acc(0), C, lane);
      }
    }
  }
};

}  // namespace

template <class scalar_t, class acc>
cudaError_t pseudo_label_cross_entropy(const scalar_t* weak_logits, const scalar_t* strong_logits,
                                       double threshold, scalar_t* gradient, double* workspace,
                                       acc* loss, acc* kept, int64_t N, int64_t C, int64_t V,
                                       cudaStream_t stream) {
  const PseudoLabelCrossEntropy<scalar_t> rows{
      weak_logits, strong_logits, acc(threshold), gradient, N, C, V};
  return launch_row_loss(rows, N, double(V) * double(N), workspace, loss, stream, kept);
}

#define FASTSSL_INSTANTIATE(scalar_t)                                                 \
  template cudaError_t pseudo_label_cross_entropy(                                    \
      const scalar_t*, const scalar_t*, double, scalar_t*, double*, acc_t<scalar_t>*, \
      acc_t<scalar_t>*, int64_t, int64_t, int64_t, cudaStream_t);
FASTSSL_INSTANTIATE(float)
FASTSSL_INSTANTIATE(double)
FASTSSL_INSTANTIATE(__half)
FASTSSL_INSTANTIATE(__nv_bfloat16)
#undef FASTSSL_INSTANTIATE

}  // namespace fastssl::cuda
