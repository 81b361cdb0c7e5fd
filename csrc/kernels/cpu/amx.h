// Products of float32 matrices on a processor's matrix unit (Intel AMX), which multiplies bfloat16
// and sums in float32. A number is the sum of three bfloat16, x = x0 + x1 + x2, so
//   x y = x0 y0 + (x0 y1 + x1 y0) + (x0 y2 + x1 y1 + x2 y0)
// to at worst 2^-24 of |x y|, as float32's own product: six times the work of bfloat16, at sixteen
// times the rate of vectors of float32.
//
// An operand is packed in panels of 16 rows of the left one or 16 columns of the right one, each
// [step][part][16][16] words: a step is 32 of the depth, and a word holds two of them that are 16
// apart. What is left of the depth follows in tiles that hold all six products' factors side by
// side. Panels beyond a matrix hold zeros.
#pragma once

#if defined(__x86_64__) && (defined(__clang__) || __GNUC__ >= 11)
#define FASTSSL_WITH_AMX

#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>

#include "simd.h"

#define FASTSSL_TARGET_AMX FASTSSL_TARGET("x86-64-v4,amx-tile,amx-bf16")

namespace fastssl::cpu::amx {

constexpr int64_t kSide = 16;       // rows or columns of a panel
constexpr int64_t kStepDepth = 32;  // numbers of a step
constexpr int kParts = 3, kProducts = 6;
constexpr int64_t kTileWords = kSide * kSide, kStepWords = kParts * kTileWords;

constexpr int64_t panels_of(int64_t count) { return (count + kSide - 1) / kSide; }

// How a depth is packed: whole steps, then the rest.
struct Depth {
  int64_t steps, rest;
  constexpr int64_t rest_tiles() const { return (kProducts * rest + kStepDepth - 1) / kStepDepth; }
  constexpr int64_t panel_words() const { return steps * kStepWords + rest_tiles() * kTileWords; }
};
constexpr Depth depth_of(int64_t count) { return {count / kStepDepth, count % kStepDepth}; }
// The last step filled up with zeros.
constexpr Depth padded_depth_of(int64_t count) {
  return {(count + kStepDepth - 1) / kStepDepth, 0};
}

using simd = Simd<Avx512, float>;

// words[part] = a pair of numbers in each lane. What is left after two parts is a bfloat16.
FASTSSL_INLINE void split(simd::Vector low, simd::Vector high, simd::Bits (&words)[kParts]) {
  for (int part = 0; part < kParts - 1; ++part) {
    const simd::Bits first = (simd::Bits(low) + 0x8000u) & 0xffff0000u;
    const simd::Bits second = (simd::Bits(high) + 0x8000u) & 0xffff0000u;
    words[part] = (first >> 16) | second;
    low -= simd::Vector(first);
    high -= simd::Vector(second);
  }
  words[kParts - 1] = (simd::Bits(low) >> 16) | simd::Bits(high);
}

FASTSSL_INLINE void store_words(uint32_t* to, simd::Bits words) {
  std::memcpy(to, &words, sizeof(words));
}

// Packs one step of a right operand from its rows [kStepDepth, ld].
FASTSSL_TARGET("x86-64-v4")
inline void pack_right(const float* rows, int64_t ld, int64_t panels, int64_t step,
                       int64_t panel_words, uint32_t* packed) {
  for (int64_t panel = 0; panel < panels; ++panel) {
    uint32_t* to = packed + panel * panel_words + step * kStepWords;
    for (int64_t k = 0; k < kSide; ++k) {
      const float* at = rows + k * ld + panel * kSide;
      simd::Bits words[kParts];
      split(simd::load(at), simd::load(at + kSide * ld), words);
      for (int part = 0; part < kParts; ++part) {
        store_words(to + part * kTileWords + k * kSide, words[part]);
      }
    }
  }
}

// Packs one step of a left operand that lies transposed, [kStepDepth, ld].
FASTSSL_TARGET("x86-64-v4")
inline void pack_left_transposed(const float* rows, int64_t ld, int64_t panels, int64_t step,
                                 int64_t panel_words, uint32_t* packed) {
  for (int64_t panel = 0; panel < panels; ++panel) {
    uint32_t* to = packed + panel * panel_words + step * kStepWords;
    pack_right(rows + panel * kSide, ld, 1, 0, 0, to);
    for (int part = 0; part < kParts; ++part, to += kTileWords) {
      simd::Vector words[kSide];
#pragma GCC unroll 16
      for (int k = 0; k < kSide; ++k) std::memcpy(&words[k], to + k * kSide, sizeof(words[k]));
      simd::transpose(words, [&](int i, simd::Vector row) __attribute__((always_inline)) {
        std::memcpy(to + i * kSide, &row, sizeof(row));
      });
    }
  }
}

// The parts of the six products' factors.
constexpr int kLeftParts[kProducts] = {0, 0, 0, 1, 1, 2};
constexpr int kRightParts[kProducts] = {0, 1, 2, 0, 1, 0};

// Which halves of a row's three words of parts make up one tile's row of the rest of its depth.
struct RestOrder {
  alignas(64) uint16_t from[kStepDepth];  // of the first two parts, or of the third
  uint32_t of_first_two = 0, of_third = 0;

  RestOrder(int64_t rest, int64_t tile) {
    for (int64_t at = 0; at < kStepDepth; ++at) {
      const int64_t k = (tile * kStepDepth + at) % rest;
      const int64_t product = (tile * kStepDepth + at) / rest;
      const int part = product < kProducts ? kLeftParts[product] : kParts;
      from[at] = (k < kSide ? 2 * k : 2 * (k - kSide) + 1) + (part == 1 ? kStepDepth : 0);
      of_first_two |= uint32_t(part < 2) << at;
      of_third |= uint32_t(part == 2) << at;
    }
  }
  FASTSSL_TARGET("x86-64-v4")
  FASTSSL_INLINE __m512i operator()(const simd::Bits (&words)[kParts]) const {
    const __m512i order = _mm512_load_si512(from);
    return _mm512_or_si512(
        _mm512_maskz_permutex2var_epi16(of_first_two, __m512i(words[0]), order, __m512i(words[1])),
        _mm512_maskz_permutexvar_epi16(of_third, order, __m512i(words[2])));
  }
};

// Packs panels of a left operand from its rows [panels kSide, ld], read in whole vectors.
FASTSSL_TARGET("x86-64-v4")
inline void pack_left(const float* rows, int64_t ld, int64_t panels, Depth depth,
                      uint32_t* packed) {
  for (int64_t row = 0; row < panels * kSide; ++row) {
    const float* at = rows + row * ld;
    uint32_t* to = packed + row / kSide * depth.panel_words() + row % kSide * kSide;
    simd::Bits words[kParts];
    for (int64_t step = 0; step < depth.steps; ++step, at += kStepDepth, to += kStepWords) {
      split(simd::load(at), simd::load(at + kSide), words);
      for (int part = 0; part < kParts; ++part) store_words(to + part * kTileWords, words[part]);
    }
  }
  for (int64_t tile = 0; tile < depth.rest_tiles(); ++tile) {
    const RestOrder ordered(depth.rest, tile);
    for (int64_t row = 0; row < panels * kSide; ++row) {
      const float* at = rows + row * ld + depth.steps * kStepDepth;
      uint32_t* to = packed + row / kSide * depth.panel_words() + row % kSide * kSide;
      simd::Bits words[kParts];
      split(simd::load(at), depth.rest > kSide ? simd::load(at + kSide) : simd::Vector{}, words);
      _mm512_store_si512(to + depth.steps * kStepWords + tile * kTileWords, ordered(words));
    }
  }
}

// Packs the rest of a right operand's depth from its rows [depth.rest, ld].
inline void pack_right_rest(const float* rows, int64_t ld, int64_t panels, Depth depth,
                            uint32_t* packed) {
  for (int64_t panel = 0; panel < panels; ++panel) {
    uint32_t* to = packed + panel * depth.panel_words() + depth.steps * kStepWords;
    std::fill_n(to, depth.rest_tiles() * kTileWords, 0u);
    for (int64_t k = 0; k < depth.rest; ++k) {
      for (int64_t j = 0; j < kSide; ++j) {
        float left = rows[k * ld + panel * kSide + j];
        uint32_t parts[kParts];
        for (uint32_t& part : parts) {
          part = (std::bit_cast<uint32_t>(left) + 0x8000u) & 0xffff0000u;
          left -= std::bit_cast<float>(part);
        }
        for (int product = 0; product < kProducts; ++product) {
          const int64_t at = product * depth.rest + k;  // in the depth of these tiles
          to[at / 2 * kSide + j] |= parts[kRightParts[product]] >> (at % 2 == 0 ? 16 : 0);
        }
      }
    }
  }
}

// The tile registers, each of 16 rows of 64 bytes, while it lives.
class Registers {
 public:
  FASTSSL_TARGET_AMX Registers() {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } shapes;
    asm volatile("" : : "r"(&shapes) : "memory");  // GCC's load says it reads 8 bytes of it
    _tile_loadconfig(&shapes);
  }
  FASTSSL_TARGET_AMX ~Registers() { _tile_release(); }
  Registers(const Registers&) = delete;
  Registers& operator=(const Registers&) = delete;
};

constexpr int64_t kTileRowBytes = kSide * sizeof(uint32_t);

// What a product of panels takes of their depth: steps, then tiles of the rest.
struct Piece {
  int64_t steps, rest_tiles;
};

// Two panels of the left operand and two of the right one, `panel` words apart:
// out [2 kSide, ld] (+)= their product.
FASTSSL_TARGET_AMX
inline void multiply_square(bool add, const uint32_t* a, const uint32_t* b, int64_t panel,
                            Piece piece, float* out, int64_t ld) {
  asm volatile("" ::: "memory");  // GCC's tile loads do not say that they read memory
  const int64_t row_bytes = ld * sizeof(float);
  float* below = out + kSide * ld;
  if (add) {
    _tile_loadd(0, out, row_bytes);
    _tile_loadd(1, out + kSide, row_bytes);
    _tile_loadd(2, below, row_bytes);
    _tile_loadd(3, below + kSide, row_bytes);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
#define FASTSSL_LOAD_LEFT(at)        \
  _tile_loadd(4, at, kTileRowBytes); \
  _tile_loadd(5, at + panel, kTileRowBytes)
#define FASTSSL_LOAD_RIGHT(at)       \
  _tile_loadd(6, at, kTileRowBytes); \
  _tile_loadd(7, at + panel, kTileRowBytes)
#define FASTSSL_MULTIPLY   \
  _tile_dpbf16ps(0, 4, 6); \
  _tile_dpbf16ps(1, 4, 7); \
  _tile_dpbf16ps(2, 5, 6); \
  _tile_dpbf16ps(3, 5, 7)
  for (int64_t step = 0; step < piece.steps; ++step, a += kStepWords, b += kStepWords) {
    FASTSSL_LOAD_LEFT(a);
    FASTSSL_LOAD_RIGHT(b + 2 * kTileWords);
    FASTSSL_MULTIPLY;
    FASTSSL_LOAD_RIGHT(b + kTileWords);
    FASTSSL_MULTIPLY;
    FASTSSL_LOAD_RIGHT(b);
    FASTSSL_MULTIPLY;
    FASTSSL_LOAD_LEFT(a + kTileWords);
    FASTSSL_MULTIPLY;
    FASTSSL_LOAD_RIGHT(b + kTileWords);
    FASTSSL_MULTIPLY;
    FASTSSL_LOAD_LEFT(a + 2 * kTileWords);
    FASTSSL_LOAD_RIGHT(b);
    FASTSSL_MULTIPLY;
  }
  for (int64_t tile = 0; tile < piece.rest_tiles; ++tile, a += kTileWords, b += kTileWords) {
    FASTSSL_LOAD_LEFT(a);
    FASTSSL_LOAD_RIGHT(b);
    FASTSSL_MULTIPLY;
  }
#undef FASTSSL_LOAD_LEFT
#undef FASTSSL_LOAD_RIGHT
#undef FASTSSL_MULTIPLY
  _tile_stored(0, out, row_bytes);
  _tile_stored(1, out + kSide, row_bytes);
  _tile_stored(2, below, row_bytes);
  _tile_stored(3, below + kSide, row_bytes);
}

// The one panel that an odd number of rows or columns leaves over, times up to four of the other
// operand: four sums, since one alone would wait for its own last addition.
template <bool kLeftIsOne, int kCount>
FASTSSL_TARGET_AMX void multiply_strip(bool add, const uint32_t* one, const uint32_t* many,
                                       int64_t panel, Piece piece, float* out, int64_t ld) {
  asm volatile("" ::: "memory");
  const int64_t row_bytes = ld * sizeof(float), next = kLeftIsOne ? kSide : kSide * ld;
#define FASTSSL_FOR_EACH(of)  \
  of(0, 4);                   \
  if constexpr (kCount > 1) { \
    of(1, 5);                 \
  }                           \
  if constexpr (kCount > 2) { \
    of(2, 6);                 \
  }                           \
  if constexpr (kCount > 3) { \
    of(3, 4);                 \
  }
#define FASTSSL_START(i, operand)              \
  if (add) {                                   \
    _tile_loadd(i, out + i * next, row_bytes); \
  } else {                                     \
    _tile_zero(i);                             \
  }
#define FASTSSL_MULTIPLY(i, operand)                          \
  _tile_loadd(operand, many + i * panel + at, kTileRowBytes); \
  if constexpr (kLeftIsOne) {                                 \
    _tile_dpbf16ps(i, 7, operand);                            \
  } else {                                                    \
    _tile_dpbf16ps(i, operand, 7);                            \
  }
#define FASTSSL_STORE(i, operand) _tile_stored(i, out + i * next, row_bytes);
  FASTSSL_FOR_EACH(FASTSSL_START)
  for (int64_t step = 0; step < piece.steps; ++step, one += kStepWords, many += kStepWords) {
    for (int part = kParts - 1; part >= 0; --part) {
      _tile_loadd(7, one + part * kTileWords, kTileRowBytes);
      for (int64_t at = 0; at < (kParts - part) * kTileWords; at += kTileWords) {
        FASTSSL_FOR_EACH(FASTSSL_MULTIPLY)
      }
    }
  }
  for (int64_t at = 0; at < piece.rest_tiles * kTileWords; at += kTileWords) {
    _tile_loadd(7, one + at, kTileRowBytes);
    FASTSSL_FOR_EACH(FASTSSL_MULTIPLY)
  }
  FASTSSL_FOR_EACH(FASTSSL_STORE)
#undef FASTSSL_FOR_EACH
#undef FASTSSL_START
#undef FASTSSL_MULTIPLY
#undef FASTSSL_STORE
}

template <bool kLeftIsOne>
FASTSSL_TARGET_AMX inline void multiply_strip(int64_t count, bool add, const uint32_t* one,
                                              const uint32_t* many, int64_t panel, Piece piece,
                                              float* out, int64_t ld) {
  constexpr decltype(&multiply_strip<kLeftIsOne, 1>) kKernels[] = {
      multiply_strip<kLeftIsOne, 1>, multiply_strip<kLeftIsOne, 2>, multiply_strip<kLeftIsOne, 3>,
      multiply_strip<kLeftIsOne, 4>};
  kKernels[count - 1](add, one, many, panel, piece, out, ld);
}

// Steps at a time: two rows' panels stay in the first-level cache, all columns' in the second.
constexpr int64_t kStepsAtOnce = 4;

// Calls block(i, j, rows, columns) for blocks of panels that cover [0, rows) by [begin, end).
template <class Block>
void for_blocks(int64_t rows, int64_t begin, int64_t end, const Block& block) {
  const int64_t last_row = rows / 2 * 2, last_column = begin + (end - begin) / 2 * 2;
  for (int64_t i = 0; i < last_row; i += 2) {
    for (int64_t j = begin; j < last_column; j += 2) block(i, j, 2, 2);
  }
  if (last_column < end) {
    for (int64_t i = 0; i < rows; i += 4) {
      block(i, last_column, std::min<int64_t>(4, rows - i), 1);
    }
  }
  if (last_row < rows) {
    for (int64_t j = begin; j < last_column; j += 4) {
      block(last_row, j, 1, std::min<int64_t>(4, last_column - j));
    }
  }
}

FASTSSL_TARGET_AMX
inline void multiply_block(int64_t rows, int64_t columns, bool add, const uint32_t* a,
                           const uint32_t* b, int64_t panel, Piece piece, float* out, int64_t ld) {
  if (columns == 1) return multiply_strip<false>(rows, add, b, a, panel, piece, out, ld);
  if (rows == 1) return multiply_strip<true>(columns, add, a, b, panel, piece, out, ld);
  multiply_square(add, a, b, panel, piece, out, ld);
}

// out [rows, ld] = a times b, for the panels of b in [begin, end).
inline void multiply(const uint32_t* a, int64_t rows, const uint32_t* b, int64_t begin, int64_t end,
                     Depth depth, float* out, int64_t ld) {
  const Registers registers;
  const int64_t panel = depth.panel_words();
  int64_t step = 0;
  do {
    const int64_t left = depth.steps - step;
    const Piece piece{std::min(kStepsAtOnce, left), left <= kStepsAtOnce ? depth.rest_tiles() : 0};
    for_blocks(rows, begin, end, [&](int64_t i, int64_t j, int64_t height, int64_t width) {
      multiply_block(height, width, step > 0, a + i * panel + step * kStepWords,
                     b + j * panel + step * kStepWords, panel, piece, out + (i * ld + j) * kSide,
                     ld);
    });
  } while ((step += kStepsAtOnce) < depth.steps);
}

// to [rows, ld] += from [rows, columns].
FASTSSL_TARGET("x86-64-v4")
inline void add_block(const float* from, int64_t rows, int64_t columns, float* to, int64_t ld) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; j += kSide) {
      float* sum = to + i * ld + j;
      simd::store(sum, simd::load(sum) + simd::load(from + i * columns + j));
    }
  }
}

// out [rows, ld] += a times b, for the panels of b in [begin, end): a sum of its own, since small
// terms would be lost in one long running sum.
inline void multiply_add(const uint32_t* a, int64_t rows, const uint32_t* b, int64_t begin,
                         int64_t end, Depth depth, float* out, int64_t ld) {
  const Registers registers;
  const int64_t panel = depth.panel_words();
  alignas(64) float block[4 * kTileWords];
  for_blocks(rows, begin, end, [&](int64_t i, int64_t j, int64_t height, int64_t width) {
    multiply_block(height, width, false, a + i * panel, b + j * panel, panel,
                   {depth.steps, depth.rest_tiles()}, block, width * kSide);
    add_block(block, height * kSide, width * kSide, out + (i * ld + j) * kSide, ld);
  });
}

}  // namespace fastssl::cpu::amx
#endif
