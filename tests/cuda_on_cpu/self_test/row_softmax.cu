// One block takes rows in a grid-stride loop. A row's exponentials stay in shared memory, and so
// does the block's share of the mean, added to the result once at the end.
#include "row_softmax.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/launch.cuh"

namespace fastssl::cuda {
namespace {

constexpr int kThreads = 64;
constexpr int kWarps = kThreads / kWarp;
constexpr unsigned kAllLanes = 0xffffffffu;

// One array for all reductions of a kernel: within block_reduce each Combine would get its own.
template <class acc_t>
__device__ __forceinline__ acc_t* warp_partials() {
  FASTSSL_SHARED(acc_t, partials, [kWarps]);
  return partials;
}

template <class acc_t, class Combine>
__device__ __forceinline__ acc_t block_reduce(acc_t value, Combine combine) {
  acc_t* partials = warp_partials<acc_t>();
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    value = combine(value, __shfl_xor_sync(kAllLanes, value, offset));
  }
  if (threadIdx.x % kWarp == 0) partials[threadIdx.x / kWarp] = value;
  __syncthreads();
  value = partials[0];
#pragma unroll
  for (int warp = 1; warp < kWarps; ++warp) value = combine(value, partials[warp]);
  __syncthreads();
  return value;
}

template <class scalar_t, class acc_t>
__global__ void __launch_bounds__(kThreads)
    row_softmax_kernel(const scalar_t* __restrict__ logits, scalar_t* __restrict__ probabilities,
                       acc_t* __restrict__ mean, int64_t N, int64_t C) {
  SharedMemory shared;
  acc_t* row = shared.take<acc_t>(C);
  acc_t* sums = shared.take<acc_t>(C);
  for (int64_t c = threadIdx.x; c < C; c += kThreads) sums[c] = 0;
  for (int64_t n = blockIdx.x; n < N; n += gridDim.x) {
    acc_t maximum = -INFINITY;
    for (int64_t c = threadIdx.x; c < C; c += kThreads) {
      row[c] = acc_t(logits[n * C + c]);
      maximum = max(maximum, row[c]);
    }
    maximum = block_reduce(maximum, [](acc_t x, acc_t y) { return max(x, y); });
    acc_t sum = 0;
    for (int64_t c = threadIdx.x; c < C; c += kThreads) {
      row[c] = exp(row[c] - maximum);
      sum += row[c];
    }
    sum = block_reduce(sum, [](acc_t x, acc_t y) { return x + y; });
    for (int64_t c = threadIdx.x; c < C; c += kThreads) {
      const acc_t probability = row[c] / sum;
      probabilities[n * C + c] = scalar_t(probability);
      sums[c] += probability;
    }
  }
  for (int64_t c = threadIdx.x; c < C; c += kThreads) atomicAdd(&mean[c], sums[c] / acc_t(N));
}

}  // namespace

template <class scalar_t, class acc_t>
cudaError_t row_softmax(const scalar_t* logits, scalar_t* probabilities, acc_t* mean, int64_t N,
                        int64_t C, cudaStream_t stream) {
  int multiprocessors = 0;
  cudaError_t status = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0);
  if (status != cudaSuccess) return status;
  const unsigned grid = unsigned(N < multiprocessors ? N : multiprocessors);
  return launch(row_softmax_kernel<scalar_t, acc_t>,
                {grid, kThreads, 2 * shared_bytes<acc_t>(C), stream}, logits, probabilities, mean,
                N, C);
}

template cudaError_t row_softmax(const float*, float*, float*, int64_t, int64_t, cudaStream_t);
template cudaError_t row_softmax(const double*, double*, double*, int64_t, int64_t, cudaStream_t);
template cudaError_t row_softmax(const __half*, __half*, float*, int64_t, int64_t, cudaStream_t);
template cudaError_t row_softmax(const __nv_bfloat16*, __nv_bfloat16*, float*, int64_t, int64_t,
                                 cudaStream_t);

}  // namespace fastssl::cuda
