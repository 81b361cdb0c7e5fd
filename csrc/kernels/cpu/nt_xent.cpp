#include "../nt_xent.h"

#include <algorithm>
#include <cmath>

#include "parallel.h"
#include "product.h"

namespace fastssl::cpu {
namespace {

// Rows of a block: a tile of similarities stays in the second-level cache, and no instruction set's
// product tile leaves a remainder.
constexpr int64_t kBlock = 96;
static_assert(kBlock <= kDepth);
constexpr int64_t kTaskElements = 1 << 14;

// Rows [begin, end) of features [rows, D] divided by their lengths, which go to `lengths`.
template <class Isa, class scalar_t, class acc>
FASTSSL_INLINE void normalize_rows_body(const scalar_t* features, const Matrix<acc> unit,
                                        acc* lengths, int64_t D, int64_t begin, int64_t end) {
  using simd = Simd<Isa, acc>;
  using Vector = typename simd::Vector;
  for (int64_t n = begin; n < end; ++n) {
    Vector squares{};
    for_row<simd>(features + n * D, D, [&](int64_t, int64_t, Vector x) { squares += x * x; });
    lengths[n] = std::sqrt(simd::sum(squares));
    const acc divisor = lengths[n] < acc(kLeastLength) ? acc(kLeastLength) : lengths[n];
    for_row<simd>(features + n * D, D, [&](int64_t j, int64_t, Vector x) {
      simd::store(unit.data + n * unit.ld + j, x / divisor);
    });
  }
}
FASTSSL_PER_LEVEL(normalize_rows, normalize_rows_body)

// tile [rows, columns] = scale * the products of two blocks of rows, given transposed [D, kBlock].
template <class Isa, class acc>
FASTSSL_INLINE void similarities_body(const Matrix<acc> of_rows, const Matrix<acc> of_columns,
                                      int64_t rows, int64_t columns, int64_t D, acc scale,
                                      const Matrix<acc> tile) {
  multiply<Isa>(Left<acc>{of_rows.data, 1, of_rows.ld}, of_columns, rows, columns, D, tile,
                [=](int64_t, int64_t, typename Simd<Isa, acc>::Vector sum) { return sum * scale; });
}
FASTSSL_PER_LEVEL(similarities, similarities_body)

// Of the similarities of rows so far: the largest, and the sum of exponentials less it.
template <class acc>
struct Statistics {
  acc *maximum, *total;
};

// Adds a tile to its rows' statistics, and to its columns' unless they are null.
template <class Isa, class acc>
FASTSSL_INLINE void add_statistics_body(const Matrix<acc> tile, const Statistics<acc> of_rows,
                                        const Statistics<acc> of_columns, int64_t rows,
                                        int64_t padded) {
  using simd = Simd<Isa, acc>;
  using Vector = typename simd::Vector;
  for (int64_t i = 0; i < rows; ++i) {
    const acc* row = tile.data + i * tile.ld;
    Vector largest = simd::load(row);
    for (int64_t j = simd::kLanes; j < padded; j += simd::kLanes) {
      largest = simd::max(simd::load(row + j), largest);
    }
    const acc before = of_rows.maximum[i], maximum = std::max(before, simd::max(largest));
    Vector sum{};
    for (int64_t j = 0; j < padded; j += simd::kLanes) {
      sum += simd::exp_nonpositive(simd::load(row + j) - maximum);
    }
    of_rows.maximum[i] = maximum;
    if (maximum > before) of_rows.total[i] *= std::exp(before - maximum);
    of_rows.total[i] += simd::sum(sum);
  }
  if (of_columns.maximum == nullptr) return;
  for (int64_t j = 0; j < padded; j += simd::kLanes) {
    const Vector before = simd::load(of_columns.maximum + j);
    Vector maximum = before;
    for (int64_t i = 0; i < rows; ++i) {
      maximum = simd::max(simd::load(tile.data + i * tile.ld + j), maximum);
    }
    Vector sum = simd::load(of_columns.total + j) * simd::exp_nonpositive(before - maximum);
    for (int64_t i = 0; i < rows; ++i) {
      sum += simd::exp_nonpositive(simd::load(tile.data + i * tile.ld + j) - maximum);
    }
    simd::store(of_columns.maximum + j, maximum);
    simd::store(of_columns.total + j, sum);
  }
}
FASTSSL_PER_LEVEL(add_statistics, add_statistics_body)

// tile = P + P^T of its similarities.
template <class Isa, class acc>
FASTSSL_INLINE void weigh_body(const Matrix<acc> tile, const acc* log_sums_of_rows,
                               const acc* log_sums_of_columns, int64_t rows, int64_t padded) {
  using simd = Simd<Isa, acc>;
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < padded; j += simd::kLanes) {
      acc* at = tile.data + i * tile.ld + j;
      const typename simd::Vector s = simd::load(at);
      simd::store(at, simd::exp_nonpositive(s - log_sums_of_rows[i]) +
                          simd::exp_nonpositive(s - simd::load(log_sums_of_columns + j)));
    }
  }
}
FASTSSL_PER_LEVEL(weigh, weigh_body)

// sums [rows, D] += weights unit, of `depth` columns.
template <class Isa, class acc>
FASTSSL_INLINE void accumulate_body(const Left<acc> weights, const Matrix<acc> unit, int64_t rows,
                                    int64_t depth, int64_t D, const Matrix<acc> sums) {
  using simd = Simd<Isa, acc>;
  multiply<Isa>(weights, unit, rows, D, depth, sums,
                [=](int64_t i, int64_t j, typename simd::Vector sum) {
                  return sum + simd::load(sums.data + i * sums.ld + j);
                });
}
FASTSSL_PER_LEVEL(accumulate, accumulate_body)

// gradients [N, D] of rows from those of the rows divided by their lengths, `sums`.
template <class Isa, class scalar_t, class acc>
FASTSSL_INLINE void gradient_rows_body(const Matrix<acc> unit, const acc* lengths,
                                       const Matrix<acc> sums, acc scale, scalar_t* gradients,
                                       int64_t D, int64_t begin, int64_t end) {
  using simd = Simd<Isa, acc>;
  using Vector = typename simd::Vector;
  const int64_t padded = round_up(D, simd::kLanes);
  for (int64_t n = begin; n < end; ++n) {
    const acc *z = unit.data + n * unit.ld, *t = sums.data + n * sums.ld;
    // A row of the least length does not turn: its gradient is the plain quotient's.
    const bool turns = !(lengths[n] < acc(kLeastLength));
    Vector products{};
    for (int64_t j = 0; j < padded; j += simd::kLanes) {
      products += simd::load(z + j) * simd::load(t + j);  // both end in zeros
    }
    const acc along = turns ? simd::sum(products) : acc(0);
    const acc factor = scale / (turns ? lengths[n] : acc(kLeastLength));
    for (int64_t j = 0; j < padded; j += simd::kLanes) {
      Vector gradient = (simd::load(t + j) - simd::load(z + j) * along) * factor;
      if constexpr (std::is_same_v<scalar_t, Half>) {
        const Vector largest = simd::broadcast(kLargestHalf);
        if (!turns) gradient = gradient > largest ? largest : simd::max(gradient, -largest);
      }
      simd::store_head(gradients + n * D + j, gradient, D - j);
    }
  }
}
FASTSSL_PER_LEVEL(gradient_rows, gradient_rows_body)

// The 2N rows in blocks, divided by their lengths, and the tiles of their similarities.
template <class acc>
class Pairs {
 public:
  template <class scalar_t>
  Pairs(const scalar_t* features_a, const scalar_t* features_b, double temperature, int64_t N,
        int64_t D)
      : M(2 * N),
        blocks((M + kBlock - 1) / kBlock),
        N_(N),
        D_(D),
        scale_(acc(1 / temperature)),
        ld_(matrix_ld(tile<acc>(), D)),
        tile_ld_(matrix_ld(tile<acc>(), kBlock)),
        unit_(blocks * kBlock * ld_),
        transposed_(blocks * round_up(D, 4) * tile_ld_),
        lengths_(blocks * kBlock) {
    parallel_for(blocks, std::max<int64_t>(1, kTaskElements / (kBlock * D)),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t b = begin; b < end; ++b) prepare(features_a, features_b, b);
                 });
  }

  const int64_t M, blocks;

  int64_t rows(int64_t block) const { return std::min(kBlock, M - block * kBlock); }
  Matrix<acc> unit(int64_t row) const { return {unit_ + row * ld_, ld_}; }
  const acc* lengths() const { return lengths_; }
  int64_t padded(int64_t block) const { return round_up(rows(block), tile<acc>().lanes); }
  int64_t partner(int64_t row) const { return row < N_ ? row + N_ : row - N_; }

  // Calls visit(I, J, tile) with the similarities of every two blocks I <= J, -inf on the diagonal
  // and beyond the last row. In round r those with I + J = r modulo the number of blocks have their
  // turn: no block is in two of them, so that they may run at once, and every block meets the
  // others in the same order whatever the number of threads.
  template <class Visit>
  void for_tiles(const Visit& visit) const {
    for (int64_t r = 0; r < blocks; ++r) {
      const int64_t low = r / 2 + 1, high = (r + blocks) / 2 - r;  // I + J = r, or r + blocks
      parallel_for(low + high, 1, [&](int64_t begin, int64_t end) {
        Scratch<acc> memory(kBlock * tile_ld_);
        const Matrix<acc> tile{memory, tile_ld_};
        for (int64_t k = begin; k < end; ++k) {
          const int64_t I = k < low ? k : r + 1 + k - low, J = k < low ? r - I : r + blocks - I;
          fill(I, J, tile);
          visit(I, J, tile);
        }
      });
    }
  }

  // Calls found(row, s) for every row of block I whose positive lies in block J.
  template <class Found>
  void for_positives(int64_t I, int64_t J, const Matrix<acc>& tile, const Found& found) const {
    for (int64_t i = 0; i < rows(I); ++i) {
      const int64_t j = partner(I * kBlock + i) - J * kBlock;
      if (j >= 0 && j < rows(J)) found(I * kBlock + i, tile.data[i * tile.ld + j]);
    }
  }

 private:
  Matrix<acc> transposed(int64_t block) const {
    return {transposed_ + block * round_up(D_, 4) * tile_ld_, tile_ld_};
  }

  template <class scalar_t>
  void prepare(const scalar_t* features_a, const scalar_t* features_b, int64_t block) {
    const int64_t first = block * kBlock, end = first + rows(block);
    const int64_t middle = std::clamp(N_, first, end);
    std::fill_n(unit(first).data, kBlock * ld_, acc(0));
    normalize_rows(features_a, unit(0), static_cast<acc*>(lengths_), D_, first, middle);
    normalize_rows(features_b, unit(N_), lengths_ + N_, D_, middle - N_, end - N_);
    transpose(unit(first), kBlock, D_, transposed(block));
  }

  void fill(int64_t I, int64_t J, const Matrix<acc>& tile) const {
    constexpr acc kNever = -std::numeric_limits<acc>::infinity();
    similarities(transposed(I), transposed(J), rows(I), rows(J), D_, scale_, tile);
    for (int64_t i = 0; i < rows(I); ++i) {
      acc* row = tile.data + i * tile.ld;
      if (I == J) row[i] = kNever;
      std::fill(row + rows(J), row + padded(J), kNever);
    }
  }

  const int64_t N_, D_;
  const acc scale_;
  const int64_t ld_, tile_ld_;
  Scratch<acc> unit_, transposed_, lengths_;
};

}  // namespace

template <class scalar_t, class acc>
void nt_xent(const scalar_t* features_a, const scalar_t* features_b, double temperature, acc* loss,
             acc* log_sums, int64_t N, int64_t D) {
  const Pairs<acc> pairs(features_a, features_b, temperature, N, D);
  const int64_t padded = pairs.blocks * kBlock;
  Scratch<acc> maxima(padded), totals(padded), positives(padded);
  std::fill_n(static_cast<acc*>(maxima), padded, -std::numeric_limits<acc>::infinity());
  std::fill_n(static_cast<acc*>(totals), padded, acc(0));
  pairs.for_tiles([&](int64_t I, int64_t J, const Matrix<acc>& tile) {
    const Statistics<acc> of_rows{maxima + I * kBlock, totals + I * kBlock};
    Statistics<acc> of_columns{};
    if (I != J) of_columns = {maxima + J * kBlock, totals + J * kBlock};
    add_statistics(tile, of_rows, of_columns, pairs.rows(I), pairs.padded(J));
    pairs.for_positives(I, J, tile, [&](int64_t row, acc s) {
      positives[row] = positives[pairs.partner(row)] = s;
    });
  });
  double sum = 0;
  for (int64_t i = 0; i < pairs.M; ++i) {
    log_sums[i] = maxima[i] + std::log(totals[i]);
    sum += double(log_sums[i] - positives[i]);
  }
  *loss = acc(sum / double(pairs.M));
}

template <class scalar_t, class acc>
void nt_xent_backward(acc grad, const acc* log_sums, const scalar_t* features_a,
                      const scalar_t* features_b, double temperature, scalar_t* grad_a,
                      scalar_t* grad_b, int64_t N, int64_t D) {
  const Pairs<acc> pairs(features_a, features_b, temperature, N, D);
  const int64_t padded = pairs.blocks * kBlock, ld = matrix_ld(tile<acc>(), D);
  Scratch<acc> memory(padded * ld), padded_log_sums(padded);
  std::fill_n(static_cast<acc*>(memory), padded * ld, acc(0));
  std::fill(std::copy_n(log_sums, pairs.M, static_cast<acc*>(padded_log_sums)),
            padded_log_sums + padded, acc(0));
  const auto sums = [&](int64_t row) { return Matrix<acc>{memory + row * ld, ld}; };
  const auto is_needed = [&](int64_t block) {
    const int64_t first = block * kBlock, end = first + pairs.rows(block);
    return (grad_a != nullptr && first < N) || (grad_b != nullptr && end > N);
  };
  pairs.for_tiles([&](int64_t I, int64_t J, const Matrix<acc>& tile) {
    if (!is_needed(I) && !is_needed(J)) return;
    weigh(tile, static_cast<const acc*>(padded_log_sums + I * kBlock),
          static_cast<const acc*>(padded_log_sums + J * kBlock), pairs.rows(I), pairs.padded(J));
    pairs.for_positives(I, J, tile, [&](int64_t, acc& weight) { weight -= 2; });
    if (is_needed(I)) {
      accumulate(Left<acc>{tile.data, tile.ld, 1}, pairs.unit(J * kBlock), pairs.rows(I),
                 pairs.rows(J), D, sums(I * kBlock));
    }
    if (I != J && is_needed(J)) {
      accumulate(Left<acc>{tile.data, 1, tile.ld}, pairs.unit(I * kBlock), pairs.rows(J),
                 pairs.rows(I), D, sums(J * kBlock));
    }
  });
  const acc scale = acc(double(grad) / (double(pairs.M) * temperature));
  parallel_for(N, std::max<int64_t>(1, kTaskElements / D), [&](int64_t begin, int64_t end) {
    const auto write = [&](int64_t first, scalar_t* gradients) {
      if (gradients == nullptr) return;
      gradient_rows(pairs.unit(first), pairs.lengths() + first, sums(first), scale, gradients, D,
                    begin, end);
    };
    write(0, grad_a);
    write(N, grad_b);
  });
}

#define FASTSSL_INSTANTIATE(scalar_t)                                                      \
  template void nt_xent(const scalar_t*, const scalar_t*, double, acc_t<scalar_t>*,        \
                        acc_t<scalar_t>*, int64_t, int64_t);                               \
  template void nt_xent_backward(acc_t<scalar_t>, const acc_t<scalar_t>*, const scalar_t*, \
                                 const scalar_t*, double, scalar_t*, scalar_t*, int64_t, int64_t);
FASTSSL_INSTANTIATE(float)
FASTSSL_INSTANTIATE(double)
FASTSSL_INSTANTIATE(Half)
FASTSSL_INSTANTIATE(BFloat16)
#undef FASTSSL_INSTANTIATE

}  // namespace fastssl::cpu
