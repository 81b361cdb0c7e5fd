#include "../batch_norm_leaky_relu.h"

#include <initializer_list>
#include <type_traits>

#include "numeric.cuh"

namespace fastssl::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostParts = 1024;  // of a batch, each of which one row of blocks sums
constexpr int kFinal = 32;            // channels of a block that joins them
constexpr int kFinalRows = 16;        // of threads, which take the parts in turn

// kVec channels side by side are a group: a thread's. A block has threads.x groups, and as many
// pixels or windows at a time as fill it up.
template <int kVec>
dim3 threads_for(const NormShape& shape) {
  const int64_t groups = ceil_div(shape.K, kVec);
  unsigned across = 1;
  while (across < kWarp && across < groups) across *= 2;
  return dim3(across, kThreads / across);
}

// How many parts a batch's strips are summed in, and how many strips a part has.
int64_t strips_of_part(const NormShape& shape) { return ceil_div(shape.strips(), kMostParts); }
int64_t parts_of(const NormShape& shape) { return ceil_div(shape.strips(), strips_of_part(shape)); }

// to = from [kVec], widened.
template <int kVec, class scalar_t>
__device__ __forceinline__ void load_group(const scalar_t* __restrict__ from,
                                           acc_t<scalar_t> (&to)[kVec]) {
  if constexpr (kVec == 1) {
    to[0] = load(*from);
  } else {
    load16(from, to);
  }
}

// to [kVec] = from, by one store of 16 bytes where it has so many.
template <int kVec, class scalar_t>
__device__ __forceinline__ void store_group(scalar_t* to, const acc_t<scalar_t> (&from)[kVec]) {
  if constexpr (kVec == 1) {
    store(to, from[0]);
  } else {
    uint4 words;
    scalar_t* elements = reinterpret_cast<scalar_t*>(&words);
#pragma unroll
    for (int v = 0; v < kVec; ++v) store(elements + v, from[v]);
    *reinterpret_cast<uint4*>(to) = words;
  }
}

template <class acc>
__device__ __forceinline__ acc inverse_deviation(const acc* variance, double eps, int64_t k) {
  return inverse_root(variance[k] + acc(eps));
}

// The channels of a group.
template <class acc, int kVec>
struct Group {
  acc mean[kVec], factor[kVec], bias[kVec];

  __device__ Group(const NormChannels<acc>& channels, double eps, int64_t k) {
#pragma unroll
    for (int v = 0; v < kVec; ++v) {
      mean[v] = channels.mean[k + v];
      factor[v] = channels.weight[k + v] * inverse_deviation(channels.variance, eps, k + v);
      bias[v] = channels.bias[k + v];
    }
  }
  __device__ acc z(acc deviation, int v) const { return deviation * factor[v] + bias[v]; }
};

// kNumbers numbers of each of kVec channels of every thread of a block, for all of them to read.
template <class acc, int kVec, int kNumbers>
struct Exchange {
  static constexpr size_t kCount = size_t(kThreads) * kVec * kNumbers;
  static constexpr size_t kBytes = shared_bytes<acc>(kCount);

  acc* numbers;

  __device__ Exchange() {
    SharedMemory shared;
    numbers = shared.take<acc>(kCount);
  }
  __device__ void put(const acc (*const (&own)[kNumbers])[kVec]) {
    const int thread = threadIdx.y * blockDim.x + threadIdx.x;
#pragma unroll
    for (int n = 0; n < kNumbers; ++n) {
#pragma unroll
      for (int v = 0; v < kVec; ++v) numbers[(n * kVec + v) * kThreads + thread] = (*own[n])[v];
    }
    __syncthreads();
  }
  __device__ acc of(int number, int thread, int v) const {
    return numbers[(number * kVec + v) * kThreads + thread];
  }
};

// Of a batch whose parts have so many strips, the last one perhaps fewer.
__device__ __forceinline__ int64_t pixels_before_part(int64_t part, int64_t strips,
                                                      const NormShape& shape) {
  const int64_t strip = part * strips;
  return shape.pixels_before(strip < shape.strips() ? strip : shape.strips());
}

// workspace [parts, 2, K]: mean and squared distances of a part's pixels.
template <class scalar_t, int kVec>
__global__ void __launch_bounds__(kThreads, 1)
    part_moments_kernel(const scalar_t* __restrict__ maps, double* __restrict__ workspace,
                        int64_t strips, const NormShape shape) {
  using acc = acc_t<scalar_t>;
  const int64_t k = (int64_t(blockIdx.y) * blockDim.x + threadIdx.x) * kVec;
  const int64_t begin = shape.pixels_before(blockIdx.x * strips);
  const int64_t end = pixels_before_part(blockIdx.x + 1, strips, shape);
  // Of distances from the thread's first number: their squares lose nothing to a mean far from 0.
  acc pivot[kVec] = {}, sum[kVec] = {}, squares[kVec] = {};
  const int64_t first = begin + threadIdx.y;
  if (k < shape.K && first < end) {
    load_group<kVec>(maps + first * shape.K + k, pivot);
    for (int64_t p = first + blockDim.y; p < end; p += blockDim.y) {
      acc x[kVec];
      load_group<kVec>(maps + p * shape.K + k, x);
#pragma unroll
      for (int v = 0; v < kVec; ++v) {
        const acc d = x[v] - pivot[v];
        sum[v] += d;
        squares[v] += d * d;
      }
    }
  }
  Exchange<acc, kVec, 3> exchange;
  exchange.put({&pivot, &sum, &squares});
  // A thread for each of the block's channels.
  const int channels = blockDim.x * kVec;
  for (int c = threadIdx.y * blockDim.x + threadIdx.x; c < channels; c += kThreads) {
    const int64_t channel = int64_t(blockIdx.y) * channels + c;
    if (channel >= shape.K) continue;
    // Of a thread: its pixels, and where its sums are.
    const auto for_threads = [&](const auto& body) {
      for (int y = 0; y < int(blockDim.y); ++y) {
        const unsigned rest = end - begin > y ? unsigned(end - begin - y) : 0;
        const unsigned pixels = (rest + blockDim.y - 1) / blockDim.y;
        const int thread = y * blockDim.x + c / kVec;
        body(double(pixels), double(exchange.of(0, thread, c % kVec)),
             double(exchange.of(1, thread, c % kVec)), double(exchange.of(2, thread, c % kVec)));
      }
    };
    double all = 0, spread = 0;
    for_threads(
        [&](double pixels, double from, double sum, double) { all += pixels * from + sum; });
    all /= double(end - begin);
    for_threads([&](double pixels, double from, double sum, double squares) {
      const double d = from - all;
      spread += squares + d * (2 * sum + d * pixels);
    });
    double* const own = workspace + 2 * blockIdx.x * shape.K;
    own[channel] = all;
    own[shape.K + channel] = spread;
  }
}

// The sum over the rows of a block of kFinal x kFinalRows threads.
__device__ __forceinline__ double sum_rows(double value) {
  FASTSSL_SHARED(double, of_row, [kFinalRows][kFinal]);
  __syncthreads();  // whoever still reads the last call's values
  of_row[threadIdx.y][threadIdx.x] = value;
  __syncthreads();
  double sum = 0;
  for (int y = 0; y < kFinalRows; ++y) sum += of_row[y][threadIdx.x];
  return sum;
}

template <class acc>
__global__ void __launch_bounds__(kFinal* kFinalRows)
    join_moments_kernel(const double* __restrict__ workspace, acc* __restrict__ mean,
                        acc* __restrict__ variance, int64_t parts, int64_t strips,
                        const NormShape shape) {
  const int64_t k = int64_t(blockIdx.x) * kFinal + threadIdx.x;
  // body(pixels, mean, squared distances) of the parts that are this row's.
  const auto for_parts = [&](const auto& body) {
    if (k >= shape.K) return;
    for (int64_t i = threadIdx.y; i < parts; i += kFinalRows) {
      const int64_t pixels =
          pixels_before_part(i + 1, strips, shape) - pixels_before_part(i, strips, shape);
      const double* const own = workspace + 2 * i * shape.K;
      body(double(pixels), own[k], own[shape.K + k]);
    }
  };
  double sum = 0, spread = 0;
  for_parts([&](double pixels, double own, double) { sum += pixels * own; });
  const double all = sum_rows(sum) / double(shape.pixels());
  for_parts([&](double pixels, double own, double squares) {
    spread += squares + pixels * (own - all) * (own - all);
  });
  spread = sum_rows(spread);
  if (threadIdx.y > 0 || k >= shape.K) return;
  mean[k] = acc(all);
  variance[k] = acc(spread / double(shape.pixels()));
}

template <class scalar_t, int kVec, int kPool>
__global__ void __launch_bounds__(kThreads, 1)
    norm_kernel(const scalar_t* __restrict__ maps, const NormChannels<acc_t<scalar_t>> channels,
                double eps, acc_t<scalar_t> slope, scalar_t* __restrict__ output,
                const NormShape shape) {
  using acc = acc_t<scalar_t>;
  const int64_t k = (int64_t(blockIdx.y) * blockDim.x + threadIdx.x) * kVec, K = shape.K;
  if (k >= K) return;
  const int64_t strip = blockIdx.x;
  if (!shape.has_windows(strip)) return;
  const Group<acc, kVec> group(channels, eps, k);
  const scalar_t* const in = maps + shape.pixels_before(strip) * K + k;
  scalar_t* const out = output + shape.windows_before(strip) * K + k;
  for (int64_t w = threadIdx.y; w < shape.out_width(); w += blockDim.y) {
    acc largest[kVec];
#pragma unroll
    for (int i = 0; i < kPool * kPool; ++i) {
      acc x[kVec];
      load_group<kVec>(in + (i / kPool * shape.W + w * kPool + i % kPool) * K, x);
#pragma unroll
      for (int v = 0; v < kVec; ++v) {
        const acc z = group.z(x[v] - group.mean[v], v);
        if (i == 0 || z > largest[v]) largest[v] = z;
      }
    }
#pragma unroll
    for (int v = 0; v < kVec; ++v) {
      if (!(largest[v] > 0)) largest[v] *= slope;
    }
    store_group<kVec>(out + w * K, largest);
  }
}

// workspace [parts, 2, K]: sums of g and of g (x - m) over a part's windows.
template <class scalar_t, int kVec, int kPool>
__global__ void __launch_bounds__(kThreads, 1)
    part_sums_kernel(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ maps,
                     const NormChannels<acc_t<scalar_t>> channels, double eps,
                     acc_t<scalar_t> slope, double* __restrict__ workspace, int64_t strips,
                     const NormShape shape) {
  using acc = acc_t<scalar_t>;
  const int64_t k = (int64_t(blockIdx.y) * blockDim.x + threadIdx.x) * kVec, K = shape.K;
  acc sum[kVec] = {}, weighted[kVec] = {};
  if (k < K) {
    const Group<acc, kVec> group(channels, eps, k);
    const int64_t last = (blockIdx.x + 1) * strips;
    for (int64_t strip = blockIdx.x * strips; strip < last && strip < shape.strips(); ++strip) {
      if (!shape.has_windows(strip)) continue;
      const scalar_t* const in = maps + shape.pixels_before(strip) * K + k;
      const scalar_t* const from = grad + shape.windows_before(strip) * K + k;
      for (int64_t w = threadIdx.y; w < shape.out_width(); w += blockDim.y) {
        acc largest[kVec], deviation[kVec], g[kVec];
#pragma unroll
        for (int i = 0; i < kPool * kPool; ++i) {
          acc x[kVec];
          load_group<kVec>(in + (i / kPool * shape.W + w * kPool + i % kPool) * K, x);
#pragma unroll
          for (int v = 0; v < kVec; ++v) {
            const acc own = x[v] - group.mean[v], z = group.z(own, v);
            if (i == 0 || z > largest[v]) {
              largest[v] = z;
              deviation[v] = own;
            }
          }
        }
        load_group<kVec>(from + w * K, g);
#pragma unroll
        for (int v = 0; v < kVec; ++v) {
          if (!(largest[v] > 0)) g[v] *= slope;
          sum[v] += g[v];
          weighted[v] += g[v] * deviation[v];
        }
      }
    }
  }
  Exchange<acc, kVec, 2> exchange;
  exchange.put({&sum, &weighted});
  const int of_block = blockDim.x * kVec;
  for (int c = threadIdx.y * blockDim.x + threadIdx.x; c < of_block; c += kThreads) {
    const int64_t channel = int64_t(blockIdx.y) * of_block + c;
    if (channel >= K) continue;
    double sums[2] = {0, 0};
    for (int y = 0; y < int(blockDim.y); ++y) {
      const int thread = y * blockDim.x + c / kVec;
      sums[0] += double(exchange.of(0, thread, c % kVec));
      sums[1] += double(exchange.of(1, thread, c % kVec));
    }
    double* const own = workspace + 2 * blockIdx.x * K;
    own[channel] = sums[0];
    own[K + channel] = sums[1];
  }
}

template <class acc>
__global__ void __launch_bounds__(kFinal* kFinalRows)
    join_sums_kernel(const double* __restrict__ workspace, acc* __restrict__ grad_weight,
                     acc* __restrict__ grad_bias, const acc* __restrict__ variance, double eps,
                     int64_t parts, int64_t K) {
  const int64_t k = int64_t(blockIdx.x) * kFinal + threadIdx.x;
  double sum = 0, weighted = 0;
  if (k < K) {
    for (int64_t i = threadIdx.y; i < parts; i += kFinalRows) {
      sum += workspace[2 * i * K + k];
      weighted += workspace[(2 * i + 1) * K + k];
    }
  }
  sum = sum_rows(sum);
  weighted = sum_rows(weighted);
  if (threadIdx.y > 0 || k >= K) return;
  grad_bias[k] = acc(sum);
  grad_weight[k] = acc(weighted) * inverse_deviation(variance, eps, k);
}

template <class scalar_t, int kVec, int kPool>
__global__ void __launch_bounds__(kThreads, 1)
    norm_gradient_kernel(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ maps,
                         const NormChannels<acc_t<scalar_t>> channels, double eps,
                         acc_t<scalar_t> slope, const acc_t<scalar_t>* __restrict__ grad_weight,
                         const acc_t<scalar_t>* __restrict__ grad_bias,
                         scalar_t* __restrict__ grad_maps, const NormShape shape) {
  using acc = acc_t<scalar_t>;
  constexpr int kWindow = kPool * kPool;
  const int64_t k = (int64_t(blockIdx.y) * blockDim.x + threadIdx.x) * kVec, K = shape.K;
  if (k >= K) return;
  const Group<acc, kVec> group(channels, eps, k);
  acc shift[kVec], slant[kVec];
  const acc share = 1 / acc(shape.pixels());
#pragma unroll
  for (int v = 0; v < kVec; ++v) {
    const acc scale = inverse_deviation(channels.variance, eps, k + v);
    shift[v] = group.factor[v] * share * grad_bias[k + v];
    slant[v] = group.factor[v] * share * grad_weight[k + v] * scale;
  }
  const int64_t strip = blockIdx.x;
  const scalar_t* const in = maps + shape.pixels_before(strip) * K + k;
  const scalar_t* const from = grad + shape.windows_before(strip) * K + k;
  scalar_t* const out = grad_maps + shape.pixels_before(strip) * K + k;
  const auto without_output = [&](int64_t row, int64_t first) {
    for (int64_t p = row * shape.W + first + threadIdx.y; p < (row + 1) * shape.W;
         p += blockDim.y) {
      acc x[kVec];
      load_group<kVec>(in + p * K, x);
#pragma unroll
      for (int v = 0; v < kVec; ++v) x[v] = -shift[v] - slant[v] * (x[v] - group.mean[v]);
      store_group<kVec>(out + p * K, x);
    }
  };
  if (!shape.has_windows(strip)) return without_output(0, 0);
  for (int64_t w = threadIdx.y; w < shape.out_width(); w += blockDim.y) {
    acc deviation[kWindow][kVec], g[kVec], largest[kVec];
    int at[kVec] = {};
#pragma unroll
    for (int i = 0; i < kWindow; ++i) {
      load_group<kVec>(in + (i / kPool * shape.W + w * kPool + i % kPool) * K, deviation[i]);
#pragma unroll
      for (int v = 0; v < kVec; ++v) {
        deviation[i][v] -= group.mean[v];
        const acc z = group.z(deviation[i][v], v);
        if (i == 0 || z > largest[v]) {
          largest[v] = z;
          at[v] = i;
        }
      }
    }
    load_group<kVec>(from + w * K, g);
#pragma unroll
    for (int v = 0; v < kVec; ++v)
      g[v] *= largest[v] > 0 ? group.factor[v] : group.factor[v] * slope;
#pragma unroll
    for (int i = 0; i < kWindow; ++i) {
      acc x[kVec];
#pragma unroll
      for (int v = 0; v < kVec; ++v) {
        x[v] = (at[v] == i ? g[v] : acc(0)) - shift[v] - slant[v] * deviation[i][v];
      }
      store_group<kVec>(out + (i / kPool * shape.W + w * kPool + i % kPool) * K, x);
    }
  }
  for (int row = 0; row < kPool; ++row) without_output(row, shape.out_width() * kPool);
}

// Calls body(kVec, kPool) as constants; 16 bytes at a time where every pixel begins at a multiple.
template <class scalar_t, class Body>
cudaError_t with_constants(std::initializer_list<const scalar_t*> tensors, const NormShape& shape,
                           const Body& body) {
  constexpr int kWide = kPer16Bytes<scalar_t>;
  bool wide = shape.K % kWide == 0;
  for (const scalar_t* tensor : tensors)
    wide = wide && reinterpret_cast<uintptr_t>(tensor) % 16 == 0;
  using One = std::integral_constant<int, 1>;
  using Two = std::integral_constant<int, 2>;
  using Wide = std::integral_constant<int, kWide>;
  if (shape.pool == 1) return wide ? body(Wide{}, One{}) : body(One{}, One{});
  return wide ? body(Wide{}, Two{}) : body(One{}, Two{});
}

template <int kVec>
Launch shape_of_launch(int64_t rows, const NormShape& shape, size_t bytes, cudaStream_t stream) {
  const dim3 threads = threads_for<kVec>(shape);
  const int64_t columns = ceil_div(ceil_div(shape.K, kVec), threads.x);
  return {dim3(unsigned(rows), unsigned(columns)), threads, bytes, stream};
}

Launch joining(const NormShape& shape, cudaStream_t stream) {
  return {dim3(unsigned(ceil_div(shape.K, kFinal))), dim3(kFinal, kFinalRows), 0, stream};
}

}  // namespace

int64_t batch_norm_workspace(const NormShape& shape) { return 2 * parts_of(shape) * shape.K; }

template <class scalar_t, class acc>
cudaError_t batch_moments(const scalar_t* maps, double* workspace, acc* mean, acc* variance,
                          const NormShape& shape, cudaStream_t stream) {
  const int64_t parts = parts_of(shape), strips = strips_of_part(shape);
  const cudaError_t status = with_constants<scalar_t>({maps}, shape, [&](auto vec, auto) {
    const Launch parted = shape_of_launch<vec>(parts, shape, Exchange<acc, vec, 3>::kBytes, stream);
    return launch(part_moments_kernel<scalar_t, vec>, parted, maps, workspace, strips, shape);
  });
  if (status != cudaSuccess) return status;
  return launch(join_moments_kernel<acc>, joining(shape, stream), workspace, mean, variance, parts,
                strips, shape);
}

template <class scalar_t, class acc>
cudaError_t batch_norm_leaky_relu(const scalar_t* maps, const NormChannels<acc>& channels,
                                  double eps, acc negative_slope, scalar_t* output,
                                  const NormShape& shape, cudaStream_t stream) {
  return with_constants<scalar_t>({maps, output}, shape, [&](auto vec, auto pool) {
    return launch(norm_kernel<scalar_t, vec, pool>,
                  shape_of_launch<vec>(shape.strips(), shape, 0, stream), maps, channels, eps,
                  negative_slope, output, shape);
  });
}

template <class scalar_t, class acc>
cudaError_t batch_norm_leaky_relu_backward(const scalar_t* grad, const scalar_t* maps,
                                           const NormChannels<acc>& channels, double eps,
                                           acc negative_slope, double* workspace,
                                           scalar_t* grad_maps, acc* grad_weight, acc* grad_bias,
                                           const NormShape& shape, cudaStream_t stream) {
  const int64_t parts = parts_of(shape), strips = strips_of_part(shape);
  return with_constants<scalar_t>({grad, maps, grad_maps}, shape, [&](auto vec, auto pool) {
    const Launch parted = shape_of_launch<vec>(parts, shape, Exchange<acc, vec, 2>::kBytes, stream);
    cudaError_t status = launch(part_sums_kernel<scalar_t, vec, pool>, parted, grad, maps, channels,
                                eps, negative_slope, workspace, strips, shape);
    if (status != cudaSuccess) return status;
    status = launch(join_sums_kernel<acc>, joining(shape, stream), workspace, grad_weight,
                    grad_bias, channels.variance, eps, parts, shape.K);
    if (status != cudaSuccess) return status;
    return launch(norm_gradient_kernel<scalar_t, vec, pool>,
                  shape_of_launch<vec>(shape.strips(), shape, 0, stream), grad, maps, channels, eps,
                  negative_slope, grad_weight, grad_bias, grad_maps, shape);
  });
}

#define FASTSSL_INSTANTIATE(scalar_t)                                                              \
  template cudaError_t batch_moments(const scalar_t*, double*, acc_t<scalar_t>*, acc_t<scalar_t>*, \
                                     const NormShape&, cudaStream_t);                              \
  template cudaError_t batch_norm_leaky_relu(                                                      \
      const scalar_t*, const NormChannels<acc_t<scalar_t>>&, double, acc_t<scalar_t>, scalar_t*,   \
      const NormShape&, cudaStream_t);                                                             \
  template cudaError_t batch_norm_leaky_relu_backward(                                             \
      const scalar_t*, const scalar_t*, const NormChannels<acc_t<scalar_t>>&, double,              \
      acc_t<scalar_t>, double*, scalar_t*, acc_t<scalar_t>*, acc_t<scalar_t>*, const NormShape&,   \
      cudaStream_t);
FASTSSL_INSTANTIATE(float)
FASTSSL_INSTANTIATE(double)
FASTSSL_INSTANTIATE(__half)
FASTSSL_INSTANTIATE(__nv_bfloat16)
#undef FASTSSL_INSTANTIATE

}  // namespace fastssl::cuda
