// The frame of losses that are sums over rows of logits, each a function of its row's softmax. Such
// a loss is a class with
//
//   __device__ void add(int64_t n, int lane, RowTotal& total) const;
//
// which a whole warp calls: it adds row n's loss to the total, the same in every lane, and, where
// one is asked for, writes row n of the gradient. A row comes from device memory once, for its
// softmax's statistics; what is read again is in the cache.
#pragma once

#include "../row_loss.h"
#include "softmax.cuh"

namespace fastssl::cuda {

constexpr int kRowsPerBlock = 8;
constexpr int kRowLossThreads = kRowsPerBlock * kWarp;

struct RowTotal {
  double sum = 0;
  int64_t counted = 0;
};

// The softmax of a row of C logits.
template <class scalar_t>
struct SoftmaxRow {
  using acc = acc_t<scalar_t>;

  const scalar_t* row;
  acc maximum, inverse;  // of the logits; 1 / sum e^z

  __device__ __forceinline__ SoftmaxRow(const scalar_t* row, int64_t C, int lane) : row(row) {
    softmax_statistics(row, C, lane, maximum, inverse);
  }
  __device__ __forceinline__ acc z(int64_t c) const { return load(row[c]) - maximum; }
  __device__ __forceinline__ acc e(int64_t c) const { return exponential(z(c)); }
  __device__ __forceinline__ acc p(int64_t c) const { return e(c) * inverse; }
};

// p - q at c, for ratio = q.inverse / p.inverse; exactly 0 for the same logits, which the
// difference of two products is not: one of them is rounded, the other is not.
template <class scalar_t>
__device__ __forceinline__ acc_t<scalar_t> difference(const SoftmaxRow<scalar_t>& p,
                                                      const SoftmaxRow<scalar_t>& q,
                                                      acc_t<scalar_t> ratio, int64_t c) {
  return (p.e(c) - q.e(c) * ratio) * p.inverse;
}

// p x, and 0 where p is 0, whatever x.
template <class acc>
__device__ __forceinline__ acc weighted(acc p, acc x) {
  return p == 0 ? acc(0) : p * x;
}

// Calls body(c) for the lane's share of C columns.
template <class Body>
__device__ __forceinline__ void for_columns(int64_t C, int lane, const Body& body) {
  for (int64_t c = lane; c < C; c += kWarp) body(c);
}

template <class Loss>
__global__ void __launch_bounds__(kRowLossThreads, 1)
    row_loss_kernel(const Loss loss, double* __restrict__ workspace, int64_t N) {
  const int lane = threadIdx.x % kWarp;
  RowTotal total;
  for (int64_t n = int64_t(blockIdx.x) * kRowsPerBlock + threadIdx.x / kWarp; n < N;
       n += int64_t(gridDim.x) * kRowsPerBlock) {
    loss.add(n, lane, total);
  }
  const double sum = block_sum<kRowLossThreads>(lane == 0 ? total.sum : 0.0);
  const double counted = block_sum<kRowLossThreads>(lane == 0 ? double(total.counted) : 0.0);
  if (threadIdx.x != 0) return;
  workspace[blockIdx.x] = sum;
  workspace[kRowLossBlocks + blockIdx.x] = counted;
}

// mean [1] = the sum over rows [0, N) / divisor; counted [1], unless null, the fraction of rows.
template <class Loss, class acc>
cudaError_t launch_row_loss(const Loss& loss, int64_t N, double divisor, double* workspace,
                            acc* mean, cudaStream_t stream, acc* counted = nullptr) {
  const int64_t needed = ceil_div(N, kRowsPerBlock);
  const int64_t blocks = needed < kRowLossBlocks ? needed : kRowLossBlocks;
  const Launch shape{dim3(unsigned(blocks)), dim3(kRowLossThreads), 0, stream};
  const cudaError_t status = launch(row_loss_kernel<Loss>, shape, loss, workspace, N);
  if (status != cudaSuccess) return status;
  return average_partials(workspace, blocks, divisor, mean, counted, N, stream);
}

}  // namespace fastssl::cuda
