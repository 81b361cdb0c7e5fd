#include "../weighted_cross_entropy.h"

#include "cross_entropy.h"

namespace fastssl::cpu {
namespace {

template <class scalar_t, class weight_t>
struct WeightedCrossEntropy {
  using acc = acc_t<scalar_t>;

  SoftmaxRows<scalar_t> logits;
  const int64_t* targets;
  const weight_t* weights;
  scalar_t* gradient;

  template <class Isa>
  FASTSSL_INLINE void add(int64_t n, RowTotal& total) {
    using simd = Simd<Isa, acc>;
    const int64_t C = logits.C, target = targets[n];
    const acc weight = load(weights + n);
    const auto fill = [&](acc value) {
      if (gradient == nullptr) return;
      write_row<simd>(gradient + n * C, C, [&](int64_t) { return simd::broadcast(value); });
    };
    if (target < 0 || target >= C) {
      constexpr acc kNaN = std::numeric_limits<acc>::quiet_NaN();
      total.add(kNaN);
      return fill(kNaN);
    }
    if (weight == 0) return fill(0);
    logits.template move_to<Isa>(n);
    total.add(double(weight) * (std::log(double(logits.sum)) - double(logits.z_of(target))));
    if (gradient != nullptr) {
      write_cross_entropy_row<Isa>(logits, target, weight, gradient + n * C);
    }
  }
};

}  // namespace

template <class scalar_t, class weight_t, class acc>
void weighted_cross_entropy(const scalar_t* logits, const int64_t* targets, const weight_t* weights,
                            scalar_t* gradient, acc* loss, int64_t N, int64_t C) {
  const auto make = [&] {
    return WeightedCrossEntropy<scalar_t, weight_t>{{logits, N, C}, targets, weights, gradient};
  };
  *loss = acc(total_of_rows(N, C, make).sum() / double(N));
}

#define FASTSSL_INSTANTIATE(scalar_t, weight_t)                                          \
  template void weighted_cross_entropy(const scalar_t*, const int64_t*, const weight_t*, \
                                       scalar_t*, acc_t<scalar_t>*, int64_t, int64_t);
FASTSSL_INSTANTIATE(float, float)
FASTSSL_INSTANTIATE(double, double)
FASTSSL_INSTANTIATE(Half, Half)
FASTSSL_INSTANTIATE(Half, float)
FASTSSL_INSTANTIATE(BFloat16, BFloat16)
FASTSSL_INSTANTIATE(BFloat16, float)
#undef FASTSSL_INSTANTIATE

}  // namespace fastssl::cpu
