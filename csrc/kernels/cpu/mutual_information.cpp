#include "../mutual_information.h"

#include <algorithm>

#include "parallel.h"
#include "simd.h"

namespace fastssl::cpu {
namespace {

constexpr int64_t kTaskElements = 1 << 14;
constexpr int64_t kMostLanes = 16;  // the slack of buffers that are read in whole vectors

// marginals[i] = sum_j P_ij for rows [begin, end).
template <class Isa, class acc>
FASTSSL_INLINE void sum_rows_body(const acc* joint, acc* marginals, int64_t C, int64_t begin,
                                  int64_t end) {
  using simd = Simd<Isa, acc>;
  for (int64_t i = begin; i < end; ++i) {
    typename simd::Vector sum{};
    for_row<simd>(joint + i * C, C, [&](int64_t, int64_t, typename simd::Vector p) { sum += p; });
    marginals[i] = simd::sum(sum);
  }
}
FASTSSL_PER_LEVEL(sum_rows, sum_rows_body)

template <class Isa, class acc>
FASTSSL_INLINE void take_logarithms_body(acc* values, int64_t count) {
  using simd = Simd<Isa, acc>;
  for (int64_t i = 0; i < count; i += simd::kLanes) {
    simd::store(values + i, simd::log_clamped(simd::load(values + i)));
  }
}
FASTSSL_PER_LEVEL(take_logarithms, take_logarithms_body)

// rows[i] = sum_j P_ij (ln P_ij - ln P_i - ln P_j) for rows [begin, end).
template <class Isa, class acc>
FASTSSL_INLINE void information_rows_body(const acc* joint, const acc* log_marginals, acc* rows,
                                          int64_t C, int64_t begin, int64_t end) {
  using simd = Simd<Isa, acc>;
  for (int64_t i = begin; i < end; ++i) {
    typename simd::Vector sum{};
    for_row<simd>(joint + i * C, C, [&](int64_t j, int64_t, typename simd::Vector p) {
      sum += p * (simd::log_clamped(p) - log_marginals[i] - simd::load(log_marginals + j));
    });
    rows[i] = simd::sum(sum);
  }
}
FASTSSL_PER_LEVEL(information_rows, information_rows_body)

template <class Isa, class acc>
FASTSSL_INLINE void grad_rows_body(const acc* joint, const acc* log_marginals, acc* grad_joint,
                                   int64_t C, int64_t begin, int64_t end) {
  using simd = Simd<Isa, acc>;
  for (int64_t i = begin; i < end; ++i) {
    for_row<simd>(joint + i * C, C, [&](int64_t j, int64_t count, typename simd::Vector p) {
      simd::store_head(grad_joint + i * C + j,
                       simd::log_clamped(p) - log_marginals[i] - simd::load(log_marginals + j),
                       count);
    });
  }
}
FASTSSL_PER_LEVEL(grad_rows, grad_rows_body)

int64_t grain(int64_t C) { return std::max<int64_t>(1, kTaskElements / C); }

// ln P_i for every class, in a buffer that may be read in whole vectors.
template <class acc>
class LogMarginals {
 public:
  LogMarginals(const acc* joint, int64_t C) : values_(C + kMostLanes) {
    acc* values = values_;
    std::fill_n(values + C, kMostLanes, acc(0));
    parallel_for(C, grain(C),
                 [&](int64_t begin, int64_t end) { sum_rows(joint, values, C, begin, end); });
    take_logarithms(values, C);
  }
  operator const acc*() const { return values_; }

 private:
  Scratch<acc> values_;
};

}  // namespace

template <class acc>
void mutual_information(const acc* joint, acc* information, int64_t C) {
  const LogMarginals<acc> marginals(joint, C);
  const acc* log_marginals = marginals;
  Scratch<acc> rows(C);
  acc* of_row = rows;
  parallel_for(C, grain(C), [&](int64_t begin, int64_t end) {
    information_rows(joint, log_marginals, of_row, C, begin, end);
  });
  double sum = 0;
  for (int64_t i = 0; i < C; ++i) sum += double(of_row[i]);
  *information = acc(sum);
}

template <class acc>
void mutual_information_grad_joint(const acc* joint, acc* grad_joint, int64_t C) {
  const LogMarginals<acc> marginals(joint, C);
  const acc* log_marginals = marginals;
  parallel_for(C, grain(C), [&](int64_t begin, int64_t end) {
    grad_rows(joint, log_marginals, grad_joint, C, begin, end);
  });
}

template void mutual_information(const float*, float*, int64_t);
template void mutual_information(const double*, double*, int64_t);
template void mutual_information_grad_joint(const float*, float*, int64_t);
template void mutual_information_grad_joint(const double*, double*, int64_t);

}  // namespace fastssl::cpu
