// What the cross entropies of rows against a class share.
#pragma once

#include "row_loss.h"

namespace fastssl::cpu {

// gradient[C] = weight * (p - e_target), that of -weight ln p_target, for the row of `logits`.
template <class Isa, class scalar_t>
FASTSSL_INLINE void write_cross_entropy_row(const SoftmaxRows<scalar_t>& logits, int64_t target,
                                            acc_t<scalar_t> weight, scalar_t* gradient) {
  using simd = Simd<Isa, acc_t<scalar_t>>;
  const acc_t<scalar_t> scale = weight / logits.sum;
  write_row<simd>(gradient, logits.C,
                  [&](int64_t j) { return simd::load(logits.e() + j) * scale; });
  store(gradient + target, logits.e()[target] * scale - weight);
}

}  // namespace fastssl::cpu
