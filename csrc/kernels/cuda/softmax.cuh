// Rows of softmax inside other kernels, a warp to a row.
#pragma once

#include "numeric.cuh"
#include "reduce.cuh"

namespace fastssl::cuda {

// Maximum and sum of exponentials of the logits that a lane has met.
template <class acc>
struct RunningSoftmax {
  static constexpr acc kNever = -std::numeric_limits<acc>::infinity();
  acc maximum = kNever, total = 0;

  template <int kCount>
  __device__ __forceinline__ void add(const acc (&x)[kCount]) {
    acc largest = maximum;
#pragma unroll
    for (int k = 0; k < kCount; ++k) largest = x[k] > largest ? x[k] : largest;
    if (largest > maximum) {
      total *= exponential(maximum - largest);
      maximum = largest;
    }
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
      if (x[k] != kNever) total += exponential(x[k] - maximum);  // -inf - -inf would be NaN
    }
  }
};

// Maximum and inverse sum of exponentials of a row, in one pass over the logits; every lane gets
// both.
template <class scalar_t, class acc>
__device__ __forceinline__ void softmax_statistics(const scalar_t* __restrict__ row, int64_t C,
                                                   int lane, acc& maximum, acc& inverse) {
  RunningSoftmax<acc> own;
  if (rows_fit_16_bytes(row, C)) {
    constexpr int kWidth = kPer16Bytes<scalar_t>;
    for (int64_t c = lane * kWidth; c < C; c += kWarp * kWidth) {
      acc x[kWidth];
      load16(row + c, x);
      own.add(x);
    }
  } else {
    for (int64_t c = lane; c < C; c += kWarp) {
      const acc x[] = {load(row[c])};
      own.add(x);
    }
  }
  maximum = warp_max(own.maximum);
  // A lane that met no finite logit has maximum -inf, and adds 0.
  inverse = acc(1) / warp_sum(own.total * exponential(own.maximum - maximum));
}

}  // namespace fastssl::cuda
