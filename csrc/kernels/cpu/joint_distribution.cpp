#include "../joint_distribution.h"

#include <algorithm>
#include <cstring>

#include "parallel.h"
#include "product.h"
#include "softmax.h"

namespace fastssl::cpu {
namespace {

// Rows whose packed probabilities are made before they are multiplied: enough to amortise a thread
// barrier, few enough (1 MB a side) to stay in the second-level cache.
constexpr int64_t kChunkElements = 1 << 18;
constexpr int64_t kTaskElements = 1 << 15;  // the least work that is worth a thread
constexpr int64_t kBlockElements = 1 << 15;

// Which operand of the product the packed probabilities will be: its panels are as wide as a tile's
// rows or its columns.
enum class Side { kLeft, kRight };

// Panel of the packed left operand: a tile's rows, or all of few classes, packed as they are made.
FASTSSL_INLINE int64_t left_width(const Tile& tile, int64_t padded) {
  return is_one_vector(tile.lanes, padded) ? padded : tile.rows;
}

// Packs the softmax of rows start + [begin, end) of logits [V, N, C], summed over views, for the
// product: [panel][rows][width].
template <class Isa, class scalar_t, class acc>
FASTSSL_INLINE void pack_probabilities_body(const Rows<scalar_t> logits, Side side, int64_t start,
                                            int64_t N, int64_t C, int64_t V, int64_t padded,
                                            int64_t rows, acc* buffer, acc* packed, int64_t begin,
                                            int64_t end) {
  using simd = Simd<Isa, acc>;
  constexpr Tile tile = tile_of<Isa, acc>();
  const bool is_packed = is_one_vector(tile.lanes, padded);
  const int64_t at_once = rows_at_once(tile.lanes, padded);
  acc* view = buffer + at_once * padded;
  for (int64_t n = begin; n < end; n += at_once) {
    const int64_t count = end - n < at_once ? end - n : at_once;
    acc* row = is_packed ? packed + n * padded : buffer;
    softmax_rows<Isa>(logits, start + n, count, row, C, padded);
    for (int64_t v = 1; v < V; ++v) {
      softmax_rows<Isa>(logits, v * N + start + n, count, view, C, padded);
      for (int64_t j = 0; j < count * padded; j += simd::kLanes) {
        simd::store(row + j, simd::load(row + j) + simd::load(view + j));
      }
    }
    if (is_packed) continue;
    if (side == Side::kLeft) {
      for (int64_t column = 0; column < C; column += tile.rows) {
        std::memcpy(packed + column * rows + n * tile.rows, row + column, tile.rows * sizeof(acc));
      }
    } else {
      for (int64_t column = 0; column < C; column += tile.columns) {
        const int64_t width = panel_width(tile, C, column);
        acc* to = packed + column * rows + n * width;
        for (int64_t j = 0; j < width; j += simd::kLanes) {
          simd::store(to + j, simd::load(row + column + j));
        }
      }
    }
  }
}
FASTSSL_PER_LEVEL(pack_probabilities, pack_probabilities_body)

// sums [round_up(C, rows of a tile), ld] += left^T right, for the panels of `right` in [begin,
// end).
template <class Isa, class acc>
FASTSSL_INLINE void accumulate_product_body(const acc* left, const acc* right, int64_t rows,
                                            int64_t C, acc* sums, int64_t ld, int64_t begin,
                                            int64_t end) {
  constexpr Tile tile = tile_of<Isa, acc>();
  const int64_t stride = left_width(tile, ld);
  for (int64_t panel = begin; panel < end; ++panel) {
    const int64_t column = panel * tile.columns, width = panel_width(tile, C, column);
    for (int64_t k = 0; k < rows; k += kDepth) {
      const int64_t depth = rows - k < kDepth ? rows - k : kDepth;
      for (int64_t i = 0; i < C; i += tile.rows) {
        const acc* columns = left + i / stride * stride * rows + k * stride + i % stride;
        multiply_panel<Isa>(columns, 1, stride, right + column * rows + k * width, width, depth,
                            sums + i * ld + column, ld);
      }
    }
  }
}
FASTSSL_PER_LEVEL(accumulate_product, accumulate_product_body)

// Packs (matrix + matrix^T) / 2, [C, C], as the right operand of a product, panels [begin, end).
template <class acc>
void pack_symmetrized(const acc* matrix, int64_t C, const Tile& tile, acc* packed, int64_t begin,
                      int64_t end) {
  for (int64_t panel = begin; panel < end; ++panel) {
    const int64_t column = panel * tile.columns, width = panel_width(tile, C, column);
    const int64_t filled = std::min(width, C - column);
    for (int64_t k = 0; k < C; ++k) {
      acc* to = packed + column * C + k * width;
      for (int64_t j = 0; j < filled; ++j) {
        to[j] = acc(0.5) * (matrix[k * C + column + j] + matrix[(column + j) * C + k]);
      }
      std::fill(to + filled, to + width, acc(0));
    }
  }
}

// t [rows, ld] = p [rows, padded] times the packed matrix [C, C]; rows is a multiple of the tile's.
template <class Isa, class acc>
FASTSSL_INLINE void multiply_rows(const acc* p, int64_t rows, int64_t C, int64_t padded,
                                  const acc* packed, acc* t, int64_t ld) {
  constexpr Tile tile = tile_of<Isa, acc>();
  std::memset(t, 0, rows * ld * sizeof(acc));
  for (int64_t k = 0; k < C; k += kDepth) {
    const int64_t depth = C - k < kDepth ? C - k : kDepth;
    for (int64_t column = 0; column < C; column += tile.columns) {
      const int64_t width = panel_width(tile, C, column);
      for (int64_t i = 0; i < rows; i += tile.rows) {
        multiply_panel<Isa>(p + i * padded + k, padded, 1, packed + column * C + k * width, width,
                            depth, t + i * ld + column, ld);
      }
    }
  }
}

// Gradients of rows [begin, end), at most `block` of them. Buffers: probabilities [V + 2, block,
// padded] and products [block, padded].
template <class Isa, class scalar_t, class acc>
FASTSSL_INLINE void gradient_rows_body(const acc* packed, acc scale, const Rows<scalar_t> logits_a,
                                       const Rows<scalar_t> logits_b, scalar_t* grad_a,
                                       scalar_t* grad_b, int64_t N, int64_t C, int64_t V,
                                       int64_t padded, int64_t block, acc* probabilities,
                                       acc* products, int64_t begin, int64_t end) {
  using simd = Simd<Isa, acc>;
  const int64_t rows = (end - begin + Isa::kRows - 1) / Isa::kRows * Isa::kRows;
  acc* p_a = probabilities;
  acc* pooled = probabilities + block * padded;
  acc* p_b = V == 1 ? pooled : pooled + block * padded;
  for (int64_t i = (end - begin) * padded; i < rows * padded; ++i) p_a[i] = pooled[i] = 0;
  const int64_t count = end - begin;
  softmax_rows<Isa>(logits_a, begin, count, p_a, C, padded);
  for (int64_t v = 0; v < V; ++v) {
    acc* view = p_b + v * block * padded;
    softmax_rows<Isa>(logits_b, v * N + begin, count, view, C, padded);
    if (V == 1) continue;
    for (int64_t j = 0; j < count * padded; j += simd::kLanes) {
      const typename simd::Vector p = simd::load(view + j);
      simd::store(pooled + j, v == 0 ? p : simd::load(pooled + j) + p);
    }
  }
  if (grad_a != nullptr) {
    multiply_rows<Isa>(pooled, rows, C, padded, packed, products, padded);
    for (int64_t n = begin; n < end; ++n) {
      const int64_t at = (n - begin) * padded;
      softmax_gradient_row<Isa>(p_a + at, products + at, scale, grad_a + n * C, (end - n) * C,
                                padded);
    }
  }
  if (grad_b != nullptr) {
    multiply_rows<Isa>(p_a, rows, C, padded, packed, products, padded);
    for (int64_t v = 0; v < V; ++v) {
      for (int64_t n = begin; n < end; ++n) {
        const int64_t at = (n - begin) * padded;
        softmax_gradient_row<Isa>(p_b + v * block * padded + at, products + at, scale,
                                  grad_b + (v * N + n) * C, (end - n) * C, padded);
      }
    }
  }
}
FASTSSL_PER_LEVEL(gradient_rows, gradient_rows_body)

// joint [C, C] = scale * (sums + sums^T), in square blocks because one of the two is read by
// columns.
template <class acc>
void symmetrize(const acc* sums, int64_t ld, acc scale, acc* joint, int64_t C) {
  constexpr int64_t kSquare = 32;
  parallel_for((C + kSquare - 1) / kSquare, std::max<int64_t>(1, kTaskElements / (kSquare * C)),
               [&](int64_t begin, int64_t end) {
                 for (int64_t row = begin * kSquare; row < std::min(C, end * kSquare);
                      row += kSquare) {
                   for (int64_t column = 0; column < C; column += kSquare) {
                     for (int64_t i = row; i < std::min(C, row + kSquare); ++i) {
                       for (int64_t j = column; j < std::min(C, column + kSquare); ++j) {
                         joint[i * C + j] = scale * (sums[i * ld + j] + sums[j * ld + i]);
                       }
                     }
                   }
                 }
               });
}

// Padding that suits a row of probabilities both as a vector and as the left operand of a product.
int64_t padded_columns(const Tile& tile, int64_t C) {
  return round_up(C, std::max(tile.lanes, tile.rows));
}

}  // namespace

template <class scalar_t, class acc>
void joint_distribution(const scalar_t* logits_a, const scalar_t* logits_b, acc* joint, int64_t N,
                        int64_t C, int64_t V) {
  const Tile tile = cpu::tile<acc>();
  const int64_t padded = padded_columns(tile, C), panels = (C + tile.columns - 1) / tile.columns;
  const int64_t chunk = std::min(N, std::max(kDepth, kChunkElements / padded / kDepth * kDepth));
  Scratch<acc> left(chunk * padded), right(chunk * padded), sums(padded * padded);
  std::fill_n(static_cast<acc*>(sums), padded * padded, acc(0));
  for (int64_t start = 0; start < N; start += chunk) {
    const int64_t rows = std::min(chunk, N - start);
    parallel_for(
        rows, std::max<int64_t>(1, kTaskElements / (padded * (1 + V))),
        [&](int64_t begin, int64_t end) {
          Scratch<acc> buffer(2 * rows_at_once(tile.lanes, padded) * padded);
          Scratch<scalar_t> edge(padded);
          pack_probabilities(Rows<scalar_t>{logits_a, logits_a + N * C, edge}, Side::kLeft, start,
                             N, C, int64_t(1), padded, rows, static_cast<acc*>(buffer),
                             static_cast<acc*>(left), begin, end);
          pack_probabilities(Rows<scalar_t>{logits_b, logits_b + V * N * C, edge}, Side::kRight,
                             start, N, C, V, padded, rows, static_cast<acc*>(buffer),
                             static_cast<acc*>(right), begin, end);
        });
    parallel_for(panels, std::max<int64_t>(1, 4 * kTaskElements / (rows * tile.columns)),
                 [&](int64_t begin, int64_t end) {
                   accumulate_product(static_cast<const acc*>(left), static_cast<const acc*>(right),
                                      rows, C, static_cast<acc*>(sums), padded, begin, end);
                 });
  }
  symmetrize(static_cast<const acc*>(sums), padded, acc(0.5 / (double(N) * double(V))), joint, C);
}

template <class scalar_t, class acc>
void joint_distribution_backward(const acc* grad_joint, acc grad, const scalar_t* logits_a,
                                 const scalar_t* logits_b, scalar_t* grad_a, scalar_t* grad_b,
                                 int64_t N, int64_t C, int64_t V) {
  const Tile tile = cpu::tile<acc>();
  const int64_t padded = padded_columns(tile, C), panels = (C + tile.columns - 1) / tile.columns;
  Scratch<acc> packed(C * padded);
  parallel_for(panels, std::max<int64_t>(1, kTaskElements / (C * tile.columns)),
               [&](int64_t begin, int64_t end) {
                 pack_symmetrized(grad_joint, C, tile, static_cast<acc*>(packed), begin, end);
               });
  const int64_t block = std::clamp<int64_t>(round_up(kBlockElements / padded, tile.rows),
                                            4 * tile.rows, 32 * tile.rows);
  const int64_t blocks = (N + block - 1) / block;
  const acc scale = acc(grad / (double(N) * double(V)));
  parallel_for(
      blocks, std::max<int64_t>(1, kTaskElements / (block * padded)),
      [&](int64_t begin, int64_t end) {
        Scratch<acc> probabilities((V == 1 ? 2 : V + 2) * block * padded), products(block * padded);
        Scratch<scalar_t> edge(padded);
        const Rows<scalar_t> rows_a{logits_a, logits_a + N * C, edge};
        const Rows<scalar_t> rows_b{logits_b, logits_b + V * N * C, edge};
        for (int64_t b = begin; b < end; ++b) {
          gradient_rows(static_cast<const acc*>(packed), scale, rows_a, rows_b, grad_a, grad_b, N,
                        C, V, padded, block, static_cast<acc*>(probabilities),
                        static_cast<acc*>(products), b * block, std::min(N, (b + 1) * block));
        }
      });
}

#define FASTSSL_INSTANTIATE(scalar_t)                                                           \
  template void joint_distribution(const scalar_t*, const scalar_t*, acc_t<scalar_t>*, int64_t, \
                                   int64_t, int64_t);                                           \
  template void joint_distribution_backward(const acc_t<scalar_t>*, acc_t<scalar_t>,            \
                                            const scalar_t*, const scalar_t*, scalar_t*,        \
                                            scalar_t*, int64_t, int64_t, int64_t);
FASTSSL_INSTANTIATE(float)
FASTSSL_INSTANTIATE(double)
FASTSSL_INSTANTIATE(Half)
FASTSSL_INSTANTIATE(BFloat16)
#undef FASTSSL_INSTANTIATE

}  // namespace fastssl::cpu
