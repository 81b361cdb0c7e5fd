// Rows of softmax inside other kernels, a warp to a row.
#pragma once

#include "numeric.cuh"
#include "reduce.cuh"

namespace fastssl::cuda {

// The largest logit of a row and one over the sum of exponentials, in one pass over the logits;
// every lane gets both.
template <class scalar_t, class acc>
__device__ __forceinline__ void softmax_statistics(const scalar_t* __restrict__ row, int64_t C,
                                                   int lane, acc& maximum, acc& inverse) {
  constexpr acc kNever = -std::numeric_limits<acc>::infinity();
  maximum = kNever;
  acc total = 0;
  for (int64_t c = lane; c < C; c += kWarp) {
    const acc x = load(row[c]);
    if (x > maximum) {
      total = total * exponential(maximum - x) + acc(1);
      maximum = x;
    } else if (x != kNever) {
      total += exponential(x - maximum);
    }
  }
  const acc largest = warp_max(maximum);
  // A lane that met no finite logit has maximum -inf and total 0.
  total = warp_sum(total == acc(0) ? acc(0) : total * exponential(maximum - largest));
  maximum = largest;
  inverse = acc(1) / total;
}

}  // namespace fastssl::cuda
