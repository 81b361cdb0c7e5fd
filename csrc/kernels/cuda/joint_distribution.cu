#include "../joint_distribution.h"

#include "softmax.cuh"

namespace fastssl::cuda {
namespace {

// ---- Few classes: a thread owns a row
// -------------------------------------------------------------

// One block a multiprocessor is all that the launch bounds below promise: shared memory limits the
// blocks anyway, and a promise of more makes the compiler spill registers.
constexpr int kRowThreads = 128;
constexpr int64_t kMaxBlocks = 264;  // two a multiprocessor of an H100

// Rows of shared memory are an odd number of words apart, so that a warp's 32 rows meet 32 banks.
__host__ __device__ constexpr int odd_stride(int C) { return C | 1; }

// row[C] = softmax(logits[C]).
template <class scalar_t, class acc>
__device__ __forceinline__ void softmax_to(const scalar_t* __restrict__ logits, acc* row, int C) {
  acc maximum = load(logits[0]);
  row[0] = maximum;
  for (int c = 1; c < C; ++c) {
    const acc x = load(logits[c]);
    row[c] = x;
    maximum = x > maximum ? x : maximum;
  }
  acc total = 0;
  for (int c = 0; c < C; ++c) {
    const acc e = exponential(row[c] - maximum);
    row[c] = e;
    total += e;
  }
  const acc inverse = acc(1) / total;
  for (int c = 0; c < C; ++c) row[c] *= inverse;
}

// row[C] = sum over views of softmax(logits[v]); view[C] is scratch.
template <class scalar_t, class acc>
__device__ __forceinline__ void pooled_softmax_to(const scalar_t* __restrict__ logits,
                                                  int64_t view_stride, acc* row, acc* view, int C,
                                                  int V) {
  softmax_to(logits, row, C);
  for (int v = 1; v < V; ++v) {
    softmax_to(logits + v * view_stride, view, C);
    for (int c = 0; c < C; ++c) row[c] += view[c];
  }
}

// kEntries: how many of the C x C sums a thread holds in registers.
template <class scalar_t, int kEntries>
__global__ void __launch_bounds__(kRowThreads, 1)
    joint_partials_kernel(const scalar_t* __restrict__ logits_a,
                          const scalar_t* __restrict__ logits_b,
                          acc_t<scalar_t>* __restrict__ partials, int64_t N, int C, int V) {
  using acc = acc_t<scalar_t>;
  const int stride = odd_stride(C);
  SharedMemory shared;
  acc* a = shared.take<acc>(kRowThreads * stride);     // [rows, stride]
  acc* b = shared.take<acc>(kRowThreads * stride);     // [rows, stride]
  acc* view = shared.take<acc>(kRowThreads * stride);  // [rows, stride]
  const int thread = threadIdx.x;
  acc sums[kEntries] = {};
  for (int64_t first = int64_t(blockIdx.x) * kRowThreads; first < N;
       first += int64_t(gridDim.x) * kRowThreads) {
    const int64_t n = first + thread;
    if (n < N) {
      softmax_to(logits_a + n * C, a + thread * stride, C);
      pooled_softmax_to(logits_b + n * C, N * C, b + thread * stride, view + thread * stride, C, V);
    }
    __syncthreads();
    const int rows = N - first < kRowThreads ? int(N - first) : kRowThreads;
#pragma unroll
    for (int k = 0; k < kEntries; ++k) {
      const int entry = thread + k * kRowThreads;
      if (entry < C * C) {
        const int i = entry / C, j = entry % C;
        acc sum = 0;
        for (int r = 0; r < rows; ++r) sum += a[r * stride + i] * b[r * stride + j];
        sums[k] += sum;
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int k = 0; k < kEntries; ++k) {
    const int entry = thread + k * kRowThreads;
    if (entry < C * C) partials[int64_t(blockIdx.x) * C * C + entry] = sums[k];
  }
}

// gradient[C] = scale * p (t - <p, t>).
template <class scalar_t, class acc>
__device__ __forceinline__ void softmax_gradient_to(const acc* p, const acc* t, acc scale,
                                                    scalar_t* __restrict__ gradient, int C) {
  acc dot = 0;
  for (int c = 0; c < C; ++c) dot += p[c] * t[c];
  for (int c = 0; c < C; ++c) store(gradient + c, scale * p[c] * (t[c] - dot));
}

// t[C] = matrix [C, C] times p[C].
template <class acc>
__device__ __forceinline__ void multiply_to(const acc* matrix, const acc* p, acc* t, int C) {
  for (int i = 0; i < C; ++i) {
    acc sum = 0;
    for (int j = 0; j < C; ++j) sum += matrix[i * C + j] * p[j];
    t[i] = sum;
  }
}

template <class scalar_t>
__global__ void __launch_bounds__(kRowThreads, 1)
    joint_gradients_kernel(const acc_t<scalar_t>* __restrict__ grad_joint,
                           const acc_t<scalar_t>* __restrict__ grad, acc_t<scalar_t> scale,
                           const scalar_t* __restrict__ logits_a,
                           const scalar_t* __restrict__ logits_b, scalar_t* __restrict__ grad_a,
                           scalar_t* __restrict__ grad_b, int64_t N, int C, int V) {
  using acc = acc_t<scalar_t>;
  const int stride = odd_stride(C), thread = threadIdx.x;
  SharedMemory shared;
  acc* symmetric = shared.take<acc>(C * C);  // [C, C]
  acc* a = shared.take<acc>(kRowThreads * stride) + thread * stride;
  acc* b = shared.take<acc>(kRowThreads * stride) + thread * stride;
  acc* t = shared.take<acc>(kRowThreads * stride) + thread * stride;
  for (int entry = thread; entry < C * C; entry += kRowThreads) {
    const int i = entry / C, j = entry % C;
    symmetric[entry] = acc(0.5) * (grad_joint[entry] + grad_joint[j * C + i]);
  }
  __syncthreads();
  const int64_t n = int64_t(blockIdx.x) * kRowThreads + thread;
  if (n >= N) return;
  const acc factor = grad != nullptr ? scale * *grad : scale;
  softmax_to(logits_a + n * C, a, C);
  if (grad_a != nullptr) {
    pooled_softmax_to(logits_b + n * C, N * C, b, t, C, V);
    multiply_to(symmetric, b, t, C);
    softmax_gradient_to(a, t, factor, grad_a + n * C, C);
  }
  if (grad_b != nullptr) {
    multiply_to(symmetric, a, t, C);
    for (int v = 0; v < V; ++v) {
      const int64_t at = (int64_t(v) * N + n) * C;
      softmax_to(logits_b + at, b, C);
      softmax_gradient_to(b, t, factor, grad_b + at, C);
    }
  }
}

// ---- Many classes: a warp owns a row
// --------------------------------------------------------------

constexpr int kRowsPerBlock = 4;

template <class scalar_t>
__global__ void __launch_bounds__(kRowsPerBlock* kWarp, 1)
    pooled_softmax_kernel(const scalar_t* __restrict__ logits,
                          acc_t<scalar_t>* __restrict__ probabilities, int64_t N, int64_t C,
                          int64_t V) {
  using acc = acc_t<scalar_t>;
  const int lane = threadIdx.x % kWarp;
  const int64_t n = int64_t(blockIdx.x) * kRowsPerBlock + threadIdx.x / kWarp;
  if (n >= N) return;  // whole warps
  for (int64_t v = 0; v < V; ++v) {
    const scalar_t* row = logits + (v * N + n) * C;
    acc maximum, inverse;
    softmax_statistics(row, C, lane, maximum, inverse);
    for (int64_t c = lane; c < C; c += kWarp) {
      const acc p = exponential(load(row[c]) - maximum) * inverse;
      probabilities[n * C + c] = v == 0 ? p : probabilities[n * C + c] + p;
    }
  }
}

template <class scalar_t>
__global__ void __launch_bounds__(kRowsPerBlock* kWarp, 1)
    softmax_gradient_kernel(const scalar_t* __restrict__ logits,
                            const acc_t<scalar_t>* __restrict__ t,
                            const acc_t<scalar_t>* __restrict__ grad, acc_t<scalar_t> scale,
                            scalar_t* __restrict__ gradient, int64_t N, int64_t C, int64_t V) {
  using acc = acc_t<scalar_t>;
  const int lane = threadIdx.x % kWarp;
  const int64_t row_index = int64_t(blockIdx.x) * kRowsPerBlock + threadIdx.x / kWarp;
  if (row_index >= V * N) return;  // whole warps
  const scalar_t* row = logits + row_index * C;
  const acc* t_row = t + row_index % N * C;
  acc maximum, inverse;
  softmax_statistics(row, C, lane, maximum, inverse);
  acc dot = 0;
  for (int64_t c = lane; c < C; c += kWarp) dot += exponential(load(row[c]) - maximum) * t_row[c];
  dot = warp_sum(dot) * inverse;
  const acc factor = (grad != nullptr ? scale * *grad : scale) * inverse;
  for (int64_t c = lane; c < C; c += kWarp) {
    store(gradient + row_index * C + c,
          factor * exponential(load(row[c]) - maximum) * (t_row[c] - dot));
  }
}

// ---- Both
// -----------------------------------------------------------------------------------------

constexpr int kEntryThreads = 256;

template <class acc>
__global__ void __launch_bounds__(kEntryThreads)
    symmetrize_kernel(const acc* __restrict__ partials, int64_t count, acc scale,
                      acc* __restrict__ joint, int64_t C) {
  const int64_t entry = int64_t(blockIdx.x) * kEntryThreads + threadIdx.x;
  if (entry >= C * C) return;
  const int64_t transposed = entry % C * C + entry / C;
  acc sum = 0;
  for (int64_t k = 0; k < count; ++k)
    sum += partials[k * C * C + entry] + partials[k * C * C + transposed];
  joint[entry] = acc(0.5) * scale * sum;
}

template <class acc>
size_t row_shared_bytes(int64_t C) {
  return 3 * shared_bytes<acc>(kRowThreads * odd_stride(int(C)));
}

}  // namespace

int64_t joint_partials_count(int64_t N) {
  const int64_t blocks = ceil_div(N, kRowThreads);
  return blocks < kMaxBlocks ? blocks : kMaxBlocks;
}

template <class scalar_t, class acc>
cudaError_t joint_partials(const scalar_t* logits_a, const scalar_t* logits_b, acc* partials,
                           int64_t N, int64_t C, int64_t V, cudaStream_t stream) {
  const Launch shape{dim3(unsigned(joint_partials_count(N))), dim3(kRowThreads),
                     row_shared_bytes<acc>(C), stream};
  const int64_t entries = ceil_div(C * C, kRowThreads);
  const auto kernel = entries <= 1   ? joint_partials_kernel<scalar_t, 1>
                      : entries <= 2 ? joint_partials_kernel<scalar_t, 2>
                      : entries <= 4 ? joint_partials_kernel<scalar_t, 4>
                                     : joint_partials_kernel<scalar_t, 8>;
  static_assert(kFewClasses * kFewClasses <= 8 * kRowThreads);
  return launch(kernel, shape, logits_a, logits_b, partials, N, int(C), int(V));
}

template <class acc>
cudaError_t symmetrize(const acc* partials, int64_t count, acc scale, acc* joint, int64_t C,
                       cudaStream_t stream) {
  const Launch shape{dim3(unsigned(ceil_div(C * C, kEntryThreads))), dim3(kEntryThreads), 0,
                     stream};
  return launch(symmetrize_kernel<acc>, shape, partials, count, scale, joint, C);
}

template <class scalar_t, class acc>
cudaError_t joint_gradients(const acc* grad_joint, const acc* grad, const scalar_t* logits_a,
                            const scalar_t* logits_b, scalar_t* grad_a, scalar_t* grad_b, int64_t N,
                            int64_t C, int64_t V, cudaStream_t stream) {
  const Launch shape{dim3(unsigned(ceil_div(N, kRowThreads))), dim3(kRowThreads),
                     shared_bytes<acc>(C * C) + row_shared_bytes<acc>(C), stream};
  return launch(joint_gradients_kernel<scalar_t>, shape, grad_joint, grad,
                acc(1 / (double(N) * double(V))), logits_a, logits_b, grad_a, grad_b, N, int(C),
                int(V));
}

template <class scalar_t, class acc>
cudaError_t pooled_softmax(const scalar_t* logits, acc* probabilities, int64_t N, int64_t C,
                           int64_t V, cudaStream_t stream) {
  const Launch shape{dim3(unsigned(ceil_div(N, kRowsPerBlock))), dim3(kRowsPerBlock * kWarp), 0,
                     stream};
  return launch(pooled_softmax_kernel<scalar_t>, shape, logits, probabilities, N, C, V);
}

template <class scalar_t, class acc>
cudaError_t softmax_gradient(const scalar_t* logits, const acc* t, const acc* grad, acc scale,
                             scalar_t* gradient, int64_t N, int64_t C, int64_t V,
                             cudaStream_t stream) {
  const Launch shape{dim3(unsigned(ceil_div(V * N, kRowsPerBlock))), dim3(kRowsPerBlock * kWarp), 0,
                     stream};
  return launch(softmax_gradient_kernel<scalar_t>, shape, logits, t, grad, scale, gradient, N, C,
                V);
}

#define FASTSSL_INSTANTIATE(scalar_t)                                                              \
  template cudaError_t joint_partials(const scalar_t*, const scalar_t*, acc_t<scalar_t>*, int64_t, \
                                      int64_t, int64_t, cudaStream_t);                             \
  template cudaError_t joint_gradients(const acc_t<scalar_t>*, const acc_t<scalar_t>*,             \
                                       const scalar_t*, const scalar_t*, scalar_t*, scalar_t*,     \
                                       int64_t, int64_t, int64_t, cudaStream_t);                   \
  template cudaError_t pooled_softmax(const scalar_t*, acc_t<scalar_t>*, int64_t, int64_t,         \
                                      int64_t, cudaStream_t);                                      \
  template cudaError_t softmax_gradient(const scalar_t*, const acc_t<scalar_t>*,                   \
                                        const acc_t<scalar_t>*, acc_t<scalar_t>, scalar_t*,        \
                                        int64_t, int64_t, int64_t, cudaStream_t);
FASTSSL_INSTANTIATE(float)
FASTSSL_INSTANTIATE(double)
FASTSSL_INSTANTIATE(__half)
FASTSSL_INSTANTIATE(__nv_bfloat16)
#undef FASTSSL_INSTANTIATE
template cudaError_t symmetrize(const float*, int64_t, float, float*, int64_t, cudaStream_t);
template cudaError_t symmetrize(const double*, int64_t, double, double*, int64_t, cudaStream_t);

}  // namespace fastssl::cuda
