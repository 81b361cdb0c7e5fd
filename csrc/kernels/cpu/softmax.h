// Rows of softmax, and of its gradient, inside other kernels. A row of probabilities is `padded`
// long, a multiple of the lanes; its tail beyond C holds zeros, so that products may run over it.
#pragma once

#include <cstdint>
#include <limits>

#include "simd.h"

namespace fastssl::cpu {

// Logits of one tensor, whose rows are read in whole vectors: past a row's end lies the next row,
// and only rows too near the tensor's own end are copied first.
template <class scalar_t>
struct Rows {
  const scalar_t* data;  // [rows, C]
  const scalar_t* end;
  scalar_t* edge;  // [padded], scratch

  // Whether row n may be read where it lies; false for rows there are not.
  FASTSSL_INLINE bool is_whole(int64_t n, int64_t C, int64_t padded) const {
    return end - data >= n * C + padded;
  }
  FASTSSL_INLINE const scalar_t* row(int64_t n, int64_t C, int64_t padded) const {
    const scalar_t* at = data + n * C;
    if (is_whole(n, C, padded)) return at;
    for (int64_t j = 0; j < C; ++j) edge[j] = at[j];
    return edge;
  }
};

// probabilities[padded] = softmax of row n of logits [rows, C], then zeros.
template <class Isa, class scalar_t>
FASTSSL_INLINE void softmax_row(const Rows<scalar_t>& logits, int64_t n,
                                acc_t<scalar_t>* probabilities, int64_t C, int64_t padded) {
  using acc = acc_t<scalar_t>;
  using simd = Simd<Isa, acc>;
  using Vector = typename simd::Vector;
  constexpr acc kNever = -std::numeric_limits<acc>::infinity();
  const scalar_t* row = logits.row(n, C, padded);
  if (padded == simd::kLanes) {  // few classes: a row stays in one register
    const Vector x = simd::fill_tail(simd::load(row), C, kNever);
    const Vector e = simd::exp_nonpositive(x - simd::max(x));
    simd::store(probabilities, e * (1 / simd::sum(e)));
    return;
  }
  Vector largest = simd::broadcast(kNever);
  for (int64_t j = 0; j < padded; j += simd::kLanes) {
    const Vector x = simd::fill_tail(simd::load(row + j), C - j, kNever);
    simd::store(probabilities + j, x);
    largest = simd::max(x, largest);
  }
  const Vector maximum = simd::broadcast(simd::max(largest));
  Vector total{};
  for (int64_t j = 0; j < padded; j += simd::kLanes) {
    const Vector e = simd::exp_nonpositive(simd::load(probabilities + j) - maximum);
    simd::store(probabilities + j, e);
    total += e;
  }
  const acc inverse = 1 / simd::sum(total);
  for (int64_t j = 0; j < padded; j += simd::kLanes) {
    simd::store(probabilities + j, simd::load(probabilities + j) * inverse);
  }
}

// gradient[C] = scale * p * (t - <p, t>): softmax's gradient where t is the gradient of the
// probabilities.
template <class Isa, class scalar_t>
FASTSSL_INLINE void softmax_gradient_row(const acc_t<scalar_t>* p, const acc_t<scalar_t>* t,
                                         acc_t<scalar_t> scale, scalar_t* gradient, int64_t C,
                                         int64_t padded) {
  using simd = Simd<Isa, acc_t<scalar_t>>;
  typename simd::Vector products{};
  for (int64_t j = 0; j < padded; j += simd::kLanes) {
    products += simd::load(p + j) * simd::load(t + j);
  }
  const acc_t<scalar_t> dot = simd::sum(products);
  for (int64_t j = 0; j < padded; j += simd::kLanes) {
    simd::store_head(gradient + j, (simd::load(p + j) * scale) * (simd::load(t + j) - dot), C - j);
  }
}

}  // namespace fastssl::cpu
