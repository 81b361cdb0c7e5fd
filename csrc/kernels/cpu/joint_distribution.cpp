#include "../joint_distribution.h"

#include <algorithm>
#include <cstring>

#include "amx.h"
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

// pooled [count, padded] = softmax of rows n to n + count of logits [V, N, C], summed over views.
template <class Isa, class scalar_t, class acc>
FASTSSL_INLINE void pooled_softmax_rows(const Rows<scalar_t>& logits, int64_t n, int64_t count,
                                        int64_t N, int64_t C, int64_t V, int64_t padded,
                                        acc* pooled, acc* view) {
  using simd = Simd<Isa, acc>;
  softmax_rows<Isa>(logits, n, count, pooled, C, padded);
  for (int64_t v = 1; v < V; ++v) {
    softmax_rows<Isa>(logits, v * N + n, count, view, C, padded);
    for (int64_t j = 0; j < count * padded; j += simd::kLanes) {
      simd::store(pooled + j, simd::load(pooled + j) + simd::load(view + j));
    }
  }
}

// Packs row n of [rows, C] as [panel][rows][width].
template <class Isa, class acc>
FASTSSL_INLINE void pack_row(const acc* row, Side side, int64_t n, int64_t C, int64_t rows,
                             acc* packed) {
  using simd = Simd<Isa, acc>;
  constexpr Tile tile = tile_of<Isa, acc>();
  if (side == Side::kLeft) {
    for (int64_t column = 0; column < C; column += tile.rows) {
      std::memcpy(packed + column * rows + n * tile.rows, row + column, tile.rows * sizeof(acc));
    }
    return;
  }
  for (int64_t column = 0; column < C; column += tile.columns) {
    const int64_t width = panel_width(tile, C, column);
    acc* to = packed + column * rows + n * width;
    for (int64_t j = 0; j < width; j += simd::kLanes) {
      simd::store(to + j, simd::load(row + column + j));
    }
  }
}

// Packs the softmax of rows start + [begin, end) of logits [V, N, C], summed over views, for the
// product: [panel][rows][width].
template <class Isa, class scalar_t, class acc>
FASTSSL_INLINE void pack_probabilities_body(const Rows<scalar_t> logits, Side side, int64_t start,
                                            int64_t N, int64_t C, int64_t V, int64_t padded,
                                            int64_t rows, acc* buffer, acc* packed, int64_t begin,
                                            int64_t end) {
  constexpr Tile tile = tile_of<Isa, acc>();
  const bool is_packed = is_one_vector(tile.lanes, padded);
  const int64_t at_once = rows_at_once(tile.lanes, padded);
  acc* view = buffer + at_once * padded;
  for (int64_t n = begin; n < end; n += at_once) {
    const int64_t count = end - n < at_once ? end - n : at_once;
    acc* row = is_packed ? packed + n * padded : buffer;
    pooled_softmax_rows<Isa>(logits, start + n, count, N, C, V, padded, row, view);
    if (is_packed) continue;
    for (int64_t i = 0; i < count; ++i) {
      pack_row<Isa>(row + i * padded, side, n + i, C, rows, packed);
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

// to [count] = row k of (matrix + matrix^T) / 2, [C, C], from `column` on.
template <class acc>
void symmetrize_row(const acc* matrix, int64_t C, int64_t k, int64_t column, int64_t count,
                    acc* to) {
  for (int64_t j = column; j < column + count; ++j) {
    to[j - column] = acc(0.5) * (matrix[k * C + j] + matrix[j * C + k]);
  }
}

// Packs (matrix + matrix^T) / 2, [C, C], as the right operand of a product, panels [begin, end).
template <class acc>
void pack_symmetrized(const acc* matrix, int64_t C, const Tile& tile, acc* packed, int64_t begin,
                      int64_t end) {
  for (int64_t panel = begin; panel < end; ++panel) {
    const int64_t column = panel * tile.columns, width = panel_width(tile, C, column);
    const int64_t filled = std::min(width, C - column);
    for (int64_t k = 0; k < C; ++k) {
      acc* to = packed + column * C + k * width;
      symmetrize_row(matrix, C, k, column, filled, to);
      std::fill(to + filled, to + width, acc(0));
    }
  }
}

// The symmetrized gradient [C, C] of the joint, packed as the right operand of a product in
// vectors.
template <class acc>
struct PackedGradient {
  const acc* packed;
  int64_t C, padded;
  template <class Isa>
  static constexpr int64_t kRows = Isa::kRows;

  // t [rows, padded] = p [rows, padded] times the gradient; rows is a multiple of the tile's.
  template <class Isa>
  FASTSSL_INLINE void multiply(const acc* p, int64_t rows, acc* t) const {
    constexpr Tile tile = tile_of<Isa, acc>();
    std::memset(t, 0, rows * padded * sizeof(acc));
    for (int64_t k = 0; k < C; k += kDepth) {
      const int64_t depth = C - k < kDepth ? C - k : kDepth;
      for (int64_t column = 0; column < C; column += tile.columns) {
        const int64_t width = panel_width(tile, C, column);
        for (int64_t i = 0; i < rows; i += tile.rows) {
          multiply_panel<Isa>(p + i * padded + k, padded, 1, packed + column * C + k * width, width,
                              depth, t + i * padded + column, padded);
        }
      }
    }
  }
};

// Gradients of rows [begin, end), at most `block` of them. Buffers: probabilities [V + 2, block,
// padded] and products [block, padded].
template <class Isa, class Gradient, class scalar_t, class acc>
FASTSSL_INLINE void gradient_rows_body(const Gradient grad_joint, acc scale,
                                       const Rows<scalar_t> logits_a, const Rows<scalar_t> logits_b,
                                       scalar_t* grad_a, scalar_t* grad_b, int64_t N, int64_t C,
                                       int64_t V, int64_t padded, int64_t block, acc* probabilities,
                                       acc* products, int64_t begin, int64_t end) {
  using simd = Simd<Isa, acc>;
  const int64_t rows = round_up(end - begin, Gradient::template kRows<Isa>);
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
    grad_joint.template multiply<Isa>(pooled, rows, products);
    for (int64_t n = begin; n < end; ++n) {
      const int64_t at = (n - begin) * padded;
      softmax_gradient_row<Isa>(p_a + at, products + at, scale, grad_a + n * C, (end - n) * C,
                                padded);
    }
  }
  if (grad_b != nullptr) {
    grad_joint.template multiply<Isa>(p_a, rows, products);
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

// Gradients of all rows, `block` of them, a multiple of Gradient::kRows, at a time.
template <class Gradient, class scalar_t, class acc>
void gradients(const Gradient& grad_joint, acc scale, const scalar_t* logits_a,
               const scalar_t* logits_b, scalar_t* grad_a, scalar_t* grad_b, int64_t N, int64_t C,
               int64_t V, int64_t padded, int64_t block) {
  const int64_t blocks = (N + block - 1) / block;
  parallel_for(
      blocks, std::max<int64_t>(1, kTaskElements / (block * padded)),
      [&](int64_t begin, int64_t end) {
        Scratch<acc> probabilities((V == 1 ? 2 : V + 2) * block * padded), products(block * padded);
        Scratch<scalar_t> edge(padded);
        const Rows<scalar_t> rows_a{logits_a, logits_a + N * C, edge};
        const Rows<scalar_t> rows_b{logits_b, logits_b + V * N * C, edge};
        for (int64_t b = begin; b < end; ++b) {
          gradient_rows(grad_joint, scale, rows_a, rows_b, grad_a, grad_b, N, C, V, padded, block,
                        static_cast<acc*>(probabilities), static_cast<acc*>(products), b * block,
                        std::min(N, (b + 1) * block));
        }
      });
}

// sums [padded, padded] += the products of the probabilities.
template <class scalar_t, class acc>
void add_products(const scalar_t* logits_a, const scalar_t* logits_b, acc* sums, int64_t N,
                  int64_t C, int64_t V, int64_t padded) {
  const Tile tile = cpu::tile<acc>();
  const int64_t panels = (C + tile.columns - 1) / tile.columns;
  const int64_t chunk = std::min(N, std::max(kDepth, kChunkElements / padded / kDepth * kDepth));
  Scratch<acc> left(chunk * padded), right(chunk * padded);
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
                                      rows, C, sums, padded, begin, end);
                 });
  }
}

#ifdef FASTSSL_WITH_AMX
// ---- the same on a matrix unit ----

constexpr int64_t kFewClasses = 64;  // for which tiles of 16 by 32 are too much padding
// Steps of samples that are packed before they are multiplied: as many as stay in the second-level
// cache, within limits.
constexpr int64_t kPackedWords = 1 << 17, kFewestSteps = 8, kMostSteps = 16;

int64_t samples_at_once(int64_t C) {
  const int64_t steps = kPackedWords / (amx::panels_of(C) * amx::kStepWords);
  return std::clamp(steps, kFewestSteps, kMostSteps) * amx::kStepDepth;
}

bool on_matrix_unit(int64_t C) { return level() == Level::kAmx && C > kFewClasses; }

// Packs the pooled probabilities of one step of samples, from sample `start` on.
template <class scalar_t>
FASTSSL_TARGET("x86-64-v4")
void pack_samples(const Rows<scalar_t>& logits, Side side, int64_t start, int64_t N, int64_t C,
                  int64_t V, int64_t padded, int64_t step, amx::Depth depth, float* buffer,
                  uint32_t* packed) {
  const int64_t count = std::min(amx::kStepDepth, N - start);
  float* view = buffer + amx::kStepDepth * padded;
  pooled_softmax_rows<Avx512>(logits, start, count, N, C, V, padded, buffer, view);
  std::fill(buffer + count * padded, view, 0.f);
  const auto pack = side == Side::kLeft ? amx::pack_left_transposed : amx::pack_right;
  pack(buffer, padded, amx::panels_of(C), step, depth.panel_words(), packed);
}

// As add_products.
template <class scalar_t>
void add_products_of_tiles(const scalar_t* logits_a, const scalar_t* logits_b, float* sums,
                           int64_t N, int64_t C, int64_t V, int64_t padded) {
  const int64_t panels = amx::panels_of(C), step_elements = amx::kStepDepth * padded;
  const int64_t chunk = std::min(N, samples_at_once(C));
  const int64_t words = panels * amx::padded_depth_of(chunk).panel_words();
  Scratch<uint32_t> left(words), right(words);
  for (int64_t start = 0; start < N; start += chunk) {
    const amx::Depth depth = amx::padded_depth_of(std::min(chunk, N - start));
    parallel_for(
        depth.steps, std::max<int64_t>(1, kTaskElements / (step_elements * (1 + V))),
        [&](int64_t begin, int64_t end) {
          Scratch<float> buffer(2 * step_elements);
          Scratch<scalar_t> edge(padded);
          const Rows<scalar_t> rows_a{logits_a, logits_a + N * C, edge};
          const Rows<scalar_t> rows_b{logits_b, logits_b + V * N * C, edge};
          for (int64_t step = begin; step < end; ++step) {
            const int64_t sample = start + step * amx::kStepDepth;
            pack_samples(rows_a, Side::kLeft, sample, N, C, 1, padded, step, depth, buffer, left);
            pack_samples(rows_b, Side::kRight, sample, N, C, V, padded, step, depth, buffer, right);
          }
        });
    const int64_t pairs = (panels + 1) / 2;
    parallel_for(pairs, std::max<int64_t>(1, kTaskElements / (depth.steps * step_elements)),
                 [&](int64_t begin, int64_t end) {
                   amx::multiply_add(left, panels, right, 2 * begin, std::min(panels, 2 * end),
                                     depth, sums, padded);
                 });
  }
}

// As PackedGradient, for a product of tiles.
struct PackedGradientTiles {
  const uint32_t* packed;
  int64_t C, padded;
  template <class Isa>
  static constexpr int64_t kRows = amx::kSide;

  template <class Isa>
  void multiply(const float* p, int64_t rows, float* t) const {
    const amx::Depth depth = amx::depth_of(C);
    const int64_t panels = amx::panels_of(rows);
    Scratch<uint32_t> left(panels * depth.panel_words());
    amx::pack_left(p, padded, panels, depth, left);
    amx::multiply(left, panels, packed, 0, amx::panels_of(C), depth, t, padded);
  }
};

// Packs (matrix + matrix^T) / 2, [C, C], as the right operand of a product: steps of its depth, of
// which the one after the last whole one is the rest.
void pack_symmetrized_steps(const float* matrix, int64_t C, int64_t padded, uint32_t* packed,
                            int64_t begin, int64_t end) {
  const amx::Depth depth = amx::depth_of(C);
  Scratch<float> buffer(amx::kStepDepth * padded);
  for (int64_t step = begin; step < end; ++step) {
    std::fill_n(static_cast<float*>(buffer), amx::kStepDepth * padded, 0.f);
    const int64_t first = step * amx::kStepDepth, count = std::min(amx::kStepDepth, C - first);
    for (int64_t k = 0; k < count; ++k) {
      symmetrize_row(matrix, C, first + k, 0, C, buffer + k * padded);
    }
    if (step < depth.steps) {
      amx::pack_right(buffer, padded, amx::panels_of(C), step, depth.panel_words(), packed);
    } else {
      amx::pack_right_rest(buffer, padded, amx::panels_of(C), depth, packed);
    }
  }
}
#endif

}  // namespace

template <class scalar_t, class acc>
void joint_distribution(const scalar_t* logits_a, const scalar_t* logits_b, acc* joint, int64_t N,
                        int64_t C, int64_t V) {
  const int64_t padded = padded_columns(tile<acc>(), C);
  Scratch<acc> scratch(padded * padded);
  acc* sums = scratch;
  std::fill_n(sums, padded * padded, acc(0));
  const auto add = [&] {
#ifdef FASTSSL_WITH_AMX
    if constexpr (std::is_same_v<acc, float>) {
      if (on_matrix_unit(C)) {
        return add_products_of_tiles(logits_a, logits_b, sums, N, C, V, padded);
      }
    }
#endif
    add_products(logits_a, logits_b, sums, N, C, V, padded);
  };
  add();
  symmetrize(static_cast<const acc*>(sums), padded, acc(0.5 / (double(N) * double(V))), joint, C);
}

template <class scalar_t, class acc>
void joint_distribution_backward(const acc* grad_joint, acc grad, const scalar_t* logits_a,
                                 const scalar_t* logits_b, scalar_t* grad_a, scalar_t* grad_b,
                                 int64_t N, int64_t C, int64_t V) {
  const Tile tile = cpu::tile<acc>();
  const int64_t padded = padded_columns(tile, C);
  const acc scale = acc(grad / (double(N) * double(V)));
#ifdef FASTSSL_WITH_AMX
  if constexpr (std::is_same_v<acc, float>) {
    if (on_matrix_unit(C)) {
      Scratch<uint32_t> packed(amx::panels_of(C) * amx::depth_of(C).panel_words());
      parallel_for((C + amx::kStepDepth - 1) / amx::kStepDepth,
                   std::max<int64_t>(1, kTaskElements / (C * amx::kStepDepth)),
                   [&](int64_t begin, int64_t end) {
                     pack_symmetrized_steps(grad_joint, C, padded, packed, begin, end);
                   });
      return gradients(PackedGradientTiles{packed, C, padded}, scale, logits_a, logits_b, grad_a,
                       grad_b, N, C, V, padded, samples_at_once(C));
    }
  }
#endif
  const int64_t panels = (C + tile.columns - 1) / tile.columns;
  Scratch<acc> packed(C * padded);
  parallel_for(panels, std::max<int64_t>(1, kTaskElements / (C * tile.columns)),
               [&](int64_t begin, int64_t end) {
                 pack_symmetrized(grad_joint, C, tile, static_cast<acc*>(packed), begin, end);
               });
  const int64_t block = std::clamp<int64_t>(round_up(kBlockElements / padded, tile.rows),
                                            4 * tile.rows, 32 * tile.rows);
  gradients(PackedGradient<acc>{packed, C, padded}, scale, logits_a, logits_b, grad_a, grad_b, N, C,
            V, padded, block);
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
