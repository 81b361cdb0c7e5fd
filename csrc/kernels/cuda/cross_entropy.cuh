// What the cross entropies of rows against a class share.
#pragma once

#include "row_loss.cuh"

namespace fastssl::cuda {

// -ln p_target, and unless `gradient` is null gradient[C] = weight * (p - e_target).
template <class scalar_t>
__device__ __forceinline__ acc_t<scalar_t> cross_entropy_row(const scalar_t* row, int64_t target,
                                                             acc_t<scalar_t> weight,
                                                             scalar_t* gradient, int64_t C,
                                                             int lane) {
  using acc = acc_t<scalar_t>;
  const SoftmaxRow<scalar_t> logits(row, C, lane);
  if (gradient != nullptr) {
    for_columns(C, lane,
                [&](int64_t c) { store(gradient + c, (logits.p(c) - acc(c == target)) * weight); });
  }
  return -log_clamped(logits.inverse) - logits.z(target);
}

// gradient[C] = value, unless it is null.
template <class scalar_t>
__device__ __forceinline__ void fill_row(scalar_t* gradient, acc_t<scalar_t> value, int64_t C,
                                         int lane) {
  if (gradient == nullptr) return;
  for_columns(C, lane, [&](int64_t c) { store(gradient + c, value); });
}

}  // namespace fastssl::cuda
