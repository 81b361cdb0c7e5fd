// Kernels that the gates of test_ptxas.py must tell apart; none is ever launched.
#include "kernels/cuda/numeric.cuh"

namespace fastssl::cuda {
namespace {

__global__ void __launch_bounds__(256) wide_kernel(const float* rows, float* sums) {
  float x[4];
  load16(rows + 4 * threadIdx.x, x);
  sums[threadIdx.x] = x[0] + x[1] + x[2] + x[3];
}

template <class scalar_t>
__device__ float first_of(const scalar_t* row) {
  float x[kPer16Bytes<scalar_t>];
  load16(row, x);
  return x[0];
}

// The compiler narrows a load of which one element is used.
template <class scalar_t>
__global__ void __launch_bounds__(256) narrowed_kernel(const scalar_t* rows, float* firsts) {
  firsts[threadIdx.x] = first_of(rows + kPer16Bytes<scalar_t> * threadIdx.x);
}

template <bool kWide>
__global__ void __launch_bounds__(256) flagged_kernel(const float* rows, float* sums) {
  float x[4];
  if constexpr (kWide) {
    load16(rows + 4 * threadIdx.x, x);
  } else {
    for (int k = 0; k < 4; ++k) x[k] = rows[4 * threadIdx.x + k];
  }
  sums[threadIdx.x] = x[0] + x[1] + x[2] + x[3];
}

__global__ void __launch_bounds__(256) indexing_kernel(const int* places, float* counts, int n) {
  float own[64] = {};
  for (int i = 0; i < n; ++i) own[places[i] & 63] += 1;
  counts[threadIdx.x] = own[places[threadIdx.x] & 63];
}

// 96 sums stay in registers: 1024 threads, which nothing rules out here, would not fit.
__global__ void unbounded_kernel(const float* rows, float* sums, int n) {
  float own[96] = {};
  for (int i = 0; i < n; ++i) {
#pragma unroll
    for (int k = 0; k < 96; ++k) own[k] += rows[i] * rows[k + i];
  }
#pragma unroll
  for (int k = 0; k < 96; ++k) sums[96 * threadIdx.x + k] = own[k];
}

}  // namespace

void keep_all(const float* rows, const __half* halves, const int* places, float* sums) {
  launch(wide_kernel, {1, 256}, rows, sums);
  launch(narrowed_kernel<__half>, {1, 256}, halves, sums);
  launch(flagged_kernel<false>, {1, 256}, rows, sums);
  launch(flagged_kernel<true>, {1, 256}, rows, sums);
  launch(indexing_kernel, {1, 256}, places, sums, 1);
  launch(unbounded_kernel, {1, 256}, rows, sums, 1);
}

}  // namespace fastssl::cuda
