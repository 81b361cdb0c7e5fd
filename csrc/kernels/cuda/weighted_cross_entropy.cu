#include "../weighted_cross_entropy.h"

#include "cross_entropy.cuh"

namespace fastssl::cuda {
namespace {

template <class scalar_t, class weight_t>
struct WeightedCrossEntropy {
  using acc = acc_t<scalar_t>;

  const scalar_t* logits;   // [N, C]
  const int64_t* targets;   // [N]
  const weight_t* weights;  // [N]
  scalar_t* gradient;       // [N, C] or null
  int64_t C;

  __device__ __forceinline__ void add(int64_t n, int lane, RowTotal& total) const {
    const int64_t target = targets[n];
    const acc weight = load(weights[n]);
    scalar_t* of_row = gradient == nullptr ? nullptr : gradient + n * C;
    if (target < 0 || target >= C) {
      constexpr acc kNaN = std::numeric_limits<acc>::quiet_NaN();
      total.sum += kNaN;
      fill_row(of_row, kNaN, C, lane);
    } else if (weight == 0) {
      fill_row(of_row, acc(0), C, lane);
    } else {
      total.sum += double(weight) *
                   double(cross_entropy_row(logits + n * C, target, weight, of_row, C, lane));
    }
  }
};

}  // namespace

template <class scalar_t, class weight_t, class acc>
cudaError_t weighted_cross_entropy(const scalar_t* logits, const int64_t* targets,
                                   const weight_t* weights, scalar_t* gradient, double* workspace,
                                   acc* loss, int64_t N, int64_t C, cudaStream_t stream) {
  const WeightedCrossEntropy<scalar_t, weight_t> rows{logits, targets, weights, gradient, C};
  return launch_row_loss(rows, N, double(N), workspace, loss, stream);
}

#define FASTSSL_INSTANTIATE(scalar_t, weight_t)                                                 \
  template cudaError_t weighted_cross_entropy(const scalar_t*, const int64_t*, const weight_t*, \
                                              scalar_t*, double*, acc_t<scalar_t>*, int64_t,    \
                                              int64_t, cudaStream_t);
FASTSSL_INSTANTIATE(float, float)
FASTSSL_INSTANTIATE(double, double)
FASTSSL_INSTANTIATE(__half, __half)
FASTSSL_INSTANTIATE(__half, float)
FASTSSL_INSTANTIATE(__nv_bfloat16, __nv_bfloat16)
FASTSSL_INSTANTIATE(__nv_bfloat16, float)
#undef FASTSSL_INSTANTIATE

}  // namespace fastssl::cuda
