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

// Memory is fetched so many rows before it is needed.
constexpr int64_t kRowsAhead = 8;

// probabilities[kRows, padded] = softmax of rows [kRows, C], then zeros. Of several rows at once,
// some's arithmetic runs while others' sums across lanes are waited for.
template <class Isa, int kRows, class scalar_t>
FASTSSL_INLINE void softmax_of(const scalar_t* rows, acc_t<scalar_t>* probabilities, int64_t C,
                               int64_t padded) {
  using acc = acc_t<scalar_t>;
  using simd = Simd<Isa, acc>;
  using Vector = typename simd::Vector;
  constexpr acc kNever = -std::numeric_limits<acc>::infinity();
  Vector largest[kRows], total[kRows] = {};
  acc maximum[kRows], inverse[kRows];
  const auto at = [&](int i, int64_t j)
                      __attribute__((always_inline)) { return probabilities + i * padded + j; };
  for (Vector& x : largest) x = simd::broadcast(kNever);
  for (int64_t j = 0; j < padded; j += simd::kLanes) {
    for (int i = 0; i < kRows; ++i) {
      const scalar_t* logits = rows + i * C + j;
      __builtin_prefetch(logits + kRowsAhead * C);
      const Vector x = simd::fill_tail(simd::load(logits), C - j, kNever);
      simd::store(at(i, j), x);
      largest[i] = simd::max(x, largest[i]);
    }
  }
  for (int i = 0; i < kRows; ++i) maximum[i] = simd::max(largest[i]);
  for (int64_t j = 0; j < padded; j += simd::kLanes) {
    for (int i = 0; i < kRows; ++i) {
      const Vector e = simd::exp_nonpositive(simd::load(at(i, j)) - maximum[i]);
      simd::store(at(i, j), e);
      total[i] += e;
    }
  }
  for (int i = 0; i < kRows; ++i) inverse[i] = 1 / simd::sum(total[i]);
  for (int64_t j = 0; j < padded; j += simd::kLanes) {
    for (int i = 0; i < kRows; ++i) simd::store(at(i, j), simd::load(at(i, j)) * inverse[i]);
  }
}

// probabilities[padded] = softmax of row n of logits [rows, C], then zeros.
template <class Isa, class scalar_t>
FASTSSL_INLINE void softmax_row(const Rows<scalar_t>& logits, int64_t n,
                                acc_t<scalar_t>* probabilities, int64_t C, int64_t padded) {
  softmax_of<Isa, 1>(logits.row(n, C, padded), probabilities, C, padded);
}

// As softmax_row for at most as many rows as a vector has lanes, each of at most as many classes:
// turned so that a vector holds one class of all rows, no sum runs across lanes.
template <class Isa, class scalar_t>
FASTSSL_INLINE void softmax_square(const Rows<scalar_t>& logits, int64_t n, int64_t count,
                                   acc_t<scalar_t>* probabilities, int64_t C) {
  using simd = Simd<Isa, acc_t<scalar_t>>;
  using Vector = typename simd::Vector;
  constexpr int64_t kLanes = simd::kLanes;
  Vector row[kLanes], x[kLanes];
#pragma GCC unroll 16
  for (int64_t i = 0; i < kLanes; ++i) {
    row[i] = i < count ? simd::load(logits.row(n + i, C, kLanes)) : Vector{};
  }
  simd::transpose(row, [&](int c, Vector one_class) { x[c] = one_class; });
  Vector maximum = x[0];
  for (int64_t c = 1; c < C; ++c) maximum = simd::max(x[c], maximum);
  Vector total{};
  for (int64_t c = 0; c < C; ++c) total += x[c] = simd::exp_nonpositive(x[c] - maximum);
  const Vector inverse = acc_t<scalar_t>(1) / total;
  for (int64_t c = 0; c < kLanes; ++c) x[c] = c < C ? x[c] * inverse : Vector{};
  simd::transpose(x, [&](int i, Vector one_row) {
    if (i < count) simd::store(probabilities + i * kLanes, one_row);
  });
}

// Whether there are so few classes that one vector holds a row.
constexpr bool is_one_vector(int64_t lanes, int64_t padded) { return padded == lanes; }

// How many rows softmax_rows takes at once.
constexpr int64_t kLongRows = 4;
constexpr int64_t rows_at_once(int64_t lanes, int64_t padded) {
  return is_one_vector(lanes, padded) ? lanes : kLongRows;
}

// probabilities[count, padded] = softmax of rows n to n + count of logits [rows, C], then zeros.
template <class Isa, class scalar_t>
FASTSSL_INLINE void softmax_rows(const Rows<scalar_t>& logits, int64_t n, int64_t count,
                                 acc_t<scalar_t>* probabilities, int64_t C, int64_t padded) {
  constexpr int64_t kLanes = Simd<Isa, acc_t<scalar_t>>::kLanes;
  if (!is_one_vector(kLanes, padded)) {
    int64_t i = 0;
    for (; i + kLongRows <= count && logits.is_whole(n + i + kLongRows - 1, C, padded);
         i += kLongRows) {
      softmax_of<Isa, kLongRows>(logits.row(n + i, C, padded), probabilities + i * padded, C,
                                 padded);
    }
    for (; i < count; ++i) {
      softmax_row<Isa>(logits, n + i, probabilities + i * padded, C, padded);
    }
    return;
  }
  for (int64_t i = 0; i < count; i += kLanes) {
    const int64_t rows = count - i < kLanes ? count - i : kLanes;
    softmax_square<Isa>(logits, n + i, rows, probabilities + i * padded, C);
  }
}

// Lines of a gradient are fetched before they are written, or the first write would wait for each.
constexpr int64_t kLine = 64;

// gradient[C] = scale * p * (t - <p, t>): softmax's gradient where t is the gradient of the
// probabilities. Whole vectors are written, so `room` numbers from `gradient` on must be rows that
// are only now, or later, written.
template <class Isa, class scalar_t>
FASTSSL_INLINE void softmax_gradient_row(const acc_t<scalar_t>* p, const acc_t<scalar_t>* t,
                                         acc_t<scalar_t> scale, scalar_t* gradient, int64_t room,
                                         int64_t padded) {
  using simd = Simd<Isa, acc_t<scalar_t>>;
  typename simd::Vector products{};
  for (int64_t j = 0; j < padded; j += simd::kLanes) {
    products += simd::load(p + j) * simd::load(t + j);
  }
  for (int64_t j = 0; j < padded; j += kLine / sizeof(scalar_t)) {
    __builtin_prefetch(gradient + kRowsAhead * padded + j, 1);
  }
  const acc_t<scalar_t> dot = simd::sum(products);
  for (int64_t j = 0; j < padded; j += simd::kLanes) {
    simd::store_head(gradient + j, (simd::load(p + j) * scale) * (simd::load(t + j) - dot),
                     room - j);
  }
}

}  // namespace fastssl::cpu
