// Products of float32 matrices on a processor's matrix unit (Intel AMX), which multiplies bfloat16
// and sums in float32. A number is the sum of three bfloat16, x = x1 + x2 + x3, so
//   x y = x1 y1 + (x1 y2 + x2 y1) + (x1 y3 + x2 y2 + x3 y1)
// to at worst 2^-24 of |x y|, as float32's own product: six times the work of bfloat16, at sixteen
// times the rate of vectors of float32.
//
// An operand is packed in panels of 16 rows of the left one or 16 columns of the right one:
// [panel][step][part][16][16] words. A step is 32 of the depth, and a word holds two of them, k and
// k + 16. Panels and steps beyond a matrix hold zeros.
#pragma once

#if defined(__x86_64__) && (defined(__clang__) || __GNUC__ >= 11)
#define FASTSSL_WITH_AMX

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#include "simd.h"

namespace fastssl::cpu::amx {

constexpr int64_t kSide = 16;   // rows or columns of a panel
constexpr int64_t kDepth = 32;  // of a step
constexpr int kParts = 3;
constexpr int64_t kTileWords = kSide * kSide, kStepWords = kParts * kTileWords;

constexpr int64_t panels_of(int64_t count) { return (count + kSide - 1) / kSide; }
constexpr int64_t steps_of(int64_t depth) { return (depth + kDepth - 1) / kDepth; }
constexpr int64_t packed_words(int64_t count, int64_t depth) {
  return panels_of(count) * steps_of(depth) * kStepWords;
}

using simd = Simd<Avx512, float>;

// words[part] = a pair of numbers in each lane.
FASTSSL_INLINE void split(simd::Vector low, simd::Vector high, simd::Bits (&words)[kParts]) {
  for (simd::Bits& word : words) {
    const simd::Bits first = (simd::Bits(low) + 0x8000u) & 0xffff0000u;
    const simd::Bits second = (simd::Bits(high) + 0x8000u) & 0xffff0000u;
    word = (first >> 16) | second;
    low -= simd::Vector(first);
    high -= simd::Vector(second);
  }
}

// Packs one step of a right operand from its rows [kDepth, ld].
FASTSSL_TARGET("x86-64-v4")
inline void pack_right(const float* rows, int64_t ld, int64_t panels, int64_t step, int64_t steps,
                       uint32_t* packed) {
  for (int64_t panel = 0; panel < panels; ++panel) {
    uint32_t* to = packed + (panel * steps + step) * kStepWords;
    for (int64_t k = 0; k < kSide; ++k) {
      const float* at = rows + k * ld + panel * kSide;
      simd::Bits words[kParts];
      split(simd::load(at), simd::load(at + kSide * ld), words);
      for (int part = 0; part < kParts; ++part) {
        std::memcpy(to + part * kTileWords + k * kSide, &words[part], sizeof(simd::Bits));
      }
    }
  }
}

// Packs one step of a left operand that lies transposed, [kDepth, ld].
FASTSSL_TARGET("x86-64-v4")
inline void pack_left_transposed(const float* rows, int64_t ld, int64_t panels, int64_t step,
                                 int64_t steps, uint32_t* packed) {
  for (int64_t panel = 0; panel < panels; ++panel) {
    pack_right(rows + panel * kSide, ld, 1, panel * steps + step, 0, packed);
    for (int part = 0; part < kParts; ++part) {
      uint32_t* tile = packed + (panel * steps + step) * kStepWords + part * kTileWords;
      simd::Vector words[kSide];
#pragma GCC unroll 16
      for (int k = 0; k < kSide; ++k) std::memcpy(&words[k], tile + k * kSide, sizeof(words[k]));
      simd::transpose(words, [&](int i, simd::Vector row) __attribute__((always_inline)) {
        std::memcpy(tile + i * kSide, &row, sizeof(row));
      });
    }
  }
}

// Packs one panel of a left operand from its rows [kSide, columns], whole vectors.
FASTSSL_TARGET("x86-64-v4")
inline void pack_left(const float* rows, int64_t columns, uint32_t* panel) {
  for (int64_t i = 0; i < kSide; ++i) {
    for (int64_t k = 0; k < columns; k += kDepth) {
      const float* at = rows + i * columns + k;
      simd::Bits words[kParts];
      split(simd::load(at), k + kSide < columns ? simd::load(at + kSide) : simd::Vector{}, words);
      uint32_t* to = panel + k / kDepth * kStepWords + i * kSide;
      for (int part = 0; part < kParts; ++part) {
        std::memcpy(to + part * kTileWords, &words[part], sizeof(simd::Bits));
      }
    }
  }
}

#define FASTSSL_TARGET_AMX FASTSSL_TARGET("x86-64-v4,amx-tile,amx-bf16")

// The tile registers, each of 16 rows of 64 bytes, while it lives.
class Registers {
 public:
  FASTSSL_TARGET_AMX Registers() {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } shapes;
    _tile_loadconfig(&shapes);
  }
  FASTSSL_TARGET_AMX ~Registers() { _tile_release(); }
  Registers(const Registers&) = delete;
  Registers& operator=(const Registers&) = delete;
};

// out [kRows, kColumns] panels, [.., ld] numbers, (+)= a times b, one or two panels of each,
// `panel` words apart.
template <int kRows, int kColumns>
FASTSSL_TARGET_AMX void multiply_panels(bool add_to, const uint32_t* a, const uint32_t* b,
                                        int64_t next, int64_t steps, float* out, int64_t ld) {
  asm volatile("" ::: "memory");  // the loads below do not say that they read memory
  constexpr int64_t kBytes = 64;
  const int64_t row_bytes = ld * sizeof(float);
  if (add_to) {
    _tile_loadd(0, out, row_bytes);
    if constexpr (kColumns == 2) _tile_loadd(1, out + kSide, row_bytes);
    if constexpr (kRows == 2) _tile_loadd(2, out + kSide * ld, row_bytes);
    if constexpr (kRows == 2 && kColumns == 2) _tile_loadd(3, out + kSide * ld + kSide, row_bytes);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  const auto load_a = [&](const uint32_t* at) FASTSSL_TARGET_AMX __attribute__((always_inline)) {
    _tile_loadd(4, at, kBytes);
    if constexpr (kRows == 2) _tile_loadd(5, at + next, kBytes);
  };
  const auto load_b = [&](const uint32_t* at) FASTSSL_TARGET_AMX __attribute__((always_inline)) {
    _tile_loadd(6, at, kBytes);
    if constexpr (kColumns == 2) _tile_loadd(7, at + next, kBytes);
  };
  const auto add = []() FASTSSL_TARGET_AMX __attribute__((always_inline)) {
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kColumns == 2) _tile_dpbf16ps(1, 4, 7);
    if constexpr (kRows == 2) _tile_dpbf16ps(2, 5, 6);
    if constexpr (kRows == 2 && kColumns == 2) _tile_dpbf16ps(3, 5, 7);
  };
  for (int64_t step = 0; step < steps; ++step, a += kStepWords, b += kStepWords) {
    load_a(a);
    load_b(b + 2 * kTileWords);
    add();
    load_b(b + kTileWords);
    add();
    load_b(b);
    add();
    load_a(a + kTileWords);
    add();
    load_b(b + kTileWords);
    add();
    load_a(a + 2 * kTileWords);
    load_b(b);
    add();
  }
  _tile_stored(0, out, row_bytes);
  if constexpr (kColumns == 2) _tile_stored(1, out + kSide, row_bytes);
  if constexpr (kRows == 2) _tile_stored(2, out + kSide * ld, row_bytes);
  if constexpr (kRows == 2 && kColumns == 2) _tile_stored(3, out + kSide * ld + kSide, row_bytes);
}

FASTSSL_TARGET_AMX
inline void multiply_square(bool add_to, const uint32_t* a, int64_t rows, const uint32_t* b,
                            int64_t columns, int64_t panel, int64_t steps, float* out, int64_t ld) {
  if (rows > 1 && columns > 1) return multiply_panels<2, 2>(add_to, a, b, panel, steps, out, ld);
  if (rows > 1) return multiply_panels<2, 1>(add_to, a, b, panel, steps, out, ld);
  if (columns > 1) return multiply_panels<1, 2>(add_to, a, b, panel, steps, out, ld);
  multiply_panels<1, 1>(add_to, a, b, panel, steps, out, ld);
}

// Steps at a time: two rows' panels stay in the first-level cache, all columns' in the second.
constexpr int64_t kBlockSteps = 4;

// out [rows, ld] = a times b, for the panels of b in [begin, end).
FASTSSL_TARGET_AMX
inline void multiply(const uint32_t* a, int64_t rows, const uint32_t* b, int64_t begin, int64_t end,
                     int64_t steps, float* out, int64_t ld) {
  const Registers registers;
  const int64_t panel = steps * kStepWords;
  for (int64_t step = 0; step < steps; step += kBlockSteps) {
    const int64_t depth = std::min(kBlockSteps, steps - step);
    for (int64_t i = 0; i < rows; i += 2) {
      for (int64_t j = begin; j < end; j += 2) {
        multiply_square(step > 0, a + i * panel + step * kStepWords, rows - i,
                        b + j * panel + step * kStepWords, end - j, panel, depth,
                        out + (i * ld + j) * kSide, ld);
      }
    }
  }
}

// out [rows, ld] += a times b, for the panels of b in [begin, end): a sum of its own, since small
// terms would be lost in one long running sum.
FASTSSL_TARGET_AMX
inline void multiply_add(const uint32_t* a, int64_t rows, const uint32_t* b, int64_t begin,
                         int64_t end, int64_t steps, float* out, int64_t ld) {
  const Registers registers;
  const int64_t panel = steps * kStepWords;
  alignas(64) float square[4 * kTileWords];
  for (int64_t i = 0; i < rows; i += 2) {
    for (int64_t j = begin; j < end; j += 2) {
      const int64_t height = std::min<int64_t>(2, rows - i), width = std::min<int64_t>(2, end - j);
      multiply_square(false, a + i * panel, height, b + j * panel, width, panel, steps, square,
                      2 * kSide);
      float* at = out + (i * ld + j) * kSide;
      for (int64_t row = 0; row < height * kSide; ++row) {
        for (int64_t column = 0; column < width * kSide; column += kSide) {
          float* sum = at + row * ld + column;
          simd::store(sum, simd::load(sum) + simd::load(square + row * 2 * kSide + column));
        }
      }
    }
  }
}

}  // namespace fastssl::cpu::amx
#endif
