#include "../softmax_mse.h"

#include "row_loss.h"

namespace fastssl::cpu {
namespace {

template <class scalar_t>
struct SoftmaxMse {
  using acc = acc_t<scalar_t>;

  SoftmaxRows<scalar_t> target, logits;
  scalar_t* gradient;

  template <class Isa>
  FASTSSL_INLINE void add(int64_t n, RowTotal& total) {
    using simd = Simd<Isa, acc>;
    using Vector = typename simd::Vector;
    target.template move_to<Isa>(n);
    logits.template move_to<Isa>(n);
    const acc ratio = logits.sum / target.sum, inverse = 1 / logits.sum;
    Vector squares{}, products{};
    for (int64_t j = 0; j < logits.padded; j += simd::kLanes) {
      const Vector d = difference<Isa>(logits, target, ratio, j) * inverse;
      squares += d * d;
      products += simd::load(logits.e() + j) * d;
    }
    total.add(simd::sum(squares));
    if (gradient == nullptr) return;
    const acc mean = simd::sum(products) * inverse;
    write_row<simd>(gradient + n * logits.C, logits.C, [&](int64_t j) {
      const Vector d = difference<Isa>(logits, target, ratio, j) * inverse;
      return (simd::load(logits.e() + j) * (2 * inverse)) * (d - mean);
    });
  }
};

}  // namespace

template <class scalar_t, class acc>
void softmax_mse(const scalar_t* target_logits, const scalar_t* logits, scalar_t* gradient,
                 acc* loss, int64_t N, int64_t C) {
  const auto make = [&] {
    return SoftmaxMse<scalar_t>{{target_logits, N, C}, {logits, N, C}, gradient};
  };
  *loss = acc(total_of_rows(N, C, make).sum() / (double(N) * double(C)));
}

#define FASTSSL_INSTANTIATE(scalar_t)                                                      \
  template void softmax_mse(const scalar_t*, const scalar_t*, scalar_t*, acc_t<scalar_t>*, \
                            int64_t, int64_t);
FASTSSL_INSTANTIATE(float)
FASTSSL_INSTANTIATE(double)
FASTSSL_INSTANTIATE(Half)
FASTSSL_INSTANTIATE(BFloat16)
#undef FASTSSL_INSTANTIATE

}  // namespace fastssl::cpu
