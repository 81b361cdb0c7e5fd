#include "../row_loss.h"

#include "parallel.h"
#include "simd.h"

namespace fastssl::cpu {
namespace {

constexpr int64_t kTaskElements = 1 << 16;

template <class Isa, class scalar_t, class acc>
FASTSSL_INLINE void scale_body(acc scale, const scalar_t* gradient, scalar_t* scaled,
                               int64_t count) {
  using simd = Simd<Isa, acc>;
  for_row<simd>(gradient, count, [&](int64_t i, int64_t filled, typename simd::Vector x) {
    simd::store_head(scaled + i, x * scale, filled);
  });
}
FASTSSL_PER_LEVEL(scale, scale_body)

}  // namespace

template <class scalar_t, class acc>
void scale_gradient(acc grad, double divisor, const scalar_t* gradient, scalar_t* scaled,
                    int64_t count) {
  const acc factor = acc(double(grad) / divisor);
  parallel_for(count, kTaskElements, [&](int64_t begin, int64_t end) {
    scale(factor, gradient + begin, scaled + begin, end - begin);
  });
}

#define FASTSSL_INSTANTIATE(scalar_t) \
  template void scale_gradient(acc_t<scalar_t>, double, const scalar_t*, scalar_t*, int64_t);
FASTSSL_INSTANTIATE(float)
FASTSSL_INSTANTIATE(double)
FASTSSL_INSTANTIATE(Half)
FASTSSL_INSTANTIATE(BFloat16)
#undef FASTSSL_INSTANTIATE

}  // namespace fastssl::cpu
