// C[rows, columns] (+)= A B in register tiles, for operands that a kernel has just made and packed
// itself. Written because the BLAS behind torch (MKL) runs at half an AMD processor's rate, and
// because the packing costs nothing when the softmax writes its result in packed order.
//
// Right operands, [depth, columns], lie in panels of `Tile::columns` columns, each [depth][width];
// the last panel is only as wide as it must be, in whole vectors.
#pragma once

#include <cstdint>
#include <cstring>

#include "simd.h"

namespace fastssl::cpu {

// The tile of the running processor, for the code that lays out memory.
struct Tile {
  int64_t lanes, rows, columns;
};

template <class Isa, class acc_t>
constexpr Tile tile_of() {
  constexpr int64_t lanes = Isa::kBytes / sizeof(acc_t);
  return {lanes, Isa::kRows, Isa::kVectors * lanes};
}

template <class acc_t>
Tile tile() {
  switch (level()) {
    case Level::kAmx:
    case Level::kAvx512:
      return tile_of<Avx512, acc_t>();
    case Level::kAvx2:
      return tile_of<Avx2, acc_t>();
    case Level::kPortable:
      break;
  }
  return tile_of<Portable, acc_t>();
}

constexpr int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// Width of the panel that starts at `column` of an operand with `columns` columns.
FASTSSL_INLINE int64_t panel_width(const Tile& tile, int64_t columns, int64_t column) {
  const int64_t left = round_up(columns - column, tile.lanes);
  return left < tile.columns ? left : tile.columns;
}

// Depth of a block of the right operand that stays in the first-level cache.
constexpr int64_t kDepth = 192;

// A left operand [rows, depth] behind any strides; rows are a multiple of the tile's.
template <class acc_t>
struct Left {
  const acc_t* data;
  int64_t row_stride, depth_stride;
};

// One tile of sums over the depth: finish(i, v, sum) takes the tile's row i, vector v.
template <class Isa, int kVectors, class acc_t, class Finish>
FASTSSL_INLINE void multiply_tile(const Left<acc_t> a, const acc_t* b, int64_t ldb, int64_t depth,
                                  const Finish& finish) {
  using simd = Simd<Isa, acc_t>;
  constexpr int kRows = Isa::kRows;
  typename simd::Vector sum[kRows][kVectors] = {};
  for (int64_t k = 0; k < depth; ++k) {
    typename simd::Vector right[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) right[v] = simd::load(b + k * ldb + v * simd::kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const acc_t scale = a.data[i * a.row_stride + k * a.depth_stride];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum[i][v] += scale * right[v];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) finish(i, v, sum[i][v]);
  }
}

// One row tile of the left operand against `width` columns, whole vectors, of the right.
template <class Isa, class acc_t, class Finish>
FASTSSL_INLINE void multiply_columns(const Left<acc_t> a, const acc_t* b, int64_t ldb,
                                     int64_t width, int64_t depth, const Finish& finish) {
  constexpr int64_t kLanes = Simd<Isa, acc_t>::kLanes;
  static_assert(Isa::kVectors <= 3);
  if (width == 3 * kLanes) {
    multiply_tile<Isa, 3>(a, b, ldb, depth, finish);
  } else if (width == 2 * kLanes) {
    multiply_tile<Isa, 2>(a, b, ldb, depth, finish);
  } else {
    multiply_tile<Isa, 1>(a, b, ldb, depth, finish);
  }
}

// One panel of the right operand against one row tile of the left: c[rows][ldc] += a b.
template <class Isa, class acc_t>
FASTSSL_INLINE void multiply_panel(const acc_t* a, int64_t row_stride, int64_t depth_stride,
                                   const acc_t* b, int64_t width, int64_t depth, acc_t* c,
                                   int64_t ldc) {
  // A sum of its own for each block of the depth: small terms would be lost in one long running
  // sum.
  using simd = Simd<Isa, acc_t>;
  multiply_columns<Isa>(Left<acc_t>{a, row_stride, depth_stride}, b, width, width, depth,
                        [&](int i, int v, typename simd::Vector sum) {
                          acc_t* at = c + i * ldc + v * simd::kLanes;
                          simd::store(at, simd::load(at) + sum);
                        });
}

// A matrix in scratch memory whose rows are whole vectors. Their number is odd, so that rows do not
// fall on the same sets of the caches, and none is shorter than a tile is high.
template <class acc_t>
struct Matrix {
  acc_t* data;
  int64_t ld;
};
inline int64_t matrix_ld(const Tile& tile, int64_t columns) {
  const int64_t unit = tile.lanes > tile.rows ? tile.lanes : tile.rows;
  return (round_up(columns, unit) / unit | 1) * unit;
}

// to [columns, rows] = from [rows, columns] transposed, both in whole squares; rows of `to` end in
// zeros to a whole vector: nobody reads a product with what lies there, but some processors take
// much longer over one with a denormal.
template <class Isa, class acc>
FASTSSL_INLINE void transpose_body(const Matrix<acc> from, int64_t rows, int64_t columns,
                                   const Matrix<acc> to) {
  using Row = typename VectorOf<acc, 4 * sizeof(acc)>::type;
  const int64_t squares = round_up(rows, 4), vectors = round_up(squares, Simd<Isa, acc>::kLanes);
  for (int64_t i = 0; i < rows; i += 4) {
    for (int64_t j = 0; j < columns; j += 4) {
      Row r[4];
      std::memcpy(&r[0], from.data + i * from.ld + j, sizeof(Row));
      std::memcpy(&r[1], from.data + (i + 1) * from.ld + j, sizeof(Row));
      std::memcpy(&r[2], from.data + (i + 2) * from.ld + j, sizeof(Row));
      std::memcpy(&r[3], from.data + (i + 3) * from.ld + j, sizeof(Row));
      const Row low01 = __builtin_shufflevector(r[0], r[1], 0, 4, 1, 5);
      const Row high01 = __builtin_shufflevector(r[0], r[1], 2, 6, 3, 7);
      const Row low23 = __builtin_shufflevector(r[2], r[3], 0, 4, 1, 5);
      const Row high23 = __builtin_shufflevector(r[2], r[3], 2, 6, 3, 7);
      const Row t[4] = {__builtin_shufflevector(low01, low23, 0, 1, 4, 5),
                        __builtin_shufflevector(low01, low23, 2, 3, 6, 7),
                        __builtin_shufflevector(high01, high23, 0, 1, 4, 5),
                        __builtin_shufflevector(high01, high23, 2, 3, 6, 7)};
      for (int k = 0; k < 4; ++k) std::memcpy(to.data + (j + k) * to.ld + i, &t[k], sizeof(Row));
    }
  }
  for (int64_t j = 0; j < columns; ++j) {
    std::memset(to.data + j * to.ld + squares, 0, (vectors - squares) * sizeof(acc));
  }
}
FASTSSL_PER_LEVEL(transpose, transpose_body)

// out [rows, columns] = finish(i, j, sum), sum the vector at (i, j) of a b. Both are read and
// written in whole tiles: what lies in `out` beyond rows and columns is arbitrary. `out` also holds
// the sums of a depth beyond kDepth.
template <class Isa, class acc_t, class Finish>
FASTSSL_INLINE void multiply(const Left<acc_t> a, const Matrix<acc_t> b, int64_t rows,
                             int64_t columns, int64_t depth, const Matrix<acc_t> out,
                             const Finish& finish) {
  using simd = Simd<Isa, acc_t>;
  const int64_t vectors = (columns + simd::kLanes - 1) / simd::kLanes;
  const int64_t panels = (vectors + Isa::kVectors - 1) / Isa::kVectors;
  const int64_t panel = (vectors + panels - 1) / panels * simd::kLanes;  // of equal width
  for (int64_t k = 0; k < depth; k += kDepth) {
    const bool is_last = depth - k <= kDepth;
    const int64_t block = is_last ? depth - k : kDepth;
    for (int64_t column = 0; column < columns; column += panel) {
      const int64_t left = vectors * simd::kLanes - column, width = left < panel ? left : panel;
      for (int64_t row = 0; row < rows; row += Isa::kRows) {
        const Left<acc_t> tile{a.data + row * a.row_stride + k * a.depth_stride, a.row_stride,
                               a.depth_stride};
        multiply_columns<Isa>(tile, b.data + k * b.ld + column, b.ld, width, block,
                              [&](int i, int v, typename simd::Vector sum) {
                                const int64_t j = column + v * simd::kLanes;
                                acc_t* at = out.data + (row + i) * out.ld + j;
                                if (k > 0) sum += simd::load(at);
                                simd::store(at, is_last ? finish(row + i, j, sum) : sum);
                              });
      }
    }
  }
}

}  // namespace fastssl::cpu
