#include "../kl_divergence.h"

#include "row_loss.h"

namespace fastssl::cpu {
namespace {

template <class scalar_t>
struct KlDivergence {
  using acc = acc_t<scalar_t>;

  SoftmaxRows<scalar_t> target, logits;
  scalar_t* gradient;

  template <class Isa>
  FASTSSL_INLINE void add(int64_t n, RowTotal& total) {
    using simd = Simd<Isa, acc>;
    using Vector = typename simd::Vector;
    target.template move_to<Isa>(n);
    Vector products{};
    logits.template move_to<Isa>(n, [&](int64_t j, Vector z, Vector) {
      const Vector q = simd::load(target.e() + j);
      products += q == 0 ? Vector{} : q * (target.template z<Isa>(j) - z);
    });
    const acc ratio = logits.sum / target.sum;
    total.add(simd::sum(products) / target.sum);
    total.add_logarithm(ratio);
    if (gradient == nullptr) return;
    const acc inverse = 1 / logits.sum;
    write_row<simd>(gradient + n * logits.C, logits.C,
                    [&](int64_t j) { return difference<Isa>(logits, target, ratio, j) * inverse; });
  }
};

}  // namespace

template <class scalar_t, class acc>
void kl_divergence(const scalar_t* target_logits, const scalar_t* logits, scalar_t* gradient,
                   acc* loss, int64_t N, int64_t C) {
  const auto make = [&] {
    return KlDivergence<scalar_t>{{target_logits, N, C}, {logits, N, C}, gradient};
  };
  *loss = acc(total_of_rows(N, C, make).sum() / double(N));
}

#define FASTSSL_INSTANTIATE(scalar_t)                                                        \
  template void kl_divergence(const scalar_t*, const scalar_t*, scalar_t*, acc_t<scalar_t>*, \
                              int64_t, int64_t);
FASTSSL_INSTANTIATE(float)
FASTSSL_INSTANTIATE(double)
FASTSSL_INSTANTIATE(Half)
FASTSSL_INSTANTIATE(BFloat16)
#undef FASTSSL_INSTANTIATE

}  // namespace fastssl::cpu
