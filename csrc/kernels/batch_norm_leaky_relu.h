// Batch norm by a batch's own statistics, LeakyReLU and max pooling: what follows a convolution.
//
// N images of K channels and H x W pixels, in channels_last order. M = N H W values of a channel
// have mean m and variance v; x^ = (x - m) / sqrt(v + eps), z = weight x^ + bias, and the output is
// f(z), f the LeakyReLU, or f of the largest z of every window of pool x pool pixels: f rises, so
// the largest may be taken before it. Pixels of windows that would reach over the edge have no
// output, but count for the statistics. With g the gradient of z, which is zero but for the first
// largest of a window,
//
//   grad bias = sum g,  grad weight = sum g x^,
//   grad x = weight / sqrt(v + eps) (g - (grad bias + x^ grad weight) / M).
//
// x^ and z are computed from x once more on the way back: nothing but x is kept.
#pragma once

#include <cstdint>

#ifdef FASTSSL_WITH_CUDA
#include <cuda_runtime_api.h>
#endif

namespace fastssl {

struct NormShape {
  int64_t N, K, H, W, pool;  // pool is 1 or 2

  constexpr int64_t pixels() const { return N * H * W; }
  constexpr int64_t out_height() const { return pool == 2 ? H / 2 : H; }
  constexpr int64_t out_width() const { return pool == 2 ? W / 2 : W; }

  // A strip is a row of windows, the last one of an image perhaps cut off: then it has none.
  constexpr int64_t strips() const { return N * strips_of_image(); }
  constexpr int64_t strips_of_image() const { return pool == 2 ? (H + 1) / 2 : H; }
  constexpr bool has_windows(int64_t strip) const { return row(strip) < out_height(); }
  // How many come before a strip's; strips() is the one behind the last.
  constexpr int64_t pixels_before(int64_t strip) const {
    return (image(strip) * H + row(strip) * pool) * W;
  }
  constexpr int64_t windows_before(int64_t strip) const {
    return (image(strip) * out_height() + row(strip)) * out_width();
  }

 private:
  // There are fewer than 2^32 strips, and a GPU divides so much faster.
  constexpr int64_t image(int64_t strip) const {
    return uint32_t(strip) / uint32_t(strips_of_image());
  }
  constexpr int64_t row(int64_t strip) const {
    return uint32_t(strip) % uint32_t(strips_of_image());
  }
};

// All [K].
template <class acc_t>
struct NormChannels {
  const acc_t *weight, *bias, *mean, *variance;
};

}  // namespace fastssl

namespace fastssl::cpu {

// mean and variance [K], over M.
template <class scalar_t, class acc_t>
void batch_moments(const scalar_t* maps,  // [N, H, W, K]
                   acc_t* mean, acc_t* variance, const NormShape& shape);

template <class scalar_t, class acc_t>
void batch_norm_leaky_relu(const scalar_t* maps, const NormChannels<acc_t>& channels, double eps,
                           acc_t negative_slope,
                           scalar_t* output,  // [N, H / pool, W / pool, K]
                           const NormShape& shape);

template <class scalar_t, class acc_t>
void batch_norm_leaky_relu_backward(const scalar_t* grad,  // like the output
                                    const scalar_t* maps, const NormChannels<acc_t>& channels,
                                    double eps, acc_t negative_slope,
                                    scalar_t* grad_maps,  // like maps
                                    acc_t* grad_weight, acc_t* grad_bias, const NormShape& shape);

}  // namespace fastssl::cpu

#ifdef FASTSSL_WITH_CUDA
namespace fastssl::cuda {

// Doubles of workspace: two a channel for each of as many parts of a batch.
int64_t batch_norm_workspace(const NormShape& shape);

template <class scalar_t, class acc_t>
cudaError_t batch_moments(const scalar_t* maps, double* workspace, acc_t* mean, acc_t* variance,
                          const NormShape& shape, cudaStream_t stream);

template <class scalar_t, class acc_t>
cudaError_t batch_norm_leaky_relu(const scalar_t* maps, const NormChannels<acc_t>& channels,
                                  double eps, acc_t negative_slope, scalar_t* output,
                                  const NormShape& shape, cudaStream_t stream);

template <class scalar_t, class acc_t>
cudaError_t batch_norm_leaky_relu_backward(const scalar_t* grad, const scalar_t* maps,
                                           const NormChannels<acc_t>& channels, double eps,
                                           acc_t negative_slope, double* workspace,
                                           scalar_t* grad_maps, acc_t* grad_weight,
                                           acc_t* grad_bias, const NormShape& shape,
                                           cudaStream_t stream);

}  // namespace fastssl::cuda
#endif
