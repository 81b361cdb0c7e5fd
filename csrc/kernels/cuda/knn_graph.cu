#include "../knn_graph.h"

#include "product.cuh"

namespace fastssl::cuda {
namespace {

constexpr int kQueries = kProductTile;  // of a block
constexpr int kWarps = kProductThreads / kWarp;
constexpr int64_t kMostShared =
    256;  // capacity of the lists that fit shared memory, 128 KB of them

// A list takes a tile's columns on top of its k best, and is sorted as a power of two.
int64_t capacity_of(int64_t k) {
  int64_t capacity = 1;
  while (capacity < k + kProductTile) capacity *= 2;
  return capacity;
}

// A positive value and the row it belongs to as one number, never 0: larger is better, and so is a
// lower index.
__device__ __forceinline__ uint64_t key_of(float value, int64_t index) {
  return uint64_t(__float_as_uint(value)) << 32 | (0xffffffffu - uint32_t(index));
}
__device__ __forceinline__ float value_of(uint64_t key) {
  return __uint_as_float(uint32_t(key >> 32));
}
__device__ __forceinline__ int32_t index_of(uint64_t key) {
  return int32_t(0xffffffffu - uint32_t(key));
}

// Bitonic, by a warp, the largest first; `capacity` is a power of two.
__device__ __forceinline__ void sort_descending(uint64_t* keys, int capacity, int lane) {
  for (int size = 2; size <= capacity; size *= 2) {
    for (int stride = size / 2; stride > 0; stride /= 2) {
      for (int pair = lane; pair < capacity / 2; pair += kWarp) {
        const int i = 2 * pair - (pair & (stride - 1)), j = i + stride;
        const uint64_t a = keys[i], b = keys[j];
        if ((a < b) == ((i & size) == 0)) {
          keys[i] = b;
          keys[j] = a;
        }
      }
      __syncwarp();
    }
  }
}

// A block owns 64 queries and multiplies them with 64 rows at a time. A list [capacity] holds what
// its query has found, in any order; one that may not hold another tile's worth is sorted, and from
// then on products below its k-th are turned away.
__global__ void __launch_bounds__(kProductThreads, 1)
    nearest_rows_kernel(const float* __restrict__ rows, const float* __restrict__ queries,
                        const int32_t* __restrict__ own, uint64_t* workspace,
                        int32_t* __restrict__ index, float* __restrict__ value, int64_t N,
                        int64_t M, int D, int k, int capacity) {
  SharedMemory shared;
  float* stage = shared.take<float>(kProductStage);
  uint64_t* lists = workspace == nullptr ? shared.take<uint64_t>(kQueries * capacity)
                                         : workspace + int64_t(blockIdx.x) * kQueries * capacity;
  FASTSSL_SHARED(int, counts, [kQueries]);
  FASTSSL_SHARED(float, least, [kQueries]);
  const int64_t first = int64_t(blockIdx.x) * kQueries;
  const int count = int(M - first < kQueries ? M - first : kQueries);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  if (threadIdx.x < kQueries) {
    counts[threadIdx.x] = 0;
    least[threadIdx.x] = std::numeric_limits<float>::min();
  }
  const View<const float> left{queries + first * D, D};
  for (int64_t column = 0; column < N; column += kProductTile) {
    const int columns = int(N - column < kProductTile ? N - column : kProductTile);
    const View<const float> right{rows + column * D, D};
    multiply<false, true>(left, right, count, columns, D, stage, [&](int i, int j, float product) {
      const int64_t row = column + j, self = own == nullptr ? first + i : own[first + i];
      if (product < least[i] || row == self) return;
      lists[i * capacity + atomicAdd(&counts[i], 1)] = key_of(product, row);
    });
    __syncthreads();
    const bool is_last = column + kProductTile >= N;
    for (int i = warp; i < count; i += kWarps) {
      const int found = counts[i];
      if (!is_last && found <= capacity - kProductTile) continue;
      uint64_t* keys = lists + i * capacity;
      for (int e = found + lane; e < capacity; e += kWarp) keys[e] = 0;
      __syncwarp();
      sort_descending(keys, capacity, lane);
      if (lane == 0 && found >= k) {
        counts[i] = k;
        least[i] = value_of(keys[k - 1]);
      }
      if (!is_last) continue;
      for (int t = lane; t < k; t += kWarp) {
        index[(first + i) * k + t] = keys[t] == 0 ? -1 : index_of(keys[t]);
        value[(first + i) * k + t] = value_of(keys[t]);
      }
    }
  }
}

}  // namespace

int64_t nearest_rows_workspace(int64_t M, int64_t k) {
  const int64_t capacity = capacity_of(k);
  return capacity <= kMostShared ? 0 : ceil_div(M, kQueries) * kQueries * capacity;
}

cudaError_t nearest_rows(const float* rows, const float* queries, const int32_t* own,
                         uint64_t* workspace, int32_t* index, float* value, int64_t N, int64_t M,
                         int64_t D, int64_t k, cudaStream_t stream) {
  const int64_t capacity = capacity_of(k);
  const bool is_shared = capacity <= kMostShared;
  const size_t lists = is_shared ? shared_bytes<uint64_t>(kQueries * capacity) : 0;
  const Launch shape{dim3(unsigned(ceil_div(M, kQueries))), dim3(kProductThreads),
                     shared_bytes<float>(kProductStage) + lists, stream};
  return launch(nearest_rows_kernel, shape, rows, queries, own, is_shared ? nullptr : workspace,
                index, value, N, M, int(D), int(k), int(capacity));
}

}  // namespace fastssl::cuda
