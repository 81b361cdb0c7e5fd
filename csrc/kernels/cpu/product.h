// C[rows, columns] (+)= A B in register tiles, for operands that a kernel has just made and packed
// itself. Written because the BLAS behind torch (MKL) runs at half an AMD processor's rate, and
// because the packing costs nothing when the softmax writes its result in packed order.
//
// Right operands, [depth, columns], lie in panels of `Tile::columns` columns, each [depth][width];
// the last panel is only as wide as it must be, in whole vectors.
#pragma once

#include <cstdint>

#include "dispatch.h"

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

// One tile: c[rows][ldc] += a[rows x depth] b[depth][kColumns]; a(i, k) = a[i * row_stride + k *
// depth_stride].
template <int kRows, int kColumns, class acc_t>
FASTSSL_INLINE void multiply_tile(const acc_t* a, int64_t row_stride, int64_t depth_stride,
                                  const acc_t* b, int64_t depth, acc_t* c, int64_t ldc) {
  // A sum of its own for each block of the depth: small terms would be lost in one long running
  // sum.
  acc_t sum[kRows][kColumns] = {};
  for (int64_t k = 0; k < depth; ++k) {
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const acc_t scale = a[i * row_stride + k * depth_stride];
#pragma omp simd
      for (int j = 0; j < kColumns; ++j) sum[i][j] += scale * b[k * kColumns + j];
    }
  }
  for (int i = 0; i < kRows; ++i) {
#pragma omp simd
    for (int j = 0; j < kColumns; ++j) c[i * ldc + j] += sum[i][j];
  }
}

// One panel of the right operand against one row tile of the left.
template <class Isa, class acc_t>
FASTSSL_INLINE void multiply_panel(const acc_t* a, int64_t row_stride, int64_t depth_stride,
                                   const acc_t* b, int64_t width, int64_t depth, acc_t* c,
                                   int64_t ldc) {
  constexpr int kRows = Isa::kRows, kLanes = Isa::kBytes / sizeof(acc_t);
  static_assert(Isa::kVectors <= 3);
  if (width == 3 * kLanes) {
    multiply_tile<kRows, 3 * kLanes>(a, row_stride, depth_stride, b, depth, c, ldc);
  } else if (width == 2 * kLanes) {
    multiply_tile<kRows, 2 * kLanes>(a, row_stride, depth_stride, b, depth, c, ldc);
  } else {
    multiply_tile<kRows, kLanes>(a, row_stride, depth_stride, b, depth, c, ldc);
  }
}

}  // namespace fastssl::cpu
