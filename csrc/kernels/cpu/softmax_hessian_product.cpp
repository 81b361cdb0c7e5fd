#include "../softmax_hessian_product.h"

#include <algorithm>

#include "parallel.h"
#include "product.h"
#include "softmax.h"

namespace fastssl::cpu {
namespace {

constexpr int64_t kTaskElements = 1 << 14;

// t[padded] = the tangent's row less its value at the likeliest class (the largest such value, if
// classes tie), then zeros.
template <class Isa, class scalar_t, class acc>
FASTSSL_INLINE void shifted_tangent_row(const scalar_t* tangent, const acc* p, acc* t, int64_t C,
                                        int64_t padded) {
  using simd = Simd<Isa, acc>;
  using Vector = typename simd::Vector;
  const Vector never = simd::broadcast(-std::numeric_limits<acc>::infinity());
  Vector largest{};
  for (int64_t j = 0; j < padded; j += simd::kLanes)
    largest = simd::max(simd::load(p + j), largest);
  const Vector likeliest = simd::broadcast(simd::max(largest));
  Vector shifts = never;
  for_row<simd>(tangent, C, [&](int64_t j, int64_t, Vector x) {
    simd::store(t + j, x);
    shifts = simd::max(simd::load(p + j) >= likeliest ? x : never, shifts);
  });
  const Vector shift = simd::broadcast(simd::max(shifts));
  for (int64_t j = 0; j < padded; j += simd::kLanes) {
    simd::store(t + j, simd::fill_tail(simd::load(t + j) - shift, C - j, acc(0)));
  }
}

template <class Isa, class scalar_t, class acc>
FASTSSL_INLINE void product_rows_body(const Rows<scalar_t> logits, const scalar_t* tangent,
                                      scalar_t* product, int64_t C, int64_t padded, acc* p, acc* t,
                                      int64_t begin, int64_t end) {
  for (int64_t n = begin; n < end; ++n) {
    softmax_row<Isa>(logits, n, p, C, padded);
    shifted_tangent_row<Isa>(tangent + n * C, p, t, C, padded);
    softmax_gradient_row<Isa>(p, t, acc(1), product + n * C, C, padded);
  }
}
FASTSSL_PER_LEVEL(product_rows, product_rows_body)

}  // namespace

template <class scalar_t>
void softmax_hessian_product(const scalar_t* logits, const scalar_t* tangent, scalar_t* product,
                             int64_t N, int64_t C) {
  using acc = acc_t<scalar_t>;
  const int64_t padded = round_up(C, tile<acc>().lanes);
  parallel_for(N, std::max<int64_t>(1, kTaskElements / padded), [&](int64_t begin, int64_t end) {
    Scratch<acc> p(padded), t(padded);
    Scratch<scalar_t> edge(padded);
    product_rows(Rows<scalar_t>{logits, logits + N * C, edge}, tangent, product, C, padded,
                 static_cast<acc*>(p), static_cast<acc*>(t), begin, end);
  });
}

template void softmax_hessian_product(const float*, const float*, float*, int64_t, int64_t);
template void softmax_hessian_product(const double*, const double*, double*, int64_t, int64_t);
template void softmax_hessian_product(const Half*, const Half*, Half*, int64_t, int64_t);
template void softmax_hessian_product(const BFloat16*, const BFloat16*, BFloat16*, int64_t,
                                      int64_t);

}  // namespace fastssl::cpu
