#include "../augment.h"

#include "../augment_pipeline.h"
#include "numeric.cuh"
#include "reduce.cuh"

namespace fastssl::cuda {
namespace {

constexpr int kThreads = 256;
static_assert(kThreads == kGrayLevels, "a thread of the block owns a gray level");

// One block, whose two images are in shared memory.
class Block {
 public:
  template <class Body>
  __device__ __forceinline__ void each(int n, const Body& body) const {
    for (int i = threadIdx.x; i < n; i += kThreads) body(i);
    __syncthreads();
  }
  template <class Body>
  __device__ __forceinline__ void each_pixel(int width, int height, const Body& body) const {
    each(width * height, [&](int p) {
      const int y = int(unsigned(p) / unsigned(width));
      body(p - y * width, y, p);
    });
  }
  template <class Body>
  __device__ __forceinline__ int sum(int n, const Body& body) const {
    int total = 0;
    for (int i = threadIdx.x; i < n; i += kThreads) total += body(i);
    return block_sum<kThreads>(total);
  }
  __device__ __forceinline__ void histogram(const uint8_t* channel, int n) const {
    counts[threadIdx.x] = 0;
    __syncthreads();
    each(n, [this, channel](int i) { atomicAdd(counts + channel[i], 1); });
  }
  __device__ __forceinline__ int lowest() const {
    const int level = int(threadIdx.x);
    return kGrayLevels - 1 - block_max<kThreads>(counts[level] != 0 ? kGrayLevels - 1 - level : 0);
  }
  __device__ __forceinline__ int highest() const {
    const int level = int(threadIdx.x);
    return block_max<kThreads>(counts[level] != 0 ? level : 0);
  }
  __device__ __forceinline__ void accumulate() const {
    constexpr int kWarps = kThreads / kWarp;
    FASTSSL_SHARED(int32_t, of_warp, [kWarps]);
    const int own = counts[threadIdx.x], lane = int(threadIdx.x) % kWarp;
    int up_to = own;  // this lane
#pragma unroll
    for (int offset = 1; offset < kWarp; offset *= 2) {
      const int before = __shfl_up_sync(kWholeWarp, up_to, offset);
      if (lane >= offset) up_to += before;
    }
    if (lane == kWarp - 1) of_warp[threadIdx.x / kWarp] = up_to;
    __syncthreads();
    int darker = up_to - own;
    for (int w = 0; w < int(threadIdx.x) / kWarp; ++w) darker += of_warp[w];
    counts[threadIdx.x] = darker;
    __syncthreads();
  }
  __device__ __forceinline__ void swap() {
    uint8_t* const old = front;
    front = back;
    back = old;
  }
  template <class scalar_t>
  static __device__ __forceinline__ void store(scalar_t* to, float x) {
    cuda::store(to, x);
  }

  uint8_t *front, *back;    // [K, S, S]
  int32_t *columns, *rows;  // [S]
  int32_t* counts;          // [256]
  uint8_t* table;           // [256]
};

size_t block_bytes(int K, int S) {
  return 2 * shared_bytes<uint8_t>(K * S * S) + 2 * shared_bytes<int32_t>(S) +
         shared_bytes<int32_t>(kGrayLevels) + shared_bytes<uint8_t>(kGrayLevels);
}

// A block makes a view of an image. Without the 2, ptxas spills to fit four blocks.
template <int K, class scalar_t>
__global__ void __launch_bounds__(kThreads, 2)
    augment_kernel(const uint8_t* __restrict__ images, const int32_t* __restrict__ integers,
                   const float* __restrict__ factors, const __grid_constant__ ViewPlans plans,
                   uint64_t seed, const int64_t* __restrict__ step,
                   const int64_t* __restrict__ index, const float* __restrict__ mean,
                   const float* __restrict__ std, scalar_t* __restrict__ views, int64_t N, int S,
                   bool channels_last) {
  SharedMemory shared;
  Block block;
  block.front = shared.take<uint8_t>(K * S * S);
  block.back = shared.take<uint8_t>(K * S * S);
  block.columns = shared.take<int32_t>(S);
  block.rows = shared.take<int32_t>(S);
  block.counts = shared.take<int32_t>(kGrayLevels);
  block.table = shared.take<uint8_t>(kGrayLevels);

  const int64_t i = blockIdx.x, v = i / N, n = i % N, pixels = int64_t(K) * S * S;
  const Draws draws{seed, uint32_t(index[n]), uint32_t(*step), uint32_t(v)};
  Normal normals[K];
#pragma unroll
  for (int k = 0; k < K; ++k) normals[k] = normal(mean[k], std[k]);
  Pipeline<K, Block> pipeline{block, integers, factors, plans.view[v], draws, S};
  pipeline.run(images + n * pixels, normals, views + i * pixels, channels_last);
}

}  // namespace

template <class scalar_t>
cudaError_t augment(const uint8_t* images, const int32_t* integers, const float* factors,
                    const ViewPlans& plans, uint64_t seed, const int64_t* step,
                    const int64_t* index, const float* mean, const float* std, scalar_t* views,
                    const AugmentShape& shape, cudaStream_t stream) {
  const Launch blocks{dim3(unsigned(shape.V * shape.N)), dim3(kThreads),
                      block_bytes(shape.K, shape.S), stream};
  const auto kernel = shape.K == 1 ? augment_kernel<1, scalar_t> : augment_kernel<3, scalar_t>;
  return launch(kernel, blocks, images, integers, factors, plans, seed, step, index, mean, std,
                views, shape.N, shape.S, shape.channels_last);
}

#define FASTSSL_INSTANTIATE(scalar_t)                                                          \
  template cudaError_t augment(const uint8_t*, const int32_t*, const float*, const ViewPlans&, \
                               uint64_t, const int64_t*, const int64_t*, const float*,         \
                               const float*, scalar_t*, const AugmentShape&, cudaStream_t);
FASTSSL_INSTANTIATE(float)
FASTSSL_INSTANTIATE(__nv_bfloat16)
FASTSSL_INSTANTIATE(uint8_t)
#undef FASTSSL_INSTANTIATE

}  // namespace fastssl::cuda
