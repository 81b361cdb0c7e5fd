// Matrix products by a whole block, staged through shared memory, for kernels that consume a
// product where it is made instead of writing it down.
#pragma once

#include "numeric.cuh"

namespace fastssl::cuda {

constexpr int kProductThreads = 256;  // 16 x 16, each with 4 x 4 entries of a tile
constexpr int kProductTile = 64;
constexpr int kProductDepth = 16;
// Rows of the stage are an odd number of words apart, so that both ways of writing them meet
// different banks.
constexpr int kProductStride = kProductTile + 1;
constexpr int kProductStage = 2 * kProductDepth * kProductStride;  // elements of shared memory

// A matrix in any memory.
template <class T>
struct View {
  T* data;
  int64_t stride;
};

// stage[k][i] = view(first + i, k0 + k), or view(k0 + k, first + i) if it is transposed; zero
// beyond the matrix. Neighbouring threads read neighbours of a row of the view.
template <bool kTransposed, class T, class acc>
__device__ __forceinline__ void stage_operand(const View<T>& view, int first, int count, int k0,
                                              int depth, acc* stage) {
  for (int e = threadIdx.x; e < kProductTile * kProductDepth; e += kProductThreads) {
    const int i = kTransposed ? e % kProductTile : e / kProductDepth;
    const int k = kTransposed ? e / kProductTile : e % kProductDepth;
    const bool is_inside = first + i < count && k0 + k < depth;
    const int row = kTransposed ? k0 + k : first + i, column = kTransposed ? first + i : k0 + k;
    acc x = 0;
    if (is_inside) x = load(view.data[row * view.stride + column]);
    stage[k * kProductStride + i] = x;
  }
}

// finish(i, j, sum_k left(i, k) right(k, j)) for i < rows and j < columns. A transposed operand is
// stored the other way round. Every thread of the block must call it; it begins with a barrier, so
// that what the block wrote before may be read.
template <bool kLeftTransposed, bool kRightTransposed, class acc, class L, class R, class Finish>
__device__ __forceinline__ void multiply(const View<L>& left, const View<R>& right, int rows,
                                         int columns, int depth, acc* stage, const Finish& finish) {
  acc *a = stage, *b = stage + kProductDepth * kProductStride;
  const int y = threadIdx.x / 16, x = threadIdx.x % 16;
  for (int i0 = 0; i0 < rows; i0 += kProductTile) {
    for (int j0 = 0; j0 < columns; j0 += kProductTile) {
      acc sum[4][4] = {};
      for (int k0 = 0; k0 < depth; k0 += kProductDepth) {
        __syncthreads();
        stage_operand<kLeftTransposed>(left, i0, rows, k0, depth, a);
        stage_operand<!kRightTransposed>(right, j0, columns, k0, depth, b);
        __syncthreads();
#pragma unroll 4
        for (int k = 0; k < kProductDepth; ++k) {
          acc of_a[4];
#pragma unroll
          for (int r = 0; r < 4; ++r) of_a[r] = a[k * kProductStride + y + 16 * r];
#pragma unroll
          for (int c = 0; c < 4; ++c) {
            if (j0 + 16 * c < columns) {  // the same for the whole block
              const acc of_b = b[k * kProductStride + x + 16 * c];
#pragma unroll
              for (int r = 0; r < 4; ++r) sum[r][c] += of_a[r] * of_b;
            }
          }
        }
      }
#pragma unroll
      for (int r = 0; r < 4; ++r) {
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          const int i = i0 + y + 16 * r, j = j0 + x + 16 * c;
          if (i < rows && j < columns) finish(i, j, sum[r][c]);
        }
      }
    }
  }
}

}  // namespace fastssl::cuda
