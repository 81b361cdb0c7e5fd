// Reductions over a warp and over a block. Every lane of the warp, or thread of the block, must
// call them; every one gets the result.
#pragma once

#include "launch.cuh"

namespace fastssl::cuda {

constexpr unsigned kWholeWarp = 0xffffffffu;

template <class acc_t>
__device__ __forceinline__ acc_t warp_sum(acc_t value) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(kWholeWarp, value, offset);
  }
  return value;
}

template <class acc_t>
__device__ __forceinline__ acc_t warp_max(acc_t value) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    const acc_t other = __shfl_xor_sync(kWholeWarp, value, offset);
    value = other > value ? other : value;
  }
  return value;
}

// Over a block of kThreads threads, in the same order every time: `reduce_warp` is warp_sum or
// warp_max, `combine` its operator.
template <int kThreads, class acc_t, class ReduceWarp, class Combine>
__device__ __forceinline__ acc_t block_reduce(acc_t value, const ReduceWarp& reduce_warp,
                                              const Combine& combine) {
  constexpr int kWarps = kThreads / kWarp;
  FASTSSL_SHARED(acc_t, of_warp, [kWarps]);
  value = reduce_warp(value);
  __syncthreads();  // whoever still reads the last call's values
  if (threadIdx.x % kWarp == 0) of_warp[threadIdx.x / kWarp] = value;
  __syncthreads();
  value = of_warp[0];
#pragma unroll
  for (int w = 1; w < kWarps; ++w) value = combine(value, of_warp[w]);
  return value;
}

template <int kThreads, class acc_t>
__device__ __forceinline__ acc_t block_sum(acc_t value) {
  return block_reduce<kThreads>(
      value, [](acc_t x) { return warp_sum(x); }, [](acc_t x, acc_t y) { return x + y; });
}

template <int kThreads, class acc_t>
__device__ __forceinline__ acc_t block_max(acc_t value) {
  return block_reduce<kThreads>(
      value, [](acc_t x) { return warp_max(x); }, [](acc_t x, acc_t y) { return y > x ? y : x; });
}

}  // namespace fastssl::cuda
