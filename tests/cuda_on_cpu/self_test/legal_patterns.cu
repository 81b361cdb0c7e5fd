// What kernels do and may do: the checker must leave all of it alone, in every order of threads.
#include <cstring>

#include "kernels/cuda/launch.cuh"
#include "runtime/bind.h"

namespace {

using fastssl::cuda::launch;
using fastssl::cuda::shared_bytes;
using fastssl::cuda::SharedMemory;

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kThreads = 64;

int blocks_for(int n) { return (n + kThreads - 1) / kThreads; }

// ---- blocks that talk through a fence and an atomic ---------------------------------------------

// The last block to take a ticket sums the parts of all.
__global__ void last_block_sum(const float* values, float* parts, unsigned* ticket, float* sum,
                               int n, bool all_threads_fence) {
  FASTSSL_SHARED(float, row, [kThreads]);
  FASTSSL_SHARED(bool, is_last, [1]);
  float own = 0;
  for (int i = blockIdx.x * kThreads + threadIdx.x; i < n; i += gridDim.x * kThreads)
    own += values[i];
  row[threadIdx.x] = own;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (int(threadIdx.x) < half) row[threadIdx.x] += row[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x == 5) parts[blockIdx.x] = row[0];
  if (all_threads_fence) __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    if (!all_threads_fence) __threadfence();
    is_last[0] = atomicInc(ticket, gridDim.x - 1) == gridDim.x - 1;
  }
  __syncthreads();
  if (!is_last[0] || threadIdx.x != 9) return;
  float total = 0;
  for (unsigned block = 0; block < gridDim.x; ++block) total += parts[block];
  *sum = total;
}

BIND(
    "last_block_sum", "values, parts, ticket, sum, n, all_threads_fence",
    +[](const float* values, float* parts, unsigned* ticket, float* sum, int n,
        bool all_threads_fence, cudaStream_t stream) {
      return launch(last_block_sum, {5, kThreads, 0, stream}, values, parts, ticket, sum, n,
                    all_threads_fence);
    });

// Each lane writes, the warp meets, its first lane publishes for all.
__global__ void last_warp_sum(const float* values, float* parts, unsigned* ticket, float* sum) {
  const int i = blockIdx.x * 32 + threadIdx.x;
  parts[i] = 2 * values[i];
  __syncwarp();
  unsigned place = 0;
  if (threadIdx.x == 0) {
    __threadfence();
    place = atomicAdd(ticket, 1u);
  }
  __syncwarp();
  place = __shfl_sync(kAllLanes, place, 0);
  if (place != gridDim.x - 1) return;
  float own = 0;
  for (unsigned block = 0; block < gridDim.x; ++block) own += parts[block * 32 + threadIdx.x];
  for (int offset = 16; offset > 0; offset /= 2) own += __shfl_down_sync(kAllLanes, own, offset);
  if (threadIdx.x == 0) *sum = own;
}

BIND(
    "last_warp_sum", "values, parts, ticket, sum",
    +[](const float* values, float* parts, unsigned* ticket, float* sum, cudaStream_t stream) {
      return launch(last_warp_sum, {4, 32, 0, stream}, values, parts, ticket, sum);
    });

// The warp that comes last in its block reads what the others wrote, without a barrier.
__global__ void last_warp_of_block(const float* values, float* sum) {
  FASTSSL_SHARED(float, parts, [4]);
  FASTSSL_SHARED(unsigned, arrived, [1]);
  if (threadIdx.x == 0) arrived[0] = 0;
  __syncthreads();
  if (threadIdx.x % 32 != 0) return;
  parts[threadIdx.x / 32] = values[threadIdx.x];
  __threadfence_block();
  if (atomicAdd(&arrived[0], 1u) == 3) *sum = parts[0] + parts[1] + parts[2] + parts[3];
}

BIND(
    "last_warp_of_block", "values, sum", +[](const float* values, float* sum, cudaStream_t stream) {
      return launch(last_warp_of_block, {1, 128, 0, stream}, values, sum);
    });

// ---- within a block -----------------------------------------------------------------------------

__global__ void histogram(const int* values, int* counts, int n) {
  FASTSSL_SHARED(int, own, [8]);
  if (threadIdx.x < 8) own[threadIdx.x] = 0;
  __syncthreads();
  for (int i = blockIdx.x * kThreads + threadIdx.x; i < n; i += gridDim.x * kThreads) {
    atomicAdd(&own[values[i]], 1);
  }
  __syncthreads();
  if (threadIdx.x < 8) atomicAdd(&counts[threadIdx.x], own[threadIdx.x]);
}

BIND(
    "histogram", "values, counts, n",
    +[](const int* values, int* counts, int n, cudaStream_t stream) {
      const cudaError_t status = cudaMemsetAsync(counts, 0, 8 * sizeof(int), stream);
      if (status != cudaSuccess) return status;
      return launch(histogram, {3, kThreads, 0, stream}, values, counts, n);
    });

// Keeps the odd values: a vote counts them, its mask is the mask of the shuffle that follows.
__global__ void compact(const int* values, int* kept, int* count, int n) {
  const int i = blockIdx.x * kThreads + threadIdx.x, lane = threadIdx.x % 32;
  const bool odd = i < n && values[i] % 2 != 0;
  const unsigned mask = __ballot_sync(kAllLanes, odd);
  if (odd) {
    const int leader = __ffs(mask) - 1;
    int base = 0;
    if (lane == leader) base = atomicAdd(count, __popc(mask));
    base = __shfl_sync(mask, base, leader);
    kept[base + __popc(mask & ((1u << lane) - 1))] = values[i];
  }
  const int in_block = __syncthreads_count(odd);
  if (threadIdx.x == 0) atomicMax(count + 1, in_block);
}

BIND(
    "compact", "values, kept, count, n",
    +[](const int* values, int* kept, int* count, int n, cudaStream_t stream) {
      return launch(compact, {blocks_for(n), kThreads, 0, stream}, values, kept, count, n);
    });

// A warp's own row, rewritten by its neighbours' values, ordered by __syncwarp alone.
__global__ void rotate(int* rotated, int steps) {
  FASTSSL_SHARED(int, rows, [2][32]);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  rows[warp][lane] = lane;
  __syncwarp();
  for (int step = 0; step < steps; ++step) {
    const int next = rows[warp][(lane + 1) % 32];
    __syncwarp();
    rows[warp][lane] = next;
    __syncwarp();
  }
  rotated[blockIdx.x * kThreads + threadIdx.x] = rows[warp][lane];
}

BIND(
    "rotate", "rotated, steps", +[](int* rotated, int steps, cudaStream_t stream) {
      return launch(rotate, {2, kThreads, 0, stream}, rotated, steps);
    });

// Two halves of a warp go their own ways, each with barriers of its own, and meet again.
__global__ void halves(const float* values, float* swapped) {
  FASTSSL_SHARED(float, row, [32]);
  const int lane = threadIdx.x;
  row[lane] = values[lane];
  float got;
  if (lane < 16) {
    __syncwarp(0x0000ffffu);
    got = row[15 - lane];
    __syncwarp(0x0000ffffu);
  } else {
    __syncwarp(0xffff0000u);
    got = row[47 - lane] + __shfl_xor_sync(0xffff0000u, 0.0f, 1);
    __syncwarp(0xffff0000u);
  }
  row[lane] = got;
  __syncwarp();
  swapped[lane] = row[31 - lane];
}

BIND(
    "halves", "values, swapped", +[](const float* values, float* swapped, cudaStream_t stream) {
      return launch(halves, {1, 32, 0, stream}, values, swapped);
    });

// While one buffer is read the other is filled; one barrier a step.
__global__ void double_buffered(const float* rows, float* column_sums, int n) {
  SharedMemory shared;
  float* buffers[2] = {shared.take<float>(kThreads), shared.take<float>(kThreads)};
  float sum = 0;
  buffers[0][threadIdx.x] = rows[threadIdx.x];
  for (int row = 0; row < n; ++row) {
    __syncthreads();
    if (row + 1 < n) {
      buffers[(row + 1) % 2][threadIdx.x] = rows[(row + 1) * kThreads + threadIdx.x];
    }
    sum += buffers[row % 2][kThreads - 1 - threadIdx.x];
  }
  column_sums[kThreads - 1 - threadIdx.x] = sum;
}

BIND(
    "double_buffered", "rows, column_sums, n",
    +[](const float* rows, float* column_sums, int n, cudaStream_t stream) {
      return launch(double_buffered, {1, kThreads, 2 * shared_bytes<float>(kThreads), stream}, rows,
                    column_sums, n);
    });

// Whole warps without a row leave before the warp operations.
__global__ void row_sums(const float* rows, float* sums, int count, int width) {
  const int row = blockIdx.x * 2 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= count) return;
  float sum = 0;
  for (int i = lane; i < width; i += 32) sum += rows[row * width + i];
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(kAllLanes, sum, offset);
  if (lane == 0) sums[row] = sum;
}

BIND(
    "row_sums", "rows, sums, count, width",
    +[](const float* rows, float* sums, int count, int width, cudaStream_t stream) {
      return launch(row_sums, {(count + 1) / 2, kThreads, 0, stream}, rows, sums, count, width);
    });

// ---- memory -------------------------------------------------------------------------------------

__global__ void vector_copy(const float* from, float* to, int64_t n) {
  const int64_t first = blockIdx.x * kThreads + threadIdx.x, stride = gridDim.x * kThreads;
  for (int64_t i = first; i < n / 4; i += stride) {
    reinterpret_cast<float4*>(to)[i] = __ldg(reinterpret_cast<const float4*>(from) + i);
  }
  for (int64_t i = n / 4 * 4 + first; i < n; i += stride) to[i] = from[i];
}

BIND(
    "vector_copy", "from, to, n",
    +[](const float* from, float* to, int64_t n, cudaStream_t stream) {
      return launch(vector_copy, {2, kThreads, 0, stream}, from, to, n);
    });

// Every byte of three pieces, up to their ends, and of a static array read as vectors.
__global__ void carved_to_the_ends(float* sums, int n) {
  SharedMemory shared;
  float* floats = shared.take<float>(n);
  unsigned char* bytes = shared.take<unsigned char>(n);
  double* doubles = shared.take<double>(n);
  FASTSSL_SHARED(__align__(16) float, fours, [kThreads][4]);
  for (int i = threadIdx.x; i < n; i += kThreads) {
    floats[i] = float(i);
    bytes[i] = (unsigned char)(i);
    doubles[i] = i;
  }
  for (int i = 0; i < 4; ++i) fours[threadIdx.x][i] = 1;
  __syncthreads();
  double sum = 0;
  for (int i = 0; i < n; ++i) sum += floats[i] + bytes[i] + doubles[n - 1 - i];
  const float4 four = *reinterpret_cast<const float4*>(fours[kThreads - 1 - threadIdx.x]);
  sums[threadIdx.x] = float(sum) + four.x + four.y + four.z + four.w;
}

BIND(
    "carved_to_the_ends", "sums, n", +[](float* sums, int n, cudaStream_t stream) {
      const size_t bytes =
          shared_bytes<float>(n) + shared_bytes<unsigned char>(n) + shared_bytes<double>(n);
      return launch(carved_to_the_ends, {1, kThreads, bytes, stream}, sums, n);
    });

struct Record {
  float values[12];
};

// Neighbouring bytes by different threads, whole structs, memcpy and memset.
__global__ void bytes_and_structs(const float* records, float* copies, unsigned char* marks) {
  Record record = reinterpret_cast<const Record*>(records)[threadIdx.x];
  record.values[0] += 1;
  reinterpret_cast<Record*>(copies)[threadIdx.x] = record;
  marks[threadIdx.x] = (unsigned char)(threadIdx.x);
  __syncthreads();
  if (threadIdx.x == 0) {
    float first[12];
    std::memcpy(first, copies, sizeof first);
    std::memset(marks, int(first[0]), 4);
  }
}

BIND(
    "bytes_and_structs", "records, copies, marks",
    +[](const float* records, float* copies, unsigned char* marks, cudaStream_t stream) {
      return launch(bytes_and_structs, {1, 40, 0, stream}, records, copies, marks);
    });

__constant__ float weights[8];

// A table from the host, a second launch that reads what the first wrote, an empty launch.
__global__ void scale(const float* from, float* to, int n) {
  const int i = blockIdx.x * kThreads + threadIdx.x;
  if (i < n) to[i] = from[i] * weights[i % 8];
}

BIND(
    "scale_twice", "table, values, once, twice, n",
    +[](const float* table, const float* values, float* once, float* twice, int n,
        cudaStream_t stream) {
      cudaError_t status = cudaMemcpyToSymbolAsync(weights, table, sizeof weights, 0,
                                                   cudaMemcpyDeviceToDevice, stream);
      if (status != cudaSuccess) return status;
      const int blocks = blocks_for(n);
      status = launch(scale, {blocks, kThreads, 0, stream}, values, once, n);
      if (status != cudaSuccess) return status;
      return launch(scale, {blocks, kThreads, 0, stream}, once, twice, n);
    });

}  // namespace
