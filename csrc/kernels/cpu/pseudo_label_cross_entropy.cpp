#include "../pseudo_label_cross_entropy.h"

#include "cross_entropy.h"

namespace fastssl::cpu {
namespace {

template <class scalar_t>
struct PseudoLabelCrossEntropy {
  using acc = acc_t<scalar_t>;

  SoftmaxRows<scalar_t> weak, strong;
  acc threshold;
  scalar_t* gradient;
  int64_t N, V;

  template <class Isa>
  FASTSSL_INLINE void add(int64_t n, RowTotal& total) {
    const int64_t C = weak.C;
    weak.template move_to<Isa>(n);
    if (!(1 / weak.sum >= threshold)) {  // the largest e is 1
      if (gradient == nullptr) return;
      for (int64_t v = 0; v < V; ++v) std::fill_n(gradient + (v * N + n) * C, C, scalar_t{});
      return;
    }
    total.count_row();
    const int64_t label = weak.template likeliest<Isa>();
    for (int64_t row = n; row < V * N; row += N) {
      strong.template move_to<Isa>(row);
      total.add(-double(strong.z_of(label)));
      total.add_logarithm(strong.sum);
      if (gradient != nullptr) {
        write_cross_entropy_row<Isa>(strong, label, acc(1), gradient + row * C);
      }
    }
  }
};

}  // namespace

template <class scalar_t, class acc>
void pseudo_label_cross_entropy(const scalar_t* weak_logits, const scalar_t* strong_logits,
                                double threshold, scalar_t* gradient, acc* loss, acc* kept,
                                int64_t N, int64_t C, int64_t V) {
  const auto make = [&] {
    return PseudoLabelCrossEntropy<scalar_t>{
        {weak_logits, N, C}, {strong_logits, V * N, C}, acc(threshold), gradient, N, V};
  };
  const RowTotal total = total_of_rows(N, C * (1 + V), make);
  *loss = acc(total.sum() / (double(V) * double(N)));
  *kept = acc(double(total.counted()) / double(N));
}

#define FASTSSL_INSTANTIATE(scalar_t)                                                            \
  template void pseudo_label_cross_entropy(const scalar_t*, const scalar_t*, double, scalar_t*,  \
                                           acc_t<scalar_t>*, acc_t<scalar_t>*, int64_t, int64_t, \
                                           int64_t);
FASTSSL_INSTANTIATE(float)
FASTSSL_INSTANTIATE(double)
FASTSSL_INSTANTIATE(Half)
FASTSSL_INSTANTIATE(BFloat16)
#undef FASTSSL_INSTANTIATE

}  // namespace fastssl::cpu
