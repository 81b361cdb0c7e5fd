#include "../unit_perturbation.h"

#include <algorithm>
#include <cmath>

#include "parallel.h"
#include "simd.h"

namespace fastssl::cpu {
namespace {

constexpr int64_t kTaskElements = 1 << 15;

template <class Isa, class scalar_t, class acc>
FASTSSL_INLINE void perturbation_samples_body(const scalar_t* direction, acc radius,
                                              scalar_t* perturbation, int64_t D, int64_t begin,
                                              int64_t end) {
  using simd = Simd<Isa, acc>;
  using Vector = typename simd::Vector;
  for (int64_t n = begin; n < end; ++n) {
    const scalar_t* sample = direction + n * D;
    Vector largest{};
    for_row<simd>(sample, D, [&](int64_t, int64_t, Vector x) {
      largest = simd::max(simd::max(x, -x), largest);
    });
    const acc scale = scale_before_squaring(simd::max(largest));
    Vector squares{};
    for_row<simd>(sample, D, [&](int64_t, int64_t, Vector x) {
      x *= scale;
      squares += x * x;
    });
    const acc factor = scale_to_radius(std::sqrt(simd::sum(squares)), radius);
    for_row<simd>(sample, D, [&](int64_t j, int64_t count, Vector x) {
      simd::store_head(perturbation + n * D + j, x * scale * factor, count);
    });
  }
}
FASTSSL_PER_LEVEL(perturbation_samples, perturbation_samples_body)

}  // namespace

template <class scalar_t, class acc>
void unit_perturbation(const scalar_t* direction, acc radius, scalar_t* perturbation, int64_t N,
                       int64_t D) {
  parallel_for(N, std::max<int64_t>(1, kTaskElements / D), [&](int64_t begin, int64_t end) {
    perturbation_samples(direction, radius, perturbation, D, begin, end);
  });
}

template void unit_perturbation(const float*, float, float*, int64_t, int64_t);
template void unit_perturbation(const double*, double, double*, int64_t, int64_t);
template void unit_perturbation(const Half*, float, Half*, int64_t, int64_t);
template void unit_perturbation(const BFloat16*, float, BFloat16*, int64_t, int64_t);

}  // namespace fastssl::cpu
