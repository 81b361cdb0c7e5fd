// Storage types, what they are accumulated in, and the few functions whose float and double forms
// differ.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <limits>
#include <type_traits>

#include "launch.cuh"

namespace fastssl::cuda {

template <class scalar_t>
using acc_t = std::conditional_t<std::is_same_v<scalar_t, double>, double, float>;

__device__ __forceinline__ float load(float x) { return x; }
__device__ __forceinline__ double load(double x) { return x; }
__device__ __forceinline__ float load(__half x) { return __half2float(x); }
__device__ __forceinline__ float load(__nv_bfloat16 x) { return __bfloat162float(x); }

__device__ __forceinline__ void store(float* to, float x) { *to = x; }
__device__ __forceinline__ void store(double* to, double x) { *to = x; }
__device__ __forceinline__ void store(__half* to, float x) { *to = __float2half_rn(x); }
__device__ __forceinline__ void store(__nv_bfloat16* to, float x) { *to = __float2bfloat16_rn(x); }

__device__ __forceinline__ float exponential(float x) { return expf(x); }
__device__ __forceinline__ double exponential(double x) { return exp(x); }

// ln max(x, smallest normal).
__device__ __forceinline__ float log_clamped(float x) {
  return logf(x > std::numeric_limits<float>::min() ? x : std::numeric_limits<float>::min());
}
__device__ __forceinline__ double log_clamped(double x) {
  return log(x > std::numeric_limits<double>::min() ? x : std::numeric_limits<double>::min());
}

constexpr int64_t ceil_div(int64_t n, int64_t d) { return (n + d - 1) / d; }

}  // namespace fastssl::cuda
