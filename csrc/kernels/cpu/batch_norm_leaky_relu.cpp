#include "../batch_norm_leaky_relu.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "parallel.h"
#include "product.h"
#include "simd.h"

namespace fastssl::cpu {
namespace {

constexpr int64_t kBlockPixels = 64;      // whose mean is known before their distances are squared
constexpr int64_t kTaskValues = 1 << 15;  // and of a piece that is summed by itself

template <int n>
using Constant = std::integral_constant<int, n>;

// The first `count` numbers, or a whole vector; zeros behind them.
template <class simd, class scalar_t>
FASTSSL_INLINE typename simd::Vector load_head(const scalar_t* from, int64_t count) {
  if (count >= simd::kLanes) return simd::load(from);
  scalar_t head[simd::kLanes] = {};
  for (int64_t l = 0; l < count; ++l) head[l] = from[l];
  return simd::load(head);
}

template <class T>
FASTSSL_INLINE T total(const T (&sums)[4]) {
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// Mean and sum of squared distances from it of every channel over pixels [begin, end), by blocks:
// those of a block are taken in turn, and joined to those before (Chan, Golub and LeVeque, 1983).
template <class Isa, class scalar_t>
FASTSSL_INLINE void piece_moments_body(const scalar_t* maps, double* mean, double* squares,
                                       int64_t K, int64_t begin, int64_t end) {
  using simd = Simd<Isa, acc_t<scalar_t>>;
  using Vector = typename simd::Vector;
  constexpr int64_t kLanes = simd::kLanes;
  for (int64_t k = 0; k < K; ++k) mean[k] = squares[k] = 0;
  for (int64_t first = begin; first < end; first += kBlockPixels) {
    const int64_t pixels = std::min(kBlockPixels, end - first), before = first - begin;
    const double share = double(pixels) / double(before + pixels);
    for (int64_t j = 0; j < K; j += kLanes) {
      const int64_t count = std::min<int64_t>(kLanes, K - j);
      const auto x = [&](int64_t p) { return load_head<simd>(maps + (first + p) * K + j, count); };
      // Four sums at a time: one would wait for itself.
      const auto add = [&](auto& sums, const auto& value) {
        int64_t p = 0;
        for (; p + 4 <= pixels; p += 4) {
#pragma GCC unroll 4
          for (int i = 0; i < 4; ++i) value(sums[i], p + i);
        }
        for (; p < pixels; ++p) value(sums[0], p);
      };
      Vector sums[4] = {};
      add(sums, [&](Vector& sum, int64_t p) { sum += x(p); });
      const Vector center = total(sums) / Vector(simd::broadcast(acc_t<scalar_t>(pixels)));
      // From a center that is rounded, so their sum is not quite zero.
      struct Deviations {
        Vector sum, squares;
        FASTSSL_INLINE Deviations operator+(const Deviations& other) const {
          return {sum + other.sum, squares + other.squares};
        }
      } deviations[4] = {};
      add(deviations, [&](Deviations& own, int64_t p) {
        const Vector d = x(p) - center;
        own.sum += d;
        own.squares += d * d;
      });
      const Deviations all = total(deviations);
      for (int64_t l = 0; l < count; ++l) {
        const double offset = double(all.sum[l]) / double(pixels);
        const double step = double(center[l]) + offset - mean[j + l];
        mean[j + l] += step * share;
        squares[j + l] += double(all.squares[l]) - offset * double(all.sum[l]) +
                          step * step * share * double(before);
      }
    }
  }
}
FASTSSL_PER_LEVEL(piece_moments, piece_moments_body)

// What the strips of a batch have in common.
template <class scalar_t>
struct Strips {
  using acc = acc_t<scalar_t>;

  const scalar_t* maps;
  const acc *mean, *factor, *bias;  // [K], filled up to whole vectors
  acc slope;
  NormShape shape;
};

// A vector of channels.
template <class Isa, class acc>
struct Channels {
  using simd = Simd<Isa, acc>;
  using Vector = typename simd::Vector;

  template <class scalar_t>
  FASTSSL_INLINE Channels(const Strips<scalar_t>& strips, int64_t j)
      : mean(simd::load(strips.mean + j)),
        factor(simd::load(strips.factor + j)),
        bias(simd::load(strips.bias + j)) {}

  FASTSSL_INLINE Vector z(Vector deviation) const { return deviation * factor + bias; }

  const Vector mean, factor, bias;
};

template <class Isa, class scalar_t, int kPool>
FASTSSL_INLINE void write_strips_body(const Strips<scalar_t>* strips, scalar_t* output,
                                      Constant<kPool>, int64_t begin, int64_t end) {
  using acc = acc_t<scalar_t>;
  using simd = Simd<Isa, acc>;
  using Vector = typename simd::Vector;
  const int64_t K = strips->shape.K, W = strips->shape.W, windows = strips->shape.out_width();
  for (int64_t strip = begin; strip < end; ++strip) {
    if (!strips->shape.has_windows(strip)) continue;
    const scalar_t* const in = strips->maps + strips->shape.pixels_before(strip) * K;
    scalar_t* const out = output + strips->shape.windows_before(strip) * K;
    for (int64_t j = 0; j < K; j += simd::kLanes) {
      const int64_t count = std::min<int64_t>(simd::kLanes, K - j);
      const Channels<Isa, acc> channels(*strips, j);
      for (int64_t w = 0; w < windows; ++w) {
        Vector largest;
#pragma GCC unroll 4
        for (int i = 0; i < kPool * kPool; ++i) {
          const scalar_t* const x = in + (i / kPool * W + w * kPool + i % kPool) * K + j;
          const Vector z = channels.z(load_head<simd>(x, count) - channels.mean);
          largest = i == 0 ? z : simd::max(z, largest);
        }
        simd::store_head(out + w * K + j, largest > 0 ? largest : largest * strips->slope, count);
      }
    }
  }
}
FASTSSL_PER_LEVEL(write_strips, write_strips_body)

// sums [2, K], with room for whole vectors: of g and of g (x - m) over the strips.
template <class Isa, class scalar_t, int kPool>
FASTSSL_INLINE void sum_strips_body(const Strips<scalar_t>* strips, const scalar_t* grad,
                                    acc_t<scalar_t>* sums, int64_t stride, Constant<kPool>,
                                    int64_t begin, int64_t end) {
  using acc = acc_t<scalar_t>;
  using simd = Simd<Isa, acc>;
  using Vector = typename simd::Vector;
  const int64_t K = strips->shape.K, W = strips->shape.W, windows = strips->shape.out_width();
  std::fill(sums, sums + 2 * stride, acc(0));
  for (int64_t strip = begin; strip < end; ++strip) {
    if (!strips->shape.has_windows(strip)) continue;
    const scalar_t* const in = strips->maps + strips->shape.pixels_before(strip) * K;
    const scalar_t* const from = grad + strips->shape.windows_before(strip) * K;
    for (int64_t j = 0; j < K; j += simd::kLanes) {
      const int64_t count = std::min<int64_t>(simd::kLanes, K - j);
      const Channels<Isa, acc> channels(*strips, j);
      Vector sum = simd::load(sums + j), weighted = simd::load(sums + stride + j);
      for (int64_t w = 0; w < windows; ++w) {
        Vector largest, deviation;
#pragma GCC unroll 4
        for (int i = 0; i < kPool * kPool; ++i) {
          const scalar_t* const x = in + (i / kPool * W + w * kPool + i % kPool) * K + j;
          const Vector own = load_head<simd>(x, count) - channels.mean;
          const Vector z = channels.z(own);
          deviation = i == 0 ? own : z > largest ? own : deviation;
          largest = i == 0 ? z : simd::max(z, largest);
        }
        const Vector from_above = load_head<simd>(from + w * K + j, count);
        const Vector g = largest > 0 ? from_above : from_above * strips->slope;
        sum += g;
        weighted += g * deviation;
      }
      simd::store(sums + j, sum);
      simd::store(sums + stride + j, weighted);
    }
  }
}
FASTSSL_PER_LEVEL(sum_strips, sum_strips_body)

// grad x = factor g - shift - slant (x - m); [K], filled up to whole vectors.
template <class acc>
struct Line {
  const acc *shift, *slant;
};

template <class Isa, class scalar_t, int kPool>
FASTSSL_INLINE void differentiate_strips_body(const Strips<scalar_t>* strips, const scalar_t* grad,
                                              Line<acc_t<scalar_t>> line, scalar_t* grad_maps,
                                              Constant<kPool>, int64_t begin, int64_t end) {
  using acc = acc_t<scalar_t>;
  using simd = Simd<Isa, acc>;
  using Vector = typename simd::Vector;
  constexpr int kWindow = kPool * kPool;
  const int64_t K = strips->shape.K, W = strips->shape.W, windows = strips->shape.out_width();
  for (int64_t strip = begin; strip < end; ++strip) {
    const bool whole = strips->shape.has_windows(strip);
    const int64_t offset = strips->shape.pixels_before(strip) * K;
    const scalar_t* const in = strips->maps + offset;
    const scalar_t* const from = grad + strips->shape.windows_before(strip) * K;
    scalar_t* const out = grad_maps + offset;
    for (int64_t j = 0; j < K; j += simd::kLanes) {
      const int64_t count = std::min<int64_t>(simd::kLanes, K - j);
      const Channels<Isa, acc> channels(*strips, j);
      const Vector shift = simd::load(line.shift + j), slant = simd::load(line.slant + j);
      const Vector ones = simd::broadcast(1), slopes = simd::broadcast(strips->slope);
      const auto without_output = [&](int64_t row, int64_t first) {
        for (int64_t p = row * W + first; p < (row + 1) * W; ++p) {
          const Vector own = load_head<simd>(in + p * K + j, count) - channels.mean;
          simd::store_head(out + p * K + j, -shift - slant * own, count);
        }
      };
      if (!whole) {
        without_output(0, 0);
        continue;
      }
      for (int64_t w = 0; w < windows; ++w) {
        Vector deviation[kWindow], largest, at{};  // the number of the largest
#pragma GCC unroll 4
        for (int i = 0; i < kWindow; ++i) {
          const scalar_t* const x = in + (i / kPool * W + w * kPool + i % kPool) * K + j;
          deviation[i] = load_head<simd>(x, count) - channels.mean;
          const Vector z = channels.z(deviation[i]);
          if (i > 0) at = z > largest ? simd::broadcast(acc(i)) : at;
          largest = i == 0 ? z : simd::max(z, largest);
        }
        simd::forget(at);
        const Vector from_above = load_head<simd>(from + w * K + j, count) * channels.factor;
        const Vector g = from_above * (largest > 0 ? ones : slopes);
#pragma GCC unroll 4
        for (int i = 0; i < kWindow; ++i) {
          scalar_t* const to = out + (i / kPool * W + w * kPool + i % kPool) * K + j;
          const Vector own = at == simd::broadcast(acc(i)) ? g : Vector{};
          simd::store_head(to, own - shift - slant * deviation[i], count);
        }
      }
      for (int row = 0; row < kPool; ++row) without_output(row, windows * kPool);
    }
  }
}
FASTSSL_PER_LEVEL(differentiate_strips, differentiate_strips_body)

template <class acc>
double inverse_deviation(const NormChannels<acc>& channels, double eps, int64_t k) {
  return 1 / std::sqrt(double(channels.variance[k]) + eps);
}

// The channels' numbers, each [K] filled up with zeros, and the strips that point to them.
template <class scalar_t>
class Layer {
 public:
  using acc = acc_t<scalar_t>;

  Layer(const scalar_t* maps, const NormChannels<acc>& channels, double eps, acc slope,
        const NormShape& shape)
      : padded(round_up(shape.K, tile<acc>().lanes)),
        numbers_(3 * padded),
        strips{maps, numbers_, numbers_ + padded, numbers_ + 2 * padded, slope, shape} {
    std::fill(numbers_ + 0, numbers_ + 3 * padded, acc(0));
    for (int64_t k = 0; k < shape.K; ++k) {
      numbers_[k] = channels.mean[k];
      numbers_[padded + k] = acc(double(channels.weight[k]) * inverse_deviation(channels, eps, k));
      numbers_[2 * padded + k] = channels.bias[k];
    }
  }

  const int64_t padded;

 private:
  Scratch<acc> numbers_;

 public:
  const Strips<scalar_t> strips;
};

template <class Body>
void with_pool(const NormShape& shape, const Body& body) {
  if (shape.pool == 1) return body(Constant<1>{});
  body(Constant<2>{});
}

int64_t strips_of(int64_t values, const NormShape& shape) {
  return std::max<int64_t>(1, values / (shape.W * shape.pool * shape.K));
}

}  // namespace

template <class scalar_t, class acc>
void batch_moments(const scalar_t* maps, acc* mean, acc* variance, const NormShape& shape) {
  const int64_t K = shape.K, M = shape.pixels();
  const int64_t blocks = std::max<int64_t>(1, kTaskValues / (K * kBlockPixels));
  const int64_t pixels = blocks * kBlockPixels, pieces = (M + pixels - 1) / pixels;
  Scratch<double> moments(2 * pieces * K);
  parallel_for(pieces, 1, [&](int64_t begin, int64_t end) {
    for (int64_t piece = begin; piece < end; ++piece) {
      double* const own = moments + 2 * piece * K;
      piece_moments(maps, own, own + K, K, piece * pixels, std::min(M, (piece + 1) * pixels));
    }
  });
  double *const means = moments + 0, *const squares = moments + K;
  for (int64_t piece = 1; piece < pieces; ++piece) {
    const double before = double(piece * pixels);
    const double share = 1 - before / double(std::min(M, (piece + 1) * pixels));
    const double* const own = moments + 2 * piece * K;
    for (int64_t k = 0; k < K; ++k) {
      const double step = own[k] - means[k];
      means[k] += step * share;
      squares[k] += own[K + k] + step * step * share * before;
    }
  }
  for (int64_t k = 0; k < K; ++k) {
    mean[k] = acc(means[k]);
    variance[k] = acc(squares[k] / double(M));
  }
}

template <class scalar_t, class acc>
void batch_norm_leaky_relu(const scalar_t* maps, const NormChannels<acc>& channels, double eps,
                           acc negative_slope, scalar_t* output, const NormShape& shape) {
  const Layer<scalar_t> layer(maps, channels, eps, negative_slope, shape);
  with_pool(shape, [&](auto pool) {
    parallel_for(shape.strips(), strips_of(kTaskValues, shape), [&](int64_t begin, int64_t end) {
      write_strips(&layer.strips, output, pool, begin, end);
    });
  });
}

template <class scalar_t, class acc>
void batch_norm_leaky_relu_backward(const scalar_t* grad, const scalar_t* maps,
                                    const NormChannels<acc>& channels, double eps,
                                    acc negative_slope, scalar_t* grad_maps, acc* grad_weight,
                                    acc* grad_bias, const NormShape& shape) {
  const Layer<scalar_t> layer(maps, channels, eps, negative_slope, shape);
  const int64_t K = shape.K, padded = layer.padded;
  const int64_t strips = strips_of(kTaskValues, shape);
  const int64_t pieces = (shape.strips() + strips - 1) / strips;
  Scratch<acc> sums(2 * pieces * padded), line(2 * padded);
  with_pool(shape, [&](auto pool) {
    parallel_for(pieces, 1, [&](int64_t begin, int64_t end) {
      for (int64_t piece = begin; piece < end; ++piece) {
        sum_strips(&layer.strips, grad, sums + 2 * piece * padded, padded, pool, piece * strips,
                   std::min(shape.strips(), (piece + 1) * strips));
      }
    });
  });
  std::fill(line + 0, line + 2 * padded, acc(0));
  for (int64_t k = 0; k < K; ++k) {
    double sum = 0, weighted = 0;
    for (int64_t piece = 0; piece < pieces; ++piece) {
      sum += double(sums[2 * piece * padded + k]);
      weighted += double(sums[(2 * piece + 1) * padded + k]);
    }
    const double scale = inverse_deviation(channels, eps, k);
    const double factor = double(channels.weight[k]) * scale / double(shape.pixels());
    grad_bias[k] = acc(sum);
    grad_weight[k] = acc(weighted * scale);
    line[k] = acc(factor * sum);
    line[padded + k] = acc(factor * weighted * scale * scale);
  }
  const Line<acc> numbers{line, line + padded};
  with_pool(shape, [&](auto pool) {
    parallel_for(shape.strips(), strips_of(kTaskValues, shape), [&](int64_t begin, int64_t end) {
      differentiate_strips(&layer.strips, grad, numbers, grad_maps, pool, begin, end);
    });
  });
}

#define FASTSSL_INSTANTIATE(scalar_t)                                                        \
  template void batch_moments(const scalar_t*, acc_t<scalar_t>*, acc_t<scalar_t>*,           \
                              const NormShape&);                                             \
  template void batch_norm_leaky_relu(const scalar_t*, const NormChannels<acc_t<scalar_t>>&, \
                                      double, acc_t<scalar_t>, scalar_t*, const NormShape&); \
  template void batch_norm_leaky_relu_backward(                                              \
      const scalar_t*, const scalar_t*, const NormChannels<acc_t<scalar_t>>&, double,        \
      acc_t<scalar_t>, scalar_t*, acc_t<scalar_t>*, acc_t<scalar_t>*, const NormShape&);
FASTSSL_INSTANTIATE(float)
FASTSSL_INSTANTIATE(double)
FASTSSL_INSTANTIATE(Half)
FASTSSL_INSTANTIATE(BFloat16)
#undef FASTSSL_INSTANTIATE

}  // namespace fastssl::cpu
