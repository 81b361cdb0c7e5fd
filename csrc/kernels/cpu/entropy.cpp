#include "../entropy.h"

#include "row_loss.h"

namespace fastssl::cpu {
namespace {

template <class scalar_t>
struct Entropy {
  using acc = acc_t<scalar_t>;

  SoftmaxRows<scalar_t> logits;
  scalar_t* gradient;

  template <class Isa>
  FASTSSL_INLINE void add(int64_t n, RowTotal& total) {
    using simd = Simd<Isa, acc>;
    using Vector = typename simd::Vector;
    Vector products{};
    logits.template move_to<Isa>(
        n, [&](int64_t, Vector z, Vector e) { products += e * finite<simd>(z); });
    const acc inverse = 1 / logits.sum, mean = simd::sum(products) * inverse;
    total.add(-mean);
    total.add_logarithm(logits.sum);
    if (gradient == nullptr) return;
    write_row<simd>(gradient + n * logits.C, logits.C, [&](int64_t j) {
      return (simd::load(logits.e() + j) * inverse) *
             (mean - finite<simd>(logits.template z<Isa>(j)));
    });
  }
};

}  // namespace

template <class scalar_t, class acc>
void entropy(const scalar_t* logits, scalar_t* gradient, acc* loss, int64_t N, int64_t C) {
  const auto make = [&] { return Entropy<scalar_t>{{logits, N, C}, gradient}; };
  *loss = acc(total_of_rows(N, C, make).sum() / double(N));
}

#define FASTSSL_INSTANTIATE(scalar_t) \
  template void entropy(const scalar_t*, scalar_t*, acc_t<scalar_t>*, int64_t, int64_t);
FASTSSL_INSTANTIATE(float)
FASTSSL_INSTANTIATE(double)
FASTSSL_INSTANTIATE(Half)
FASTSSL_INSTANTIATE(BFloat16)
#undef FASTSSL_INSTANTIATE

}  // namespace fastssl::cpu
