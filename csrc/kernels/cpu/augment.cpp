#include "../augment.h"

#include <algorithm>
#include <utility>

#include "../augment_pipeline.h"
#include "dispatch.h"
#include "float_types.h"
#include "parallel.h"

namespace fastssl::cpu {
namespace {

constexpr int64_t kTaskPixels = 1 << 13;

// One thread, whose two images stay in its cache.
class Thread {
 public:
  explicit Thread(uint8_t* images, int K, int S) : front(images), back(images + K * S * S) {}

  template <class Body>
  FASTSSL_INLINE void each(int n, const Body& body) const {
    for (int i = 0; i < n; ++i) body(i);
  }
  template <class Body>
  FASTSSL_INLINE void each_pixel(int width, int height, const Body& body) const {
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x) body(x, y, y * width + x);
    }
  }
  template <class Body>
  FASTSSL_INLINE int sum(int n, const Body& body) const {
    int total = 0;
    for (int i = 0; i < n; ++i) total += body(i);
    return total;
  }
  // Neighbours are often equal: in tables of their own their counts do not wait for each other.
  FASTSSL_INLINE void histogram(const uint8_t* channel, int n) {
    constexpr int kTables = 4;
    int32_t tables[kTables][kGrayLevels] = {};
    int i = 0;
    for (; i + kTables <= n; i += kTables) {
      for (int t = 0; t < kTables; ++t) ++tables[t][channel[i + t]];
    }
    for (; i < n; ++i) ++tables[0][channel[i]];
    for (int l = 0; l < kGrayLevels; ++l) {
      counts[l] = tables[0][l] + tables[1][l] + tables[2][l] + tables[3][l];
    }
  }
  FASTSSL_INLINE int lowest() const {
    return int(std::find_if(counts, counts + kGrayLevels - 1, [](int c) { return c != 0; }) -
               counts);
  }
  FASTSSL_INLINE int highest() const {
    int level = kGrayLevels - 1;
    while (level > 0 && counts[level] == 0) --level;
    return level;
  }
  FASTSSL_INLINE void accumulate() {
    int darker = 0;
    for (int32_t& count : counts) darker += std::exchange(count, darker);
  }
  FASTSSL_INLINE void swap() { std::swap(front, back); }
  template <class scalar_t>
  FASTSSL_INLINE static void store(scalar_t* to, float x) {
    cpu::store(to, x);
  }

  uint8_t *front, *back;  // [K, S, S]
  int32_t columns[kMostSize], rows[kMostSize];
  int32_t counts[kGrayLevels];
  uint8_t table[kGrayLevels];
};

template <class scalar_t>
struct Call {
  const uint8_t* images;    // [N, K, S, S]
  const int32_t* integers;  // tables
  const float* factors;     // tables
  const ViewPlans& plans;
  uint64_t seed;
  uint32_t step;
  const int64_t* index;     // [N]
  const float *mean, *std;  // [K]
  scalar_t* views;          // [V, N, K, S, S] or [V, N, S, S, K]
  const AugmentShape& shape;
};

template <int K, class scalar_t>
FASTSSL_INLINE void views_of(const Call<scalar_t>& call, int64_t begin, int64_t end) {
  const int S = call.shape.S;
  const int64_t N = call.shape.N, pixels = int64_t(K) * S * S;
  const Scratch<uint8_t> images(2 * pixels);
  Thread thread(images, K, S);
  Normal normals[K];
  for (int k = 0; k < K; ++k) normals[k] = normal(call.mean[k], call.std[k]);
  for (int64_t i = begin; i < end; ++i) {
    const int64_t v = i / N, n = i % N;
    const Draws draws{call.seed, uint32_t(call.index[n]), call.step, uint32_t(v)};
    Pipeline<K, Thread> pipeline{thread, call.integers, call.factors, call.plans.view[v], draws, S};
    pipeline.run(call.images + n * pixels, normals, call.views + i * pixels,
                 call.shape.channels_last);
  }
}

template <class Isa, class scalar_t>
FASTSSL_INLINE void augment_images_body(const Call<scalar_t>* call, int64_t begin, int64_t end) {
  if (call->shape.K == 1) {
    views_of<1>(*call, begin, end);
  } else {
    views_of<3>(*call, begin, end);
  }
}
FASTSSL_PER_LEVEL(augment_images, augment_images_body)

}  // namespace

template <class scalar_t>
void augment(const uint8_t* images, const int32_t* integers, const float* factors,
             const ViewPlans& plans, uint64_t seed, const int64_t* step, const int64_t* index,
             const float* mean, const float* std, scalar_t* views, const AugmentShape& shape) {
  const Call<scalar_t> call{images, integers, factors, plans, seed, uint32_t(*step),
                            index,  mean,     std,     views, shape};
  const int64_t grain = std::max(1, int(kTaskPixels / (shape.S * shape.S)));
  parallel_for(shape.V * shape.N, grain,
               [&](int64_t begin, int64_t end) { augment_images(&call, begin, end); });
}

#define FASTSSL_INSTANTIATE(scalar_t)                                                             \
  template void augment(const uint8_t*, const int32_t*, const float*, const ViewPlans&, uint64_t, \
                        const int64_t*, const int64_t*, const float*, const float*, scalar_t*,    \
                        const AugmentShape&);
FASTSSL_INSTANTIATE(float)
FASTSSL_INSTANTIATE(BFloat16)
FASTSSL_INSTANTIATE(uint8_t)
#undef FASTSSL_INSTANTIATE

}  // namespace fastssl::cpu
