#include "../knn_graph.h"

#include <algorithm>
#include <limits>
#include <type_traits>
#include <vector>

#include "parallel.h"
#include "product.h"

namespace fastssl::cpu {
namespace {

// Panels of a block: their packed features and their lists share the second-level cache with
// another block's.
constexpr int64_t kBlockPanels = 8;
constexpr int64_t kTaskRows = 1 << 12;  // the fewest rows that are worth a thread's pass over all

// A value and the row it belongs to as one number: larger is better, and so is a lower index.
inline uint64_t key_of(float value, int64_t index) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return uint64_t(bits) << 32 | (0xffffffffu - uint32_t(index));
}
inline float value_of(uint64_t key) {
  const uint32_t bits = uint32_t(key >> 32);
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}
inline int32_t index_of(uint64_t key) { return int32_t(0xffffffffu - uint32_t(key)); }

// The least of the k largest of `count` > k different keys, by bisection: passes without branches,
// where std::nth_element mispredicts one in every second comparison.
template <class Isa>
FASTSSL_INLINE void kth_largest_body(const uint64_t* keys, int64_t count, int64_t k,
                                     uint64_t* kth) {
  uint64_t low = ~uint64_t(0), high = 0;  // more than k keys, or k, are >= low; fewer are > high
  for (int64_t i = 0; i < count; ++i) {
    low = keys[i] < low ? keys[i] : low;
    high = keys[i] > high ? keys[i] : high;
  }
  while (low < high) {
    const uint64_t middle = high - (high - low) / 2;
    int64_t above = 0;
    for (int64_t i = 0; i < count; ++i) above += keys[i] >= middle;
    if (above >= k) low = middle;
    if (above == k) break;
    if (above < k) high = middle - 1;
  }
  *kth = low;
}
FASTSSL_PER_LEVEL(kth_largest, kth_largest_body)

// What each query has found so far: at least the best k of it, in no order. A full list is cut down
// to them; from then on most products fail the comparison with the least of them.
struct Lists {
  uint64_t* keys;      // [M, capacity]
  int32_t* counts;     // [M]
  float* least;        // [round_up(M, width of a panel)]; at first the smallest positive number
  const int32_t* own;  // [M], or null where a query is the row of its own number
  int64_t capacity, k;

  int64_t row_of(int64_t query) const { return own == nullptr ? query : own[query]; }

  void insert(int64_t query, float value, int64_t row) const {
    keys[query * capacity + counts[query]++] = key_of(value, row);
    if (counts[query] == capacity) cut(query);
  }

  [[gnu::noinline]] void cut(int64_t query) const {
    uint64_t* const begin = keys + query * capacity;
    uint64_t kth = 0;
    kth_largest(static_cast<const uint64_t*>(begin), int64_t(counts[query]), k, &kth);
    int64_t kept = 0;
    for (int64_t i = 0; i < counts[query]; ++i) {
      const uint64_t key = begin[i];
      begin[kept] = key;
      kept += key >= kth;
    }
    counts[query] = int32_t(k);
    least[query] = value_of(kth);
  }
};

// packed [tile][D][width] = features [count, D], then zeros; tiles [begin, end).
void pack(const float* features, int64_t count, int64_t D, int64_t width, float* packed,
          int64_t begin, int64_t end) {
  for (int64_t tile = begin; tile < end; ++tile) {
    float* to = packed + tile * D * width;
    const int64_t first = tile * width, rows = std::clamp<int64_t>(count - first, 0, width);
    if (rows < width) std::fill_n(to, D * width, 0.f);
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t d = 0; d < D; ++d) to[d * width + i] = features[(first + i) * D + d];
    }
  }
}

// Queries [first_query, ...) of one left panel against rows [first_row, ...) of one right panel.
// Mirrored, queries and rows are the same features, and each product serves both of its ends.
template <class Isa, bool kMirrored>
FASTSSL_INLINE void match_panels(const float* left, const float* right, int64_t first_query,
                                 int64_t first_row, int64_t D, const Lists& lists) {
  using simd = Simd<Isa, float>;
  using Vector = typename simd::Vector;
  using Bits = typename simd::Bits;
  using Bytes = typename VectorOf<uint8_t, simd::kLanes>::type;
  constexpr int64_t kWidth = tile_of<Isa, float>().columns;
  constexpr int64_t kWords = Isa::kRows * kWidth / 8;
  constexpr uint64_t kAllRejected = 0x0101010101010101u;
  alignas(64) float products[Isa::kRows * kWidth];
  alignas(64) uint8_t rejected[Isa::kRows * kWidth];  // 1 where no list wants the product
  for (int64_t i0 = 0; i0 < kWidth; i0 += Isa::kRows) {
    const float* least_of_queries = lists.least + first_query + i0;
    for (int64_t k = 0; k < D; k += kDepth) {
      const bool is_last = D - k <= kDepth;
      multiply_tile<Isa, Isa::kVectors>(
          Left<float>{left + i0 * D + k * Isa::kRows, 1, Isa::kRows}, right + k * kWidth, kWidth,
          is_last ? D - k : kDepth, [&](int i, int v, Vector sum) {
            const int64_t at = i * kWidth + v * simd::kLanes;
            if (k > 0) sum += simd::load(products + at);
            simd::store(products + at, sum);
            if (!is_last) return;
            // Signs, since GCC takes a comparison of its 64-byte vectors apart.
            Bits below = Bits(sum - least_of_queries[i]);
            if constexpr (kMirrored) {
              below &= Bits(sum - simd::load(lists.least + first_row + v * simd::kLanes));
            }
            const Bytes bytes = __builtin_convertvector(below >> 31, Bytes);
            std::memcpy(rejected + at, &bytes, sizeof(bytes));
          });
    }
    for (int64_t word = 0; word < kWords; ++word) {
      uint64_t bits;
      std::memcpy(&bits, rejected + word * 8, sizeof(bits));
      for (bits ^= kAllRejected; bits != 0; bits &= bits - 1) {
        const int64_t at = word * 8 + __builtin_ctzll(bits) / 8;
        const int64_t query = first_query + i0 + at / kWidth, row = first_row + at % kWidth;
        const float value = products[at];
        if (value >= lists.least[query] && (kMirrored || row != lists.row_of(query))) {
          lists.insert(query, value, row);
        }
        if (kMirrored && value >= lists.least[row]) lists.insert(row, value, query);
      }
    }
  }
}

// A range of panels.
struct Block {
  int64_t begin, end;
};

template <class Isa, class Mirrored>
FASTSSL_INLINE void match_blocks_body(const float* queries, const float* rows, Block left,
                                      Block right, int64_t D, Lists lists, Mirrored) {
  constexpr int64_t kWidth = tile_of<Isa, float>().columns;
  for (int64_t q = right.begin; q < right.end; ++q) {
    for (int64_t p = left.begin; p < left.end; ++p) {
      match_panels<Isa, Mirrored::value>(queries + p * kWidth * D, rows + q * kWidth * D,
                                         p * kWidth, q * kWidth, D, lists);
    }
  }
}
FASTSSL_PER_LEVEL(match_blocks, match_blocks_body)

// All rows against each other. Every pair of blocks meets once, in rounds whose pairs share no
// block (the circle method), so that no two threads write to one list.
void match_all(const float* left, const float* right, int64_t panels, int64_t D,
               const Lists& lists) {
  const int64_t blocks = (panels + kBlockPanels - 1) / kBlockPanels;
  const auto block = [&](int64_t b) {
    return Block{b * kBlockPanels, std::min((b + 1) * kBlockPanels, panels)};
  };
  parallel_for(blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      match_blocks(left, right, block(b), block(b), D, lists, std::false_type());
    }
  });
  const int64_t seats = round_up(blocks, 2), circle = seats - 1;  // the last block sits inside
  for (int64_t round = 0; round < circle; ++round) {
    parallel_for(seats / 2, 1, [&](int64_t begin, int64_t end) {
      for (int64_t pair = begin; pair < end; ++pair) {
        const int64_t a = pair == 0 ? circle : (round + pair) % circle;
        const int64_t b = (round + circle - pair) % circle;
        if (std::max(a, b) >= blocks) continue;  // an empty seat
        match_blocks(left, right, block(a), block(b), D, lists, std::true_type());
      }
    });
  }
}

// Some queries against all rows.
void match_queries(const float* left, const float* right, int64_t query_panels, int64_t row_panels,
                   int64_t D, const Lists& lists) {
  parallel_for(query_panels, kBlockPanels, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; p += kBlockPanels) {
      const Block queries{p, std::min(p + kBlockPanels, end)};
      match_blocks(left, right, queries, Block{0, row_panels}, D, lists, std::false_type());
    }
  });
}

// packed [padded / width][D][width] = features [count, D], filled up with zeros.
void pack_all(const float* features, int64_t count, int64_t D, int64_t width, int64_t padded,
              float* packed) {
  parallel_for(padded / width, kBlockPanels, [&](int64_t begin, int64_t end) {
    pack(features, count, D, width, packed, begin, end);
  });
}

// Weights into rows [begin, end) from all rows, by ascending source: the transpose of A.
struct Incoming {
  std::vector<int64_t> start;  // [rows + 1]
  std::vector<int32_t> source;
  std::vector<float> weight;
};

// Calls body(i, j, weight) for the entries (i, j) of A with j in [begin, end), by ascending i.
template <class Body>
void for_edges_into(const int32_t* index, const float* weight, int64_t N, int64_t k, int64_t begin,
                    int64_t end, const Body& body) {
  for (int64_t i = 0; i < N; ++i) {
    for (int64_t e = i * k; e < (i + 1) * k; ++e) {
      if (weight[e] > 0 && index[e] >= begin && index[e] < end) body(i, index[e], weight[e]);
    }
  }
}

Incoming incoming_edges(const int32_t* index, const float* weight, int64_t N, int64_t k,
                        int64_t begin, int64_t end) {
  const int64_t rows = end - begin;
  Incoming incoming{std::vector<int64_t>(rows + 1), {}, {}};
  std::vector<int64_t> next(rows);  // where a row's next edge goes
  parallel_for(rows, kTaskRows, [&](int64_t first, int64_t last) {
    for_edges_into(index, weight, N, k, begin + first, begin + last,
                   [&](int64_t, int64_t j, float) { ++next[j - begin]; });
  });
  for (int64_t r = 0; r < rows; ++r) {
    incoming.start[r + 1] = incoming.start[r] + next[r];
    next[r] = incoming.start[r];
  }
  incoming.source.resize(incoming.start[rows]);
  incoming.weight.resize(incoming.start[rows]);
  parallel_for(rows, kTaskRows, [&](int64_t first, int64_t last) {
    for_edges_into(index, weight, N, k, begin + first, begin + last,
                   [&](int64_t i, int64_t j, float w) {
                     const int64_t at = next[j - begin]++;
                     incoming.source[at] = int32_t(i);
                     incoming.weight[at] = w;
                   });
  });
  return incoming;
}

// 1 / sqrt of the row sums of A + A^T, 0 for empty rows.
std::vector<double> scales(const int32_t* index, const float* weight, int64_t N, int64_t k) {
  std::vector<double> scale(N);
  parallel_for(N, kTaskRows, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      for (int64_t t = 0; t < k; ++t) scale[i] += weight[i * k + t];
    }
    for_edges_into(index, weight, N, k, first, last,
                   [&](int64_t, int64_t j, float w) { scale[j] += w; });
    for (int64_t i = first; i < last; ++i) scale[i] = scale[i] > 0 ? 1 / std::sqrt(scale[i]) : 0;
  });
  return scale;
}

// An entry of a row, and a row's entries by ascending column.
struct Edge {
  int32_t column;
  float weight;
  bool operator<(const Edge& other) const { return column < other.column; }
};

// Calls body(column, weight) for the entries of row i of A + A^T, by ascending column.
template <class Body>
void for_merged_row(const Edge* outgoing, int64_t count, const Incoming& incoming, int64_t row,
                    const Body& body) {
  int64_t a = 0, b = incoming.start[row];
  const int64_t end = incoming.start[row + 1];
  while (a < count || b < end) {
    const bool is_out = a < count && (b == end || outgoing[a].column <= incoming.source[b]);
    const bool is_in = b < end && (a == count || incoming.source[b] <= outgoing[a].column);
    const int32_t column = is_out ? outgoing[a].column : incoming.source[b];
    // In double the sum does not depend on which of the two is the row's own.
    const double sum =
        (is_out ? double(outgoing[a].weight) : 0.) + (is_in ? double(incoming.weight[b]) : 0.);
    body(column, sum);
    a += is_out;
    b += is_in;
  }
}

}  // namespace

void nearest_rows(const float* rows, const float* queries, const int32_t* own, int32_t* index,
                  float* value, int64_t N, int64_t M, int64_t D, int64_t k) {
  const Tile size = tile<float>();  // its rows divide its columns
  const int64_t queries_padded = round_up(M, size.columns), rows_padded = round_up(N, size.columns);
  const int64_t capacity = 2 * k + 32;
  const Scratch<uint64_t> keys(M * capacity);
  const Scratch<int32_t> counts(M);
  const Scratch<float> least(queries_padded);
  std::fill_n(counts + 0, M, 0);
  std::fill_n(least + 0, queries_padded, std::numeric_limits<float>::min());
  const Lists lists{keys, counts, least, own, capacity, k};

  {
    const Scratch<float> left(queries_padded * D), right(rows_padded * D);
    pack_all(queries == nullptr ? rows : queries, M, D, size.rows, queries_padded, left);
    pack_all(rows, N, D, size.columns, rows_padded, right);
    const int64_t query_panels = queries_padded / size.columns;
    if (queries == nullptr) {
      match_all(left, right, query_panels, D, lists);
    } else {
      match_queries(left, right, query_panels, rows_padded / size.columns, D, lists);
    }
  }

  parallel_for(M, 256, [&](int64_t begin, int64_t end) {
    for (int64_t m = begin; m < end; ++m) {
      if (counts[m] > k) lists.cut(m);
      uint64_t* found = keys + m * capacity;
      std::sort(found, found + counts[m], std::greater<>());
      for (int64_t t = 0; t < k; ++t) {
        const bool is_found = t < counts[m];
        index[m * k + t] = is_found ? index_of(found[t]) : -1;
        value[m * k + t] = is_found ? value_of(found[t]) : 0.f;
      }
    }
  });
}

void symmetric_rows(const int32_t* index, const float* weight, int64_t* start,
                    const std::function<Entries(int64_t)>& allocate, int64_t N, int64_t k,
                    int64_t begin, int64_t end) {
  const std::vector<double> scale = scales(index, weight, N, k);
  const Incoming incoming = incoming_edges(index, weight, N, k, begin, end);
  const auto for_rows = [&](const auto& body) {  // body(row, column, weight)
    parallel_for(end - begin, kTaskRows, [&](int64_t first, int64_t last) {
      Scratch<Edge> outgoing(k);
      for (int64_t r = first; r < last; ++r) {
        int64_t count = 0;
        for (int64_t e = (begin + r) * k; e < (begin + r + 1) * k; ++e) {
          if (weight[e] > 0) outgoing[count++] = {index[e], weight[e]};
        }
        std::sort(outgoing + 0, outgoing + count);
        for_merged_row(outgoing, count, incoming, r,
                       [&](int32_t column, double sum) { body(r, column, sum); });
      }
    });
  };
  std::fill_n(start, end - begin + 1, 0);
  for_rows([&](int64_t r, int32_t, double) { ++start[r + 1]; });
  for (int64_t r = 0; r < end - begin; ++r) start[r + 1] += start[r];
  const Entries entries = allocate(start[end - begin]);
  std::vector<int64_t> next(start, start + (end - begin));
  for_rows([&](int64_t r, int32_t column, double sum) {
    const int64_t at = next[r]++;
    entries.column[at] = column;
    entries.value[at] = float(sum * (scale[begin + r] * scale[column]));
  });
}

}  // namespace fastssl::cpu
