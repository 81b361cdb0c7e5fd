#include "../diffuse.h"

#include <algorithm>

#include "numeric.cuh"
#include "reduce.cuh"

namespace fastssl::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int64_t kMostBlocks = 1056;  // 8 on each multiprocessor
constexpr int kDots = 4;               // <p,q>, <r,q>, <q,q>, <r,r>

// Columns are spread over `lanes` threads, a power of two: all of a warp where there are as many.
int lanes_for(int64_t C) {
  int lanes = 1;
  while (lanes < kWarp && lanes < C) lanes *= 2;
  return lanes;
}

struct Matrix {
  const int32_t* __restrict__ crow;
  const int32_t* __restrict__ col;
  const float* __restrict__ value;
  int64_t N, nnz;
};

// The vectors of the iteration, [N, C] each.
template <class acc>
struct Vectors {
  acc *x, *r, *p, *q;
};

// Of every column, [C] each: its squared residual's threshold, infinite once it has stopped, and
// its step.
struct Columns {
  double *threshold, *length, *momentum;
};

// sum_j W_ij p_jc for c = column, in every lane that has that column. A warp takes row i; where
// columns are fewer than lanes, each group of `lanes` threads takes every so many-th neighbour.
// Lanes beyond C read column 0; p's row `self`, which is row i's own, fills up the last neighbours
// with weight 0.
template <class acc>
__device__ __forceinline__ acc multiply_row(const Matrix& W, const acc* __restrict__ p, int64_t M,
                                            int64_t C, int64_t i, int64_t self, int64_t column,
                                            int lanes) {
  const int lane = threadIdx.x % kWarp, groups = kWarp / lanes, group = lane / lanes;
  const int64_t begin = W.crow[i] < 0 ? 0 : W.crow[i];
  const int64_t end = W.crow[i + 1] < W.nnz ? W.crow[i + 1] : W.nnz;
  const acc* __restrict__ own = p + (column < C ? column : 0);
  acc sum = 0;
  for (int64_t base = begin; base < end; base += kWarp) {
    int32_t neighbour = int32_t(self);
    acc weight = 0;
    if (base + lane < end) {
      neighbour = W.col[base + lane];
      weight = acc(W.value[base + lane]);
      if (neighbour < 0 || neighbour >= M) {
        neighbour = int32_t(self);
        weight = std::numeric_limits<acc>::quiet_NaN();
      }
    }
    const int count = end - base < kWarp ? int(end - base) : kWarp;
#pragma unroll 4
    for (int e = 0; e < count; e += groups) {
      const int64_t j = __shfl_sync(kWholeWarp, neighbour, e + group);
      sum += __shfl_sync(kWholeWarp, weight, e + group) * own[j * C];
    }
  }
  for (int offset = kWarp / 2; offset >= lanes; offset /= 2) {
    sum += __shfl_xor_sync(kWholeWarp, sum, offset);
  }
  return sum;
}

// q = p - alpha W p; partials [blocks, kDots, C] get <p,q>, <r,q>, <q,q> of the block's rows.
template <class acc>
__global__ void __launch_bounds__(kThreads, 1)
    product_kernel(Matrix W, Vectors<acc> v, double* __restrict__ partials,
                   const int32_t* __restrict__ running, acc alpha, int64_t C, int lanes) {
  FASTSSL_SHARED(double, of_warp, [kWarps][kDots - 1][kWarp]);
  if (*running == 0) return;  // all threads
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t column = int64_t(blockIdx.y) * kWarp + lane % lanes;
  const bool writes = lane < lanes && column < C;
  double pq = 0, rq = 0, qq = 0;
  for (int64_t i = int64_t(blockIdx.x) * kWarps + warp; i < W.N; i += int64_t(gridDim.x) * kWarps) {
    const acc sum = multiply_row(W, static_cast<const acc*>(v.p), W.N, C, i, i, column, lanes);
    if (!writes) continue;
    const acc own = v.p[i * C + column], q = own - alpha * sum;
    v.q[i * C + column] = q;
    pq += double(own) * double(q);
    rq += double(v.r[i * C + column]) * double(q);
    qq += double(q) * double(q);
  }
  of_warp[warp][0][lane] = pq;
  of_warp[warp][1][lane] = rq;
  of_warp[warp][2][lane] = qq;
  __syncthreads();
  if (warp >= kDots - 1 || !writes) return;
  double sum = 0;
  for (int w = 0; w < kWarps; ++w) sum += of_warp[w][warp][lane];
  partials[(int64_t(blockIdx.x) * kDots + warp) * C + column] = sum;
}

// partials' last row gets the block's sum of squares; thread t has column t % lanes.
__device__ __forceinline__ void store_squares(double square, double* __restrict__ partials,
                                              int64_t C, int64_t column, int lanes) {
  FASTSSL_SHARED(double, of_thread, [kThreads]);
  of_thread[threadIdx.x] = square;
  __syncthreads();
  if (threadIdx.x >= unsigned(lanes) || column >= C) return;
  double sum = 0;
  for (int t = threadIdx.x; t < kThreads; t += lanes) sum += of_thread[t];
  partials[(int64_t(blockIdx.x) * kDots + kDots - 1) * C + column] = sum;
}

// x = 0, r = p = seeds.
template <class scalar_t, class acc>
__global__ void __launch_bounds__(kThreads)
    start_kernel(const scalar_t* __restrict__ seeds, Vectors<acc> v, double* __restrict__ partials,
                 int32_t* __restrict__ running, int64_t N, int64_t C, int lanes) {
  if (blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0) *running = int32_t(C);
  const int64_t column = int64_t(blockIdx.y) * kWarp + threadIdx.x % lanes;
  const int rows = kThreads / lanes;
  double square = 0;
  for (int64_t i = int64_t(blockIdx.x) * rows + threadIdx.x / lanes; i < N && column < C;
       i += int64_t(gridDim.x) * rows) {
    const int64_t at = i * C + column;
    const acc seed = load(seeds[at]);
    v.x[at] = 0;
    v.r[at] = seed;
    v.p[at] = seed;
    square += double(seed) * double(seed);
  }
  store_squares(square, partials, C, column, lanes);
}

// The sum of one of the dots over the blocks, by a warp, always in the same order.
__device__ __forceinline__ double sum_blocks(const double* __restrict__ partials, int64_t blocks,
                                             int64_t C, int64_t column, int dot) {
  double sum = 0;
  for (int64_t b = threadIdx.x; b < blocks; b += kWarp) {
    sum += partials[(b * kDots + dot) * C + column];
  }
  return warp_sum(sum);
}

// What the residuals have to come down to; a warp owns a column.
__global__ void __launch_bounds__(kWarp)
    threshold_kernel(const double* __restrict__ partials, Columns columns,
                     int64_t* __restrict__ iterations, double tolerance, int64_t blocks,
                     int64_t C) {
  const int64_t c = blockIdx.x;
  const double square = sum_blocks(partials, blocks, C, c, kDots - 1);
  if (threadIdx.x != 0) return;
  columns.threshold[c] = squared_threshold(square, tolerance);
  iterations[c] = 0;
}

// The length and momentum of each column's step; a warp owns a column.
template <class acc>
__global__ void __launch_bounds__(kWarp)
    length_kernel(const double* __restrict__ partials, Columns columns,
                  int64_t* __restrict__ iterations, int32_t* __restrict__ running, int64_t blocks,
                  int64_t C) {
  const int64_t c = blockIdx.x;
  double dots[kDots];
#pragma unroll
  for (int dot = 0; dot < kDots; ++dot) dots[dot] = sum_blocks(partials, blocks, C, c, dot);
  if (threadIdx.x != 0) return;
  const double threshold = columns.threshold[c], square = dots[kDots - 1];
  columns.length[c] = columns.momentum[c] = 0;
  if (threshold == std::numeric_limits<double>::infinity()) return;
  bool stops = square <= threshold;
  if (!stops) {
    const Step<acc> step = conjugate_step<acc>(square, dots[0], dots[1], dots[2], threshold);
    columns.length[c] = double(step.length);
    columns.momentum[c] = double(step.momentum);
    iterations[c] += 1;
    stops = step.last;
  }
  if (stops) {
    columns.threshold[c] = std::numeric_limits<double>::infinity();
    atomicSub(running, 1);
  }
}

// x += length p, r -= length q, p = r + momentum p.
template <class acc>
__global__ void __launch_bounds__(kThreads)
    step_kernel(Vectors<acc> v, Columns columns, double* __restrict__ partials, int64_t N,
                int64_t C, int lanes) {
  const int64_t column = int64_t(blockIdx.y) * kWarp + threadIdx.x % lanes;
  const int rows = kThreads / lanes;
  double square = 0;
  if (column < C && columns.length[column] != 0) {
    const acc length = acc(columns.length[column]), momentum = acc(columns.momentum[column]);
    for (int64_t i = int64_t(blockIdx.x) * rows + threadIdx.x / lanes; i < N;
         i += int64_t(gridDim.x) * rows) {
      const int64_t at = i * C + column;
      const acc direction = v.p[at], residual = v.r[at] - length * v.q[at];
      v.x[at] += length * direction;
      v.r[at] = residual;
      v.p[at] = residual + momentum * direction;
      square += double(residual) * double(residual);
    }
  }
  store_squares(square, partials, C, column, lanes);
}

template <class scalar_t, class acc>
__global__ void __launch_bounds__(kThreads)
    scores_kernel(const acc* __restrict__ x, scalar_t* __restrict__ scores, int64_t count) {
  const int64_t at = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (at < count) store(scores + at, x[at]);
}

template <class acc>
__global__ void __launch_bounds__(kThreads, 1)
    rows_product_kernel(Matrix W, const acc* __restrict__ p, acc* __restrict__ product, acc alpha,
                        int64_t first_row, int64_t M, int64_t C, int lanes) {
  const int lane = threadIdx.x % kWarp;
  const int64_t i = int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  const int64_t column = int64_t(blockIdx.y) * kWarp + lane % lanes;
  if (i >= W.N) return;  // whole warps
  const acc sum = multiply_row(W, p, M, C, i, first_row + i, column, lanes);
  if (lane < lanes && column < C) {
    product[i * C + column] = p[(first_row + i) * C + column] - alpha * sum;
  }
}

}  // namespace

int64_t diffuse_blocks(int64_t N) { return std::min(ceil_div(N, kWarps), kMostBlocks); }

template <class scalar_t, class acc>
cudaError_t diffuse(const int32_t* crow, const int32_t* col, const float* value,
                    const scalar_t* seeds, scalar_t* scores, int64_t* iterations, acc* vectors,
                    double* partials, double* columns, int32_t* running, int64_t N, int64_t nnz,
                    int64_t C, double alpha, double tolerance, int64_t max_iterations,
                    cudaStream_t stream) {
  const Matrix W{crow, col, value, N, nnz};
  const Vectors<acc> v{vectors, vectors + N * C, vectors + 2 * N * C, vectors + 3 * N * C};
  const Columns of{columns, columns + C, columns + 2 * C};
  const int lanes = lanes_for(C);
  const int64_t blocks = diffuse_blocks(N);
  const Launch rows{dim3(unsigned(blocks), unsigned(ceil_div(C, kWarp))), dim3(kThreads), 0,
                    stream};
  const Launch warp_per_column{dim3(unsigned(C)), dim3(kWarp), 0, stream};
  cudaError_t status =
      launch(start_kernel<scalar_t, acc>, rows, seeds, v, partials, running, N, C, lanes);
  if (status != cudaSuccess) return status;
  status =
      launch(threshold_kernel, warp_per_column, partials, of, iterations, tolerance, blocks, C);
  for (int64_t step = 0; step < max_iterations && status == cudaSuccess; ++step) {
    status = launch(product_kernel<acc>, rows, W, v, partials, running, alpha, C, lanes);
    if (status != cudaSuccess) break;
    status =
        launch(length_kernel<acc>, warp_per_column, partials, of, iterations, running, blocks, C);
    if (status != cudaSuccess) break;
    status = launch(step_kernel<acc>, rows, v, of, partials, N, C, lanes);
  }
  if (status != cudaSuccess) return status;
  const Launch entries{dim3(unsigned(ceil_div(N * C, kThreads))), dim3(kThreads), 0, stream};
  return launch(scores_kernel<scalar_t, acc>, entries, v.x, scores, N * C);
}

template <class acc>
cudaError_t diffuse_product(const int32_t* crow, const int32_t* col, const float* value,
                            const acc* vectors, acc* product, int64_t first_row, int64_t M,
                            int64_t N, int64_t nnz, int64_t C, double alpha, cudaStream_t stream) {
  const Launch shape{dim3(unsigned(ceil_div(N, kWarps)), unsigned(ceil_div(C, kWarp))),
                     dim3(kThreads), 0, stream};
  return launch(rows_product_kernel<acc>, shape, Matrix{crow, col, value, N, nnz}, vectors, product,
                alpha, first_row, M, C, lanes_for(C));
}

#define FASTSSL_INSTANTIATE(scalar_t)                                                             \
  template cudaError_t diffuse(const int32_t*, const int32_t*, const float*, const scalar_t*,     \
                               scalar_t*, int64_t*, acc_t<scalar_t>*, double*, double*, int32_t*, \
                               int64_t, int64_t, int64_t, double, double, int64_t, cudaStream_t);
FASTSSL_INSTANTIATE(float)
FASTSSL_INSTANTIATE(double)
FASTSSL_INSTANTIATE(__half)
FASTSSL_INSTANTIATE(__nv_bfloat16)
#undef FASTSSL_INSTANTIATE
#define FASTSSL_INSTANTIATE(acc)                                                                  \
  template cudaError_t diffuse_product(const int32_t*, const int32_t*, const float*, const acc*,  \
                                       acc*, int64_t, int64_t, int64_t, int64_t, int64_t, double, \
                                       cudaStream_t);
FASTSSL_INSTANTIATE(float)
FASTSSL_INSTANTIATE(double)
#undef FASTSSL_INSTANTIATE

}  // namespace fastssl::cuda
