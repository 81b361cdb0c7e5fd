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

// The softmax of one row at a time of logits [rows, C]: p = e / sum, ln p = z - ln sum. Rows are
// best taken in order: the next one's maximum is found beside this one's exponentials, which would
// otherwise wait for it.
template <class scalar_t>
class SoftmaxRows {
 public:
  using acc = acc_t<scalar_t>;
  template <class Isa>
  using Vector = typename Simd<Isa, acc>::Vector;

  SoftmaxRows(const scalar_t* logits, int64_t rows, int64_t C)
      : C(C),
        padded(round_up(C, tile<acc>().lanes)),
        e_(padded),
        edge_(padded),
        rows_{logits, logits + rows * C, edge_} {}

  // Makes n the row; then calls body(j, z, e) with its vectors in turn.
  template <class Isa, class Body>
  FASTSSL_INLINE void move_to(int64_t n, const Body& body) {
    using simd = Simd<Isa, acc>;
    row_ = rows_.row(n, C, padded);
    maximum_ = ahead_ == n ? ahead_maximum_ : largest_of<Isa>(row_);
    if (rows_.is_whole(n + 1, C, padded)) {
      ahead_ = n + 1;
      ahead_maximum_ = largest_of<Isa>(row_ + C);
    }
    const Vector<Isa> maximum = simd::broadcast(maximum_);
    acc* const e_of_row = e_;
    Vector<Isa> total{};
    const auto exponential = [&](int64_t j, Vector<Isa> z) {
      const Vector<Isa> e = simd::exp_nonpositive(z);
      simd::store(e_of_row + j, e);
      body(j, z, e);
      total += e;
    };
    const int64_t last = padded - simd::kLanes;
    for (int64_t j = 0; j < last; j += simd::kLanes) {
      exponential(j, simd::load(row_ + j) - maximum);
    }
    exponential(last, filled_tail<Isa>(row_) - maximum);
    sum = simd::sum(total);
  }
  template <class Isa>
  FASTSSL_INLINE void move_to(int64_t n) {
    move_to<Isa>(n, [](int64_t, Vector<Isa>, Vector<Isa>) {});
  }

  // The logits from class j on less their maximum; anything behind the row's end.
  template <class Isa>
  FASTSSL_INLINE Vector<Isa> z(int64_t j) const {
    return Simd<Isa, acc>::load(row_ + j) - Simd<Isa, acc>::broadcast(maximum_);
  }
  FASTSSL_INLINE acc z_of(int64_t j) const { return load(row_ + j) - maximum_; }
  // Their exponentials; 0 behind the row's end.
  FASTSSL_INLINE const acc* e() const { return e_; }

  // The first class that has the largest logit, of a row without NaN.
  template <class Isa>
  FASTSSL_INLINE int64_t likeliest() const {
    using simd = Simd<Isa, acc>;
    using Bits = typename simd::Bits;
    const Vector<Isa> maximum = simd::broadcast(maximum_);
    const Bits none = Bits{} - 1;
    Bits index = simd::lane_numbers(), found = none;
    for (int64_t j = 0; j < padded; j += simd::kLanes, index += simd::kLanes) {
      // What lies behind the row's end comes later than the class looked for.
      const Bits here = simd::load(row_ + j) == maximum ? index : none;
      found = here < found ? here : found;
    }
    return simd::min(found);
  }

  const int64_t C, padded;
  acc sum = 0;  // of e

 private:
  // The row's last vector, with -inf behind the row's end.
  template <class Isa>
  FASTSSL_INLINE Vector<Isa> filled_tail(const scalar_t* row) const {
    using simd = Simd<Isa, acc>;
    const int64_t last = padded - simd::kLanes;
    return simd::fill_tail(simd::load(row + last), C - last, -std::numeric_limits<acc>::infinity());
  }
  template <class Isa>
  FASTSSL_INLINE acc largest_of(const scalar_t* row) const {
    using simd = Simd<Isa, acc>;
    Vector<Isa> largest = filled_tail<Isa>(row);
    for (int64_t j = 0; j < padded - simd::kLanes; j += simd::kLanes) {
      largest = simd::max(simd::load(row + j), largest);
    }
    return simd::max(largest);
  }

  Scratch<acc> e_;  // [padded]
  Scratch<scalar_t> edge_;
  const Rows<scalar_t> rows_;
  const scalar_t* row_ = nullptr;
  acc maximum_ = 0, ahead_maximum_ = 0;
  int64_t ahead_ = -1;  // the row whose maximum is known already
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
  if (C < simd::kLanes) return simd::store_head(gradient, body(0), C);
  for (int64_t j = 0; j + simd::kLanes <= C; j += simd::kLanes) {
    simd::store_head(gradient + j, body(j), simd::kLanes);
  }
  const int64_t last = C - simd::kLanes;  // overlaps the one before
  simd::store_head(gradient + last, body(last), simd::kLanes);
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
