#include "../nt_xent.h"

#include "product.cuh"
#include "reduce.cuh"

namespace fastssl::cuda {
namespace {

constexpr int kRowsPerBlock = 4;
constexpr int kRowThreads = 256;
constexpr int kTile = kProductTile;
constexpr int kTileStride = kTile + 1;    // odd, so that a column's entries lie in different banks
constexpr int64_t kGradientBlocks = 264;  // two a multiprocessor of an H100

__host__ __device__ int64_t tiles(int64_t N) { return ceil_div(2 * N, kTile); }

__device__ __forceinline__ int64_t positive(int64_t row, int64_t N) {
  return row < N ? row + N : row - N;
}

// A tile's share of n rows, from `first` on.
__device__ __forceinline__ int tile_rows(int64_t first, int64_t n) {
  return int(n - first < kTile ? n - first : kTile);
}

// unit [2N, D] and lengths [2N] of the rows of both views; a warp owns a row.
template <class scalar_t>
__global__ void __launch_bounds__(kRowsPerBlock* kWarp)
    normalize_kernel(const scalar_t* __restrict__ features_a,
                     const scalar_t* __restrict__ features_b, acc_t<scalar_t>* __restrict__ unit,
                     acc_t<scalar_t>* __restrict__ lengths, int64_t N, int64_t D) {
  using acc = acc_t<scalar_t>;
  const int lane = threadIdx.x % kWarp;
  const int64_t row = int64_t(blockIdx.x) * kRowsPerBlock + threadIdx.x / kWarp;
  if (row >= 2 * N) return;  // whole warps
  const scalar_t* x = row < N ? features_a + row * D : features_b + (row - N) * D;
  acc squares = 0;
  for (int64_t d = lane; d < D; d += kWarp) squares += load(x[d]) * load(x[d]);
  const acc length = acc(sqrt(warp_sum(squares)));
  const acc divisor = length < acc(kLeastLength) ? acc(kLeastLength) : length;
  for (int64_t d = lane; d < D; d += kWarp) unit[row * D + d] = load(x[d]) / divisor;
  if (lane == 0) lengths[row] = length;
}

// For one tile of similarities, ln sum exp of each of its rows and of each of its columns, which is
// a row of the tile's mirror image: partials [tiles, 2N]. Finds the positives [2N] too.
template <class acc>
__global__ void __launch_bounds__(kProductThreads, 1)
    tile_log_sums_kernel(const acc* __restrict__ unit, acc inverse_temperature,
                         acc* __restrict__ partials, acc* __restrict__ positives, int64_t N,
                         int64_t D) {
  const int64_t I = blockIdx.x, J = blockIdx.y, M = 2 * N;
  if (J < I) return;  // whole blocks
  SharedMemory shared;
  acc* stage = shared.take<acc>(kProductStage);
  acc* tile = shared.take<acc>(kTile * kTileStride);
  const int rows = tile_rows(I * kTile, M), columns = tile_rows(J * kTile, M);
  multiply<false, true>(
      View<const acc>{unit + I * kTile * D, D}, View<const acc>{unit + J * kTile * D, D}, rows,
      columns, int(D), stage,
      [=](int i, int j, acc sum) { tile[i * kTileStride + j] = sum * inverse_temperature; });
  __syncthreads();
  const bool is_row = threadIdx.x < kTile;
  const int line = threadIdx.x % kTile;
  if (threadIdx.x >= 2 * kTile || line >= (is_row ? rows : columns)) return;
  if (!is_row && I == J) return;
  const int64_t own = (is_row ? I : J) * kTile + line, first = (is_row ? J : I) * kTile;
  const int count = is_row ? columns : rows, step = is_row ? 1 : kTileStride;
  const acc* s = tile + line * (is_row ? kTileStride : 1);
  acc maximum = -std::numeric_limits<acc>::infinity();
  for (int k = 0; k < count; ++k) {
    if (first + k != own) maximum = s[k * step] > maximum ? s[k * step] : maximum;
  }
  acc total = 0;
  for (int k = 0; k < count; ++k) {
    if (first + k != own) total += exponential(s[k * step] - maximum);
  }
  partials[(is_row ? J : I) * M + own] = maximum + acc(log(total));
  const int64_t at = positive(own, N) - first;
  if (at >= 0 && at < count) positives[own] = s[at * step];
}

// log_sums [2N] from the tiles' parts, and in the place of each positive what its row adds to the
// loss; a thread owns a row.
template <class acc>
__global__ void __launch_bounds__(kRowThreads)
    log_sums_kernel(const acc* __restrict__ partials, acc* __restrict__ positives,
                    acc* __restrict__ log_sums, int64_t N) {
  const int64_t row = int64_t(blockIdx.x) * kRowThreads + threadIdx.x, M = 2 * N;
  if (row >= M) return;
  acc maximum = -std::numeric_limits<acc>::infinity();
  for (int64_t k = 0; k < tiles(N); ++k) {
    maximum = partials[k * M + row] > maximum ? partials[k * M + row] : maximum;
  }
  acc total = 0;
  for (int64_t k = 0; k < tiles(N); ++k) total += exponential(partials[k * M + row] - maximum);
  const acc log_sum = maximum + acc(log(total));
  log_sums[row] = log_sum;
  positives[row] = log_sum - positives[row];
}

// loss = mean of rows [2N], by one block, always in the same order.
template <class acc>
__global__ void __launch_bounds__(kRowThreads)
    mean_kernel(const acc* __restrict__ rows, acc* __restrict__ loss, int64_t N) {
  acc sum = 0;
  for (int64_t i = threadIdx.x; i < 2 * N; i += kRowThreads) sum += rows[i];
  sum = block_sum<kRowThreads>(sum);
  if (threadIdx.x == 0) *loss = sum / acc(2 * N);
}

// sums [groups, end - begin, D]: of rows [begin, end), the sums of w_ij z_j over a group's columns.
template <class acc>
__global__ void __launch_bounds__(kProductThreads, 1)
    gradient_sums_kernel(const acc* __restrict__ unit, const acc* __restrict__ log_sums,
                         acc inverse_temperature, acc* __restrict__ sums, int64_t begin,
                         int64_t end, int64_t N, int64_t D) {
  SharedMemory shared;
  acc* stage = shared.take<acc>(kProductStage);
  acc* tile = shared.take<acc>(kTile * kTileStride);
  const int64_t M = 2 * N, first = begin + int64_t(blockIdx.x) * kTile;
  const int rows = tile_rows(first, end);
  acc* of_rows = sums + (blockIdx.y * (end - begin) + first - begin) * D;
  for (int64_t J = blockIdx.y; J < tiles(N); J += gridDim.y) {
    const int64_t first_column = J * kTile;
    const int columns = tile_rows(first_column, M);
    const View<const acc> of_columns{unit + first_column * D, D};
    multiply<false, true>(View<const acc>{unit + first * D, D}, of_columns, rows, columns, int(D),
                          stage, [=](int i, int j, acc sum) {
                            const int64_t row = first + i, column = first_column + j;
                            const acc s = sum * inverse_temperature;
                            acc weight =
                                exponential(s - log_sums[row]) + exponential(s - log_sums[column]);
                            if (column == positive(row, N)) weight -= acc(2);
                            tile[i * kTileStride + j] = row == column ? acc(0) : weight;
                          });
    const bool begins = J == blockIdx.y;
    multiply<false, false>(View<const acc>{tile, kTileStride}, of_columns, rows, int(D), columns,
                           stage, [=](int i, int j, acc sum) {
                             acc& total = of_rows[i * D + j];  // always the same thread's
                             total = begins ? sum : total + sum;
                           });
  }
}

// Gradients of rows [begin, end) from the groups' sums; a warp owns a row.
template <class scalar_t>
__global__ void __launch_bounds__(kRowsPerBlock* kWarp)
    gradients_kernel(const acc_t<scalar_t>* __restrict__ grad,
                     const acc_t<scalar_t>* __restrict__ unit,
                     const acc_t<scalar_t>* __restrict__ lengths, acc_t<scalar_t> scale,
                     acc_t<scalar_t>* __restrict__ sums, int64_t groups,
                     scalar_t* __restrict__ grad_a, scalar_t* __restrict__ grad_b, int64_t begin,
                     int64_t end, int64_t N, int64_t D) {
  using acc = acc_t<scalar_t>;
  const int lane = threadIdx.x % kWarp;
  const int64_t row = begin + int64_t(blockIdx.x) * kRowsPerBlock + threadIdx.x / kWarp;
  if (row >= end) return;  // whole warps
  const acc* z = unit + row * D;
  acc* t = sums + (row - begin) * D;
  acc along = 0;
  for (int64_t d = lane; d < D; d += kWarp) {
    acc sum = t[d];
    for (int64_t k = 1; k < groups; ++k) sum += t[k * (end - begin) * D + d];
    t[d] = sum;
    along += z[d] * sum;
  }
  along = warp_sum(along);
  // A row of the least length does not turn: its gradient is the plain quotient's.
  const bool turns = !(lengths[row] < acc(kLeastLength));
  const acc factor = *grad * scale / (turns ? lengths[row] : acc(kLeastLength));
  scalar_t* gradient = row < N ? grad_a + row * D : grad_b + (row - N) * D;
  for (int64_t d = lane; d < D; d += kWarp) {
    acc x = (turns ? t[d] - z[d] * along : t[d]) * factor;
    if constexpr (std::is_same_v<scalar_t, __half>) {
      if (!turns) x = fminf(fmaxf(x, -kLargestHalf), kLargestHalf);
    }
    store(gradient + d, x);
  }
}

Launch warp_per_row(int64_t rows, cudaStream_t stream) {
  return {dim3(unsigned(ceil_div(rows, kRowsPerBlock))), dim3(kRowsPerBlock * kWarp), 0, stream};
}

template <class acc>
Launch block_per_tile(int64_t rows, int64_t columns, cudaStream_t stream) {
  return {dim3(unsigned(rows), unsigned(columns)), dim3(kProductThreads),
          shared_bytes<acc>(kProductStage) + shared_bytes<acc>(kTile * kTileStride), stream};
}

}  // namespace

int64_t contrast_tiles(int64_t N) { return tiles(N); }

int64_t contrast_groups(int64_t N) {
  const int64_t groups = ceil_div(kGradientBlocks, tiles(N));
  return groups < tiles(N) ? groups : tiles(N);
}

template <class scalar_t, class acc>
cudaError_t nt_xent(const scalar_t* features_a, const scalar_t* features_b, acc temperature,
                    acc* unit, acc* lengths, acc* partials, acc* positives, acc* loss,
                    acc* log_sums, int64_t N, int64_t D, cudaStream_t stream) {
  cudaError_t status = launch(normalize_kernel<scalar_t>, warp_per_row(2 * N, stream), features_a,
                              features_b, unit, lengths, N, D);
  if (status != cudaSuccess) return status;
  status = launch(tile_log_sums_kernel<acc>, block_per_tile<acc>(tiles(N), tiles(N), stream), unit,
                  1 / temperature, partials, positives, N, D);
  if (status != cudaSuccess) return status;
  const Launch rows{dim3(unsigned(ceil_div(2 * N, kRowThreads))), dim3(kRowThreads), 0, stream};
  status = launch(log_sums_kernel<acc>, rows, partials, positives, log_sums, N);
  if (status != cudaSuccess) return status;
  return launch(mean_kernel<acc>, {dim3(1), dim3(kRowThreads), 0, stream}, positives, loss, N);
}

template <class scalar_t, class acc>
cudaError_t nt_xent_backward(const acc* grad, const acc* log_sums, const scalar_t* features_a,
                             const scalar_t* features_b, acc temperature, acc* unit, acc* lengths,
                             acc* sums, scalar_t* grad_a, scalar_t* grad_b, int64_t N, int64_t D,
                             cudaStream_t stream) {
  const int64_t begin = grad_a != nullptr ? 0 : N, end = grad_b != nullptr ? 2 * N : N;
  cudaError_t status = launch(normalize_kernel<scalar_t>, warp_per_row(2 * N, stream), features_a,
                              features_b, unit, lengths, N, D);
  if (status != cudaSuccess) return status;
  const int64_t groups = contrast_groups(N);
  status = launch(gradient_sums_kernel<acc>,
                  block_per_tile<acc>(ceil_div(end - begin, kTile), groups, stream), unit, log_sums,
                  1 / temperature, sums, begin, end, N, D);
  if (status != cudaSuccess) return status;
  return launch(gradients_kernel<scalar_t>, warp_per_row(end - begin, stream), grad, unit, lengths,
                1 / (acc(2 * N) * temperature), sums, groups, grad_a, grad_b, begin, end, N, D);
}

#define FASTSSL_INSTANTIATE(scalar_t)                                                         \
  template cudaError_t nt_xent(const scalar_t*, const scalar_t*, acc_t<scalar_t>,             \
                               acc_t<scalar_t>*, acc_t<scalar_t>*, acc_t<scalar_t>*,          \
                               acc_t<scalar_t>*, acc_t<scalar_t>*, acc_t<scalar_t>*, int64_t, \
                               int64_t, cudaStream_t);                                        \
  template cudaError_t nt_xent_backward(const acc_t<scalar_t>*, const acc_t<scalar_t>*,       \
                                        const scalar_t*, const scalar_t*, acc_t<scalar_t>,    \
                                        acc_t<scalar_t>*, acc_t<scalar_t>*, acc_t<scalar_t>*, \
                                        scalar_t*, scalar_t*, int64_t, int64_t, cudaStream_t);
FASTSSL_INSTANTIATE(float)
FASTSSL_INSTANTIATE(double)
FASTSSL_INSTANTIATE(__half)
FASTSSL_INSTANTIATE(__nv_bfloat16)
#undef FASTSSL_INSTANTIATE

}  // namespace fastssl::cuda
