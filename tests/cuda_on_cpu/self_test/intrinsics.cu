// Device functions whose results test_intrinsics.py compares with NumPy's.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/launch.cuh"
#include "runtime/bind.h"

namespace {

using fastssl::cuda::launch;

constexpr unsigned kAllLanes = 0xffffffffu;

// results [rows, 32]: a row for each operation, a column for each lane.
__global__ void warp_operations(const int* values, int* results) {
  const int lane = threadIdx.x, value = values[lane];
  int row = 0;
  const auto keep = [&](int result) { results[row++ * 32 + lane] = result; };
  keep(__shfl_sync(kAllLanes, value, 5));
  keep(__shfl_sync(kAllLanes, value, lane + 1, 8));
  keep(__shfl_up_sync(kAllLanes, value, 3));
  keep(__shfl_up_sync(kAllLanes, value, 3, 16));
  keep(__shfl_down_sync(kAllLanes, value, 3));
  keep(__shfl_down_sync(kAllLanes, value, 3, 16));
  keep(__shfl_xor_sync(kAllLanes, value, 17));
  keep(int(__shfl_xor_sync(kAllLanes, double(value), 1, 4)));
  keep(int(__ballot_sync(kAllLanes, value % 3 == 0)));
  keep(__any_sync(kAllLanes, value == 31));
  keep(__all_sync(kAllLanes, value < 31));
  keep(__syncthreads_count(value % 2));
  keep(__syncthreads_or(value == 40));
  keep(__syncthreads_and(value >= 0));
}

BIND(
    "warp_operations", "values, results",
    +[](const int* values, int* results, cudaStream_t stream) {
      return launch(warp_operations, {1, 32, 0, stream}, values, results);
    });

// cells [12], zeros on entry: one for each operation that all 64 threads do.
__global__ void atomics(unsigned* cells, float* floats, double* doubles, __half2* halves) {
  const unsigned i = threadIdx.x;
  atomicAdd(&cells[0], i);
  atomicMax(&cells[1], i);
  atomicSub(&cells[2], 1u);
  atomicInc(&cells[3], 9u);
  atomicOr(&cells[4], 1u << i % 32);
  atomicXor(&cells[5], i);
  atomicCAS(&cells[6], 0u, 7u);
  atomicExch(&cells[7], 3u);
  atomicDec(&cells[8], 5u);
  atomicMin(reinterpret_cast<int*>(&cells[9]), -int(i));
  atomicAnd(&cells[10], 0u);
  atomicAdd(floats, 1);
  atomicAdd(doubles, 0.5);
  atomicAdd(halves, __floats2half2_rn(1, 2));
}

BIND(
    "atomics", "cells, floats, doubles, halves",
    +[](unsigned* cells, float* floats, double* doubles, __half* halves, cudaStream_t stream) {
      return launch(atomics, {1, 64, 0, stream}, cells, floats, doubles,
                    reinterpret_cast<__half2*>(halves));
    });

// 8 values at a time as one 16-byte load, converted pair by pair.
template <class Pair, class ToFloats, class ToPair>
__device__ void scale_eight(const void* from, void* to, float factor, ToFloats to_floats,
                            ToPair to_pair) {
  uint4 raw = __ldg(static_cast<const uint4*>(from) + threadIdx.x);
  Pair* pairs = reinterpret_cast<Pair*>(&raw);
  for (int i = 0; i < 4; ++i) {
    const float2 both = to_floats(pairs[i]);
    pairs[i] = to_pair(both.x * factor, both.y * factor);
  }
  static_cast<uint4*>(to)[threadIdx.x] = raw;
}

__global__ void scale_half(const __half* from, __half* to, float factor) {
  scale_eight<__half2>(
      from, to, factor, [](__half2 pair) { return __half22float2(pair); },
      [](float x, float y) { return __floats2half2_rn(x, y); });
}
__global__ void scale_bfloat16(const __nv_bfloat16* from, __nv_bfloat16* to, float factor) {
  scale_eight<__nv_bfloat162>(
      from, to, factor, [](__nv_bfloat162 pair) { return __bfloat1622float2(pair); },
      [](float x, float y) { return __floats2bfloat162_rn(x, y); });
}

BIND(
    "scale_float16", "from, to, n, factor",
    +[](const __half* from, __half* to, int n, float factor, cudaStream_t stream) {
      return launch(scale_half, {1, n / 8, 0, stream}, from, to, factor);
    });
BIND(
    "scale_bfloat16", "from, to, n, factor",
    +[](const __nv_bfloat16* from, __nv_bfloat16* to, int n, float factor, cudaStream_t stream) {
      return launch(scale_bfloat16, {1, n / 8, 0, stream}, from, to, factor);
    });

// One value at a time, there and back, and the scalar arithmetic of both types.
__global__ void round_trip(const float* values, float* as_half, float* as_bfloat16) {
  const float value = values[threadIdx.x];
  const __half half = __float2half_rn(value) + __float2half(0.0f);
  const __nv_bfloat16 bfloat16 = __float2bfloat16_rn(value);
  as_half[threadIdx.x] = __half2float(half);
  as_bfloat16[threadIdx.x] = __bfloat162float(bfloat16 * __float2bfloat16(1.0f));
}

BIND(
    "round_trip", "values, as_half, as_bfloat16, n",
    +[](const float* values, float* as_half, float* as_bfloat16, int n, cudaStream_t stream) {
      return launch(round_trip, {1, n, 0, stream}, values, as_half, as_bfloat16);
    });

// results [rows, n]
__global__ void float_functions(const float* values, float* results) {
  const int i = threadIdx.x, n = blockDim.x;
  const float x = values[i];
  int row = 0;
  const auto keep = [&](float result) { results[row++ * n + i] = result; };
  keep(__expf(x));
  keep(__logf(fabsf(x)));
  keep(rsqrtf(fabsf(x)));
  keep(__fdividef(x, 3.0f));
  keep(sinpif(x));
  keep(cospif(x));
  keep(__saturatef(x));
  keep(max(x, 0.25f));
  keep(min(x, 1.0f));
  keep(float(__float2int_rn(x)));
  keep(float(__float2int_rd(x)));
  keep(float(__float2uint_rz(x)));
  keep(__uint_as_float(__float_as_uint(x) ^ 0x80000000u));
  keep(fmaf(x, 2.0f, 1.0f));
}

BIND(
    "float_functions", "values, results, n",
    +[](const float* values, float* results, int n, cudaStream_t stream) {
      return launch(float_functions, {1, n, 0, stream}, values, results);
    });

// results [rows, n]
__global__ void integer_functions(const unsigned* values, unsigned* results) {
  const int i = threadIdx.x, n = blockDim.x;
  const unsigned x = values[i], y = values[n - 1 - i];
  int row = 0;
  const auto keep = [&](unsigned result) { results[row++ * n + i] = result; };
  keep(__popc(x));
  keep(__clz(int(x)));
  keep(__ffs(int(x)));
  keep(__brev(x));
  keep(__umulhi(x, y));
  keep(unsigned(__mulhi(int(x), int(y))));
  keep(min(x, 7));
  keep(__funnelshift_l(x, y, 5));
  keep(__byte_perm(x, y, 0x7531));
  keep(unsigned(__umul64hi(uint64_t(x) << 32, uint64_t(y) << 32) >> 32));
}

BIND(
    "integer_functions", "values, results, n",
    +[](const unsigned* values, unsigned* results, int n, cudaStream_t stream) {
      return launch(integer_functions, {1, n, 0, stream}, values, results);
    });

// where [blocks * threads, 6] tells each thread's place; the device's answers go to `device`.
__global__ void places(unsigned* where) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  unsigned* own = where + 6 * (block * blockDim.x * blockDim.y * blockDim.z + thread);
  own[0] = blockIdx.x, own[1] = blockIdx.y, own[2] = blockIdx.z;
  own[3] = threadIdx.x, own[4] = threadIdx.y, own[5] = threadIdx.z;
}

BIND(
    "places", "where", +[](unsigned* where, cudaStream_t stream) {
      return launch(places, {dim3(2, 3, 2), dim3(4, 2, 3), 0, stream}, where);
    });

BIND(
    "empty_grid", "where", +[](unsigned* where, cudaStream_t stream) {
      return launch(places, {0, 32, 0, stream}, where);
    });

}  // namespace
