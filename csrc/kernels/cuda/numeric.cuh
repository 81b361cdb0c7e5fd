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

// How many elements a load of 16 bytes brings.
template <class scalar_t>
constexpr int kPer16Bytes = 16 / sizeof(scalar_t);

// Whether each row of C elements can be read by load16, the one at `row` being any of them.
template <class scalar_t>
__device__ __forceinline__ bool rows_fit_16_bytes(const scalar_t* row, int64_t C) {
  return C % kPer16Bytes<scalar_t> == 0 && reinterpret_cast<uintptr_t>(row) % 16 == 0;
}

// to = from [kPer16Bytes], widened, by one load; tests/test_ptxas.py finds it in the machine code.
template <class scalar_t>
__device__ __forceinline__ void load16(const scalar_t* __restrict__ from,
                                       acc_t<scalar_t> (&to)[kPer16Bytes<scalar_t>]) {
  const uint4 words = *reinterpret_cast<const uint4*>(from);
  const scalar_t* elements = reinterpret_cast<const scalar_t*>(&words);
#pragma unroll
  for (int k = 0; k < kPer16Bytes<scalar_t>; ++k) to[k] = load(elements[k]);
}

__device__ __forceinline__ void store(float* to, float x) { *to = x; }
__device__ __forceinline__ void store(double* to, double x) { *to = x; }
__device__ __forceinline__ void store(__half* to, float x) { *to = __float2half_rn(x); }
__device__ __forceinline__ void store(__nv_bfloat16* to, float x) { *to = __float2bfloat16_rn(x); }

__device__ __forceinline__ float exponential(float x) { return expf(x); }
__device__ __forceinline__ double exponential(double x) { return exp(x); }

__device__ __forceinline__ float inverse_root(float x) { return rsqrtf(x); }
__device__ __forceinline__ double inverse_root(double x) { return rsqrt(x); }

// ln max(x, smallest normal).
__device__ __forceinline__ float log_clamped(float x) {
  return logf(x > std::numeric_limits<float>::min() ? x : std::numeric_limits<float>::min());
}
__device__ __forceinline__ double log_clamped(double x) {
  return log(x > std::numeric_limits<double>::min() ? x : std::numeric_limits<double>::min());
}

constexpr int64_t ceil_div(int64_t n, int64_t d) { return (n + d - 1) / d; }

}  // namespace fastssl::cuda
