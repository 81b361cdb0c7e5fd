// Classes are solved a panel at a time: as many as fill a cache line, so that a neighbour's values
// are one line and the four vectors of a panel, [N, kPanel] each, stay near. A panel's iteration
// takes one pass over the matrix and one over the vectors.
#include "../diffuse.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <algorithm>
#include <atomic>
#include <limits>
#include <optional>
#include <vector>

#include "parallel.h"
#include "product.h"

namespace fastssl::cpu {
namespace {

constexpr int64_t kLine = 64;
template <class acc>
constexpr int64_t kPanel = kLine / sizeof(acc);

constexpr int64_t kBlockRows = 256;  // dot products are summed over a block, then over all in order
constexpr int64_t kGroupRows = 16;   // rows whose vectors stay in the first-level cache
constexpr int kEntriesOfLine = kLine / sizeof(float);
constexpr int64_t kEntriesAhead = 512;  // that are fetched: the matrix comes from far every time
constexpr int64_t kEntryGrain = 1 << 16;
constexpr size_t kSearchRows = 128;
constexpr int64_t kReorderBytes = 1 << 21;  // a second-level cache

// Memory that is reached at random: on large pages where the system has them, since small ones cost
// a miss of the address cache for every neighbour.
template <class T>
class Array {
 public:
  explicit Array(int64_t count) {
    constexpr size_t kPage = 1 << 21;
    const size_t bytes = count * sizeof(T);
    const size_t page = bytes < kPage ? kLine : kPage;
    const size_t whole = round_up(std::max<size_t>(bytes, 1), page);
    data_ = static_cast<T*>(std::aligned_alloc(page, whole));
    if (data_ == nullptr) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
    if (page == kPage) madvise(data_, whole, MADV_HUGEPAGE);
#endif
  }
  ~Array() { std::free(data_); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  operator T*() const { return data_; }

 private:
  T* data_;
};

// ---- one panel: the pass over the matrix ----

// q = p - alpha W p over rows [begin, end); p's row first + i is row i's own. Sums run in several
// chains, of which none waits for its own last addition.
template <class Isa, class acc>
FASTSSL_INLINE void multiply_rows_body(const SparseRows graph, const acc* p, int64_t first,
                                       acc alpha, acc* q, int64_t begin, int64_t end) {
  using simd = Simd<Isa, acc>;
  constexpr int kVectors = kLine / Isa::kBytes, kChains = 4 / kVectors;
  for (int64_t i = begin; i < end; ++i) {
    typename simd::Vector sum[kChains][kVectors] = {};
    const auto add = [&](int64_t e, int chain) __attribute__((always_inline)) {
      const acc* row = p + graph.col[e] * kPanel<acc>;
      const acc weight = acc(graph.value[e]);
      for (int v = 0; v < kVectors; ++v)
        sum[chain][v] += weight * simd::load(row + v * simd::kLanes);
    };
    const int64_t stop = graph.crow[i + 1];
    int64_t e = graph.crow[i];
    for (; e + kEntriesOfLine <= stop; e += kEntriesOfLine) {
      __builtin_prefetch(graph.col + e + kEntriesAhead);
      __builtin_prefetch(graph.value + e + kEntriesAhead);
#pragma GCC unroll 16
      for (int k = 0; k < kEntriesOfLine; ++k) add(e + k, k % kChains);
    }
    for (; e + kChains <= stop; e += kChains) {
      for (int chain = 0; chain < kChains; ++chain) add(e + chain, chain);
    }
    for (; e < stop; ++e) add(e, 0);
    for (int v = 0; v < kVectors; ++v) {
      for (int chain = 1; chain < kChains; ++chain) sum[0][v] += sum[chain][v];
      const auto own = simd::load(p + (first + i) * kPanel<acc> + v * simd::kLanes);
      simd::store(q + i * kPanel<acc> + v * simd::kLanes, own - alpha * sum[0][v]);
    }
  }
}
FASTSSL_PER_LEVEL(multiply_rows, multiply_rows_body)

// ---- one panel: dot products and steps ----

// As many numbers as a vector of doubles has.
template <class Isa, class acc>
FASTSSL_INLINE typename Simd<Isa, double>::Vector load_wide(const acc* from) {
  typename VectorOf<acc, Simd<Isa, double>::kLanes * sizeof(acc)>::type x;
  std::memcpy(&x, from, sizeof(x));
  return __builtin_convertvector(x, typename Simd<Isa, double>::Vector);
}

// The matrix times a block of rows; dots [3, kPanel] = <p,q>, <r,q>, <q,q> over [begin, end).
template <class Isa, class acc>
FASTSSL_INLINE void product_block_body(const SparseRows graph, const acc* p, const acc* r, acc* q,
                                       acc alpha, double* dots, int64_t begin, int64_t end) {
  using simd = Simd<Isa, double>;
  std::fill_n(dots, 3 * kPanel<acc>, 0.);
  for (int64_t group = begin; group < end; group += kGroupRows) {
    const int64_t stop = std::min(group + kGroupRows, end);
    multiply_rows_body<Isa>(graph, p, 0, alpha, q, group, stop);
    for (int64_t j = 0; j < kPanel<acc>; j += simd::kLanes) {
      double* sums = dots + j;
      auto pq = simd::load(sums), rq = simd::load(sums + kPanel<acc>),
           qq = simd::load(sums + 2 * kPanel<acc>);
      for (int64_t at = group * kPanel<acc> + j; at < stop * kPanel<acc>; at += kPanel<acc>) {
        const auto own = load_wide<Isa>(q + at);
        pq += load_wide<Isa>(p + at) * own;
        rq += load_wide<Isa>(r + at) * own;
        qq += own * own;
      }
      simd::store(sums, pq);
      simd::store(sums + kPanel<acc>, rq);
      simd::store(sums + 2 * kPanel<acc>, qq);
    }
  }
}
FASTSSL_PER_LEVEL(product_block, product_block_body)

// squares [kPanel] += <r,r> over rows [begin, end).
template <class Isa, class acc>
FASTSSL_INLINE void add_squares_body(const acc* r, double* squares, int64_t begin, int64_t end) {
  using simd = Simd<Isa, double>;
  for (int64_t j = 0; j < kPanel<acc>; j += simd::kLanes) {
    auto rr = simd::load(squares + j);
    for (int64_t at = begin * kPanel<acc> + j; at < end * kPanel<acc>; at += kPanel<acc>) {
      const auto residual = load_wide<Isa>(r + at);
      rr += residual * residual;
    }
    simd::store(squares + j, rr);
  }
}
FASTSSL_PER_LEVEL(add_squares, add_squares_body)

// x += length p, r -= length q, p = r + momentum p, squares = <r,r> over rows [begin, end).
template <class Isa, class acc>
FASTSSL_INLINE void step_block_body(acc* x, acc* r, acc* p, const acc* q, const acc* length,
                                    const acc* momentum, double* squares, int64_t begin,
                                    int64_t end) {
  using simd = Simd<Isa, acc>;
  std::fill_n(squares, kPanel<acc>, 0.);
  for (int64_t group = begin; group < end; group += kGroupRows) {
    const int64_t stop = std::min(group + kGroupRows, end);
    for (int64_t j = 0; j < kPanel<acc>; j += simd::kLanes) {
      const auto a = simd::load(length + j), beta = simd::load(momentum + j);
      for (int64_t at = group * kPanel<acc> + j; at < stop * kPanel<acc>; at += kPanel<acc>) {
        const auto direction = simd::load(p + at);
        const auto residual = simd::load(r + at) - a * simd::load(q + at);
        simd::store(x + at, simd::load(x + at) + a * direction);
        simd::store(r + at, residual);
        simd::store(p + at, residual + beta * direction);
      }
    }
    add_squares_body<Isa>(static_cast<const acc*>(r), squares, group, stop);
  }
}
FASTSSL_PER_LEVEL(step_block, step_block_body)

// ---- the order of rows ----

template <class scalar_t>
FASTSSL_INLINE acc_t<scalar_t> widen(scalar_t x) {
  if constexpr (sizeof(scalar_t) == 2) {
    return bits_to_float<scalar_t, float>(uint32_t(x.bits));
  } else {
    return x;
  }
}

// Rows in the order of breadth-first searches that start at the seeds, class by class, and end
// after kSearchRows rows; the next one starts beside what has been found. Neighbours in the graph
// become neighbours in memory. order[new] = old.
template <class scalar_t>
std::vector<int32_t> search_from_seeds(const SparseRows& graph, const scalar_t* seeds, int64_t C) {
  std::vector<std::pair<int32_t, int32_t>> sources;  // class and row
  for (int64_t i = 0; i < graph.N; ++i) {
    for (int64_t c = 0; c < C; ++c) {
      if (widen(seeds[i * C + c]) == 0) continue;
      sources.emplace_back(c, i);
      break;
    }
  }
  std::sort(sources.begin(), sources.end());
  std::vector<int32_t> order;
  order.reserve(graph.N);
  std::vector<uint8_t> found(graph.N);
  const auto is_new = [&](int32_t i) { return !found[i]; };
  // The next row that is not found: a neighbour of an earlier one, a source, or any.
  size_t before = 0, source = 0;
  int32_t any = 0;
  const auto next = [&] {
    for (; before < order.size(); ++before) {
      const int32_t* const end = graph.col + graph.crow[order[before] + 1];
      const int32_t* const beside =
          std::find_if(graph.col + graph.crow[order[before]], end, is_new);
      if (beside != end) return *beside;
    }
    while (source < sources.size() && found[sources[source].second]) ++source;
    if (source < sources.size()) return sources[source].second;
    while (found[any]) ++any;
    return any;
  };
  while (order.size() < size_t(graph.N)) {
    size_t at = order.size();
    const size_t last = std::min(at + kSearchRows, size_t(graph.N));
    const auto find = [&](int32_t i) {
      if (order.size() < last && !std::exchange(found[i], 1)) order.push_back(i);
    };
    find(next());
    for (; at < order.size() && order.size() < last; ++at) {
      for (int64_t e = graph.crow[order[at]]; e < graph.crow[order[at] + 1]; ++e)
        find(graph.col[e]);
    }
  }
  return order;
}

// A graph with its rows and columns in another order.
class Reordered {
 public:
  Reordered(const SparseRows& graph, const std::vector<int32_t>& order)
      : crow_(graph.N + 1), col_(graph.crow[graph.N]), value_(graph.crow[graph.N]), N_(graph.N) {
    std::vector<int32_t> place(N_);
    crow_[0] = 0;
    for (int64_t i = 0; i < N_; ++i) {
      place[order[i]] = int32_t(i);
      crow_[i + 1] = crow_[i] + graph.crow[order[i] + 1] - graph.crow[order[i]];
    }
    parallel_for(N_, kBlockRows, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t first = graph.crow[order[i]], count = crow_[i + 1] - crow_[i];
        int32_t* col = col_ + crow_[i];
        for (int64_t e = 0; e < count; ++e) col[e] = place[graph.col[first + e]];
        std::copy_n(graph.value + first, count, value_ + crow_[i]);
      }
    });
  }
  SparseRows rows() const { return {crow_, col_, value_, N_}; }

 private:
  Array<int32_t> crow_, col_;
  Array<float> value_;
  int64_t N_;
};

// ---- the iteration ----

// Conjugate gradients for one panel of classes after another.
template <class acc>
class Solver {
 public:
  Solver(const SparseRows& graph, double alpha)
      : graph_(graph),
        blocks_((graph.N + kBlockRows - 1) / kBlockRows),
        alpha_(acc(alpha)),
        vectors_(4 * graph.N * kPanel<acc>),
        partials_(blocks_ * 3 * kPanel<acc>) {
    const int64_t size = graph.N * kPanel<acc>;
    x_ = vectors_, r_ = x_ + size, p_ = r_ + size, q_ = p_ + size;
  }

  // load(i, row [kPanel]) gives the seeds of row i; iterations [C], C <= kPanel.
  template <class Load>
  void start(const Load& load, double tolerance, int64_t* iterations, int64_t C) {
    for_blocks([&](int64_t begin, int64_t end, double* squares) {
      for (int64_t i = begin; i < end; ++i) load(i, r_ + i * kPanel<acc>);
      std::copy(r_ + begin * kPanel<acc>, r_ + end * kPanel<acc>, p_ + begin * kPanel<acc>);
      std::fill(x_ + begin * kPanel<acc>, x_ + end * kPanel<acc>, acc(0));
      std::fill_n(squares, kPanel<acc>, 0.);
      add_squares(static_cast<const acc*>(r_), squares, begin, end);
    });
    sum_blocks(1, squares_);
    for (int64_t c = 0; c < kPanel<acc>; ++c) {
      thresholds_[c] = squared_threshold(squares_[c], tolerance);
    }
    std::fill_n(iterations, C, 0);
    iterations_ = iterations;
    C_ = C;
  }

  // Whether a column has not yet stopped.
  bool running() const {
    for (int64_t c = 0; c < C_; ++c) {
      if (!stopped(c)) return true;
    }
    return false;
  }

  void iterate() {
    for_blocks([&](int64_t begin, int64_t end, double* dots) {
      product_block(graph_, static_cast<const acc*>(p_), static_cast<const acc*>(r_), q_, alpha_,
                    dots, begin, end);
    });
    double pq[3 * kPanel<acc>];
    sum_blocks(3, pq);
    const double *rq = pq + kPanel<acc>, *qq = rq + kPanel<acc>;
    acc lengths[kPanel<acc>] = {}, momenta[kPanel<acc>] = {};
    for (int64_t c = 0; c < C_; ++c) {
      if (stopped(c)) continue;
      const auto step = conjugate_step<acc>(squares_[c], pq[c], rq[c], qq[c], thresholds_[c]);
      lengths[c] = step.length;
      momenta[c] = step.momentum;
      if (step.last) thresholds_[c] = std::numeric_limits<double>::infinity();
      ++iterations_[c];
    }
    for_blocks([&](int64_t begin, int64_t end, double* squares) {
      step_block(x_, r_, p_, static_cast<const acc*>(q_), static_cast<const acc*>(lengths),
                 static_cast<const acc*>(momenta), squares, begin, end);
    });
    sum_blocks(1, squares_);
  }

  // store(i, row [kPanel]) takes the scores of row i.
  template <class Store>
  void finish(const Store& store) const {
    parallel_for(graph_.N, kBlockRows, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) store(i, x_ + i * kPanel<acc>);
    });
  }

 private:
  bool stopped(int64_t c) const { return squares_[c] <= thresholds_[c]; }

  // Calls task(begin, end, partials [3, kPanel]) for every block of rows.
  template <class Task>
  void for_blocks(const Task& task) const {
    parallel_for(blocks_, 1, [&](int64_t first, int64_t last) {
      for (int64_t b = first; b < last; ++b) {
        task(b * kBlockRows, std::min((b + 1) * kBlockRows, graph_.N),
             partials_ + b * 3 * kPanel<acc>);
      }
    });
  }

  // sums [count, kPanel] of the blocks' partials, in order.
  void sum_blocks(int64_t count, double* sums) const {
    std::fill_n(sums, count * kPanel<acc>, 0.);
    for (int64_t b = 0; b < blocks_; ++b) {
      const double* partials = partials_ + b * 3 * kPanel<acc>;
      for (int64_t c = 0; c < count * kPanel<acc>; ++c) sums[c] += partials[c];
    }
  }

  SparseRows graph_;
  int64_t blocks_, C_ = 0;
  acc alpha_;
  Array<acc> vectors_;
  acc *x_, *r_, *p_, *q_;  // [N, kPanel]
  Scratch<double> partials_;
  double squares_[kPanel<acc>], thresholds_[kPanel<acc>];
  int64_t* iterations_ = nullptr;
};

}  // namespace

bool is_valid(const SparseRows& graph, int64_t nnz, int64_t columns) {
  if (graph.crow[0] != 0 || graph.crow[graph.N] != nnz) return false;
  std::atomic<bool> valid = true;
  parallel_for(graph.N, kEntryGrain, [&](int64_t begin, int64_t end) {
    bool rising = true;
    for (int64_t i = begin; i < end; ++i) rising &= graph.crow[i] <= graph.crow[i + 1];
    if (!rising) valid = false;
  });
  parallel_for(nnz, kEntryGrain, [&](int64_t begin, int64_t end) {
    uint32_t largest = 0;
    for (int64_t e = begin; e < end; ++e) largest = std::max(largest, uint32_t(graph.col[e]));
    if (int64_t(largest) >= columns) valid = false;
  });
  return valid;
}

template <class scalar_t>
void diffuse(const SparseRows& graph, const scalar_t* seeds, scalar_t* scores, int64_t* iterations,
             int64_t C, double alpha, double tolerance, int64_t max_iterations) {
  using acc = acc_t<scalar_t>;
  std::vector<int32_t> order;
  std::optional<Reordered> reordered;
  if (graph.N * kLine > kReorderBytes) {
    order = search_from_seeds(graph, seeds, C);
    reordered.emplace(graph, order);
  }
  const auto row = [&](int64_t i) { return reordered ? order[i] : i; };
  Solver<acc> solver(reordered ? reordered->rows() : graph, alpha);
  for (int64_t c = 0; c < C; c += kPanel<acc>) {
    const int64_t width = std::min(kPanel<acc>, C - c);
    solver.start(
        [&](int64_t i, acc* to) {
          const scalar_t* from = seeds + row(i) * C + c;
          for (int64_t k = 0; k < kPanel<acc>; ++k) to[k] = k < width ? widen(from[k]) : acc(0);
        },
        tolerance, iterations + c, width);
    for (int64_t step = 0; step < max_iterations && solver.running(); ++step) solver.iterate();
    solver.finish([&](int64_t i, const acc* from) {
      for (int64_t k = 0; k < width; ++k) store(scores + row(i) * C + c + k, from[k]);
    });
  }
}

template <class acc>
void diffuse_product(const SparseRows& graph, const acc* vectors, acc* product, int64_t first_row,
                     int64_t M, int64_t C, double alpha) {
  Array<acc> panel(M * kPanel<acc>), rows(graph.N * kPanel<acc>);
  acc *p = panel, *q = rows;
  for (int64_t c = 0; c < C; c += kPanel<acc>) {
    const int64_t width = std::min(kPanel<acc>, C - c);
    parallel_for(M, kBlockRows, [&](int64_t begin, int64_t end) {
      std::fill(p + begin * kPanel<acc>, p + end * kPanel<acc>, acc(0));
      for (int64_t i = begin; i < end; ++i) {
        std::copy_n(vectors + i * C + c, width, p + i * kPanel<acc>);
      }
    });
    parallel_for(graph.N, kGroupRows, [&](int64_t begin, int64_t end) {
      multiply_rows(graph, static_cast<const acc*>(p), first_row, acc(alpha), q, begin, end);
      for (int64_t i = begin; i < end; ++i) {
        std::copy_n(q + i * kPanel<acc>, width, product + i * C + c);
      }
    });
  }
}

#define FASTSSL_INSTANTIATE(scalar_t)                                                             \
  template void diffuse(const SparseRows&, const scalar_t*, scalar_t*, int64_t*, int64_t, double, \
                        double, int64_t);
FASTSSL_INSTANTIATE(float)
FASTSSL_INSTANTIATE(double)
FASTSSL_INSTANTIATE(Half)
FASTSSL_INSTANTIATE(BFloat16)
#undef FASTSSL_INSTANTIATE
template void diffuse_product(const SparseRows&, const float*, float*, int64_t, int64_t, int64_t,
                              double);
template void diffuse_product(const SparseRows&, const double*, double*, int64_t, int64_t, int64_t,
                              double);

}  // namespace fastssl::cpu
