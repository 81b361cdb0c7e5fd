// Reductions over a warp. Every lane of the warp must call them; every lane gets the result.
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

}  // namespace fastssl::cuda
