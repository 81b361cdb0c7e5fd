// The frame of losses that are sums over rows of logits, each a function of its row's softmax. Such
// a loss is a class with
//
//   template <class Isa> void add(int64_t n, RowTotal& total);
//
// which adds row n's loss to the total and, where one is asked for, writes row n of the gradient.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "parallel.h"
#include "product.h"
#include "softmax.h"

namespace fastssl::cpu {

// A sum of numbers and logarithms. A logarithm is taken of a product of many numbers, since one
// costs as much as all else that a row of ten classes needs.
class RowTotal {
 public:
  FASTSSL_INLINE void add(double x) { sum_ += x; }
  FASTSSL_INLINE void add_logarithm(double x) {
    product_ *= x;
    if (product_ > kMost || product_ < 1 / kMost) {
      sum_ += std::log(product_);
      product_ = 1;
    }
  }
  FASTSSL_INLINE void count_row() { ++counted_; }

  void add(const RowTotal& other) {
    sum_ += other.sum();
    counted_ += other.counted_;
  }
  double sum() const { return sum_ + std::log(product_); }
  int64_t counted() const { return counted_; }

 private:
  static constexpr double kMost = 1e200;  // times a factor of a row, up to its classes, is finite

  double sum_ = 0, product_ = 1;
  int64_t counted_ = 0;
};

// The softmax of one row at a time of logits [rows, C]: p = e / sum, ln p = z - ln sum.
template <class scalar_t>
class SoftmaxRows {
 public:
  using acc = acc_t<scalar_t>;
  template <class Isa>
  using Vector = typename Simd<Isa, acc>::Vector;

  SoftmaxRows(const scalar_t* logits, int64_t rows, int64_t C)
      : C(C),
        padded(round_up(C, tile<acc>().lanes)),
        scratch_(2 * padded),
        edge_(padded),
        rows_{logits, logits + rows * C, edge_} {}

  // Makes n the row; then calls body(j, z, e) with its vectors in turn.
  template <class Isa, class Body>
  FASTSSL_INLINE void move_to(int64_t n, const Body& body) {
    using simd = Simd<Isa, acc>;
    const Vector<Isa> never = simd::broadcast(-std::numeric_limits<acc>::infinity());
    const scalar_t* row = rows_.row(n, C, padded);
    acc* const to_z = scratch_;
    acc* const to_e = to_z + padded;
    const auto exponential = [&](int64_t j, Vector<Isa> shifted) {
      const Vector<Isa> e = simd::exp_nonpositive(shifted);
      simd::store(to_z + j, shifted);
      simd::store(to_e + j, e);
      body(j, shifted, e);
      return e;
    };
    const int64_t last = padded - simd::kLanes;
    const Vector<Isa> tail = simd::fill_tail(simd::load(row + last), C - last, never[0]);
    Vector<Isa> largest = tail, total{};
    for (int64_t j = 0; j < last; j += simd::kLanes) {
      largest = simd::max(simd::load(row + j), largest);
    }
    const Vector<Isa> maximum = simd::broadcast(simd::max(largest));
    for (int64_t j = 0; j < last; j += simd::kLanes) {
      total += exponential(j, simd::load(row + j) - maximum);
    }
    sum = simd::sum(total + exponential(last, tail - maximum));
  }
  template <class Isa>
  FASTSSL_INLINE void move_to(int64_t n) {
    move_to<Isa>(n, [](int64_t, Vector<Isa>, Vector<Isa>) {});
  }

  // Logits less their maximum; -inf behind the row's end.
  FASTSSL_INLINE const acc* z() const { return scratch_; }
  // Their exponentials.
  FASTSSL_INLINE const acc* e() const { return scratch_ + padded; }

  const int64_t C, padded;
  acc sum = 0;  // of e

 private:
  Scratch<acc> scratch_;  // [2, padded]
  Scratch<scalar_t> edge_;
  const Rows<scalar_t> rows_;
};

// z, or the lowest finite number where z is -inf: what stands beside a probability of 0.
template <class simd>
FASTSSL_INLINE typename simd::Vector finite(typename simd::Vector z) {
  const auto lowest = std::numeric_limits<std::decay_t<decltype(z[0])>>::lowest();
  return simd::max(simd::broadcast(lowest), z);
}

// p.sum (p - q) at j, for ratio = p.sum / q.sum; exactly 0 for the same logits, which the
// difference of two products is not: one of them is rounded, the other is not.
template <class Isa, class scalar_t>
FASTSSL_INLINE typename Simd<Isa, acc_t<scalar_t>>::Vector difference(
    const SoftmaxRows<scalar_t>& p, const SoftmaxRows<scalar_t>& q, acc_t<scalar_t> ratio,
    int64_t j) {
  using simd = Simd<Isa, acc_t<scalar_t>>;
  return simd::load(p.e() + j) - simd::load(q.e() + j) * ratio;
}

// Writes gradient[C], a vector at a time: body(j) gives the one that starts at j.
template <class simd, class scalar_t, class Body>
FASTSSL_INLINE void write_row(scalar_t* gradient, int64_t C, const Body& body) {
  for (int64_t j = 0; j < C; j += simd::kLanes) simd::store_head(gradient + j, body(j), C - j);
}

template <class Isa, class Loss>
FASTSSL_INLINE void add_rows_body(Loss* loss, RowTotal* total, int64_t begin, int64_t end) {
  RowTotal own;
  for (int64_t n = begin; n < end; ++n) loss->template add<Isa>(n, own);
  *total = own;
}
FASTSSL_PER_LEVEL(add_rows, add_rows_body)

// The total of rows [0, N) of the loss that `make` makes for a thread: the same for any number of
// threads, since rows are summed in pieces that do not depend on it.
template <class Make>
RowTotal total_of_rows(int64_t N, int64_t C, const Make& make) {
  const int64_t rows = std::max<int64_t>(1, (1 << 14) / C), pieces = (N + rows - 1) / rows;
  Scratch<RowTotal> totals(pieces);
  parallel_for(pieces, 1, [&](int64_t begin, int64_t end) {
    auto loss = make();
    for (int64_t piece = begin; piece < end; ++piece) {
      add_rows(&loss, totals + piece, piece * rows, std::min(N, (piece + 1) * rows));
    }
  });
  RowTotal total;
  for (int64_t piece = 0; piece < pieces; ++piece) total.add(totals[piece]);
  return total;
}

}  // namespace fastssl::cpu
