// Vectors as wide as an instruction set's registers, in GCC's and Clang's portable vector types:
// loads of every storage type, exp and log, and reductions.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>

#include "dispatch.h"
#include "float_types.h"

namespace fastssl::cpu {

template <class acc_t, int kBytes>
struct VectorOf {
  typedef acc_t type __attribute__((vector_size(kBytes)));
};

template <class Isa, class acc_t>
struct Simd {
  static constexpr int kLanes = Isa::kBytes / sizeof(acc_t);
  using Vector = typename VectorOf<acc_t, Isa::kBytes>::type;
  using Bits = typename VectorOf<std::conditional_t<sizeof(acc_t) == 4, uint32_t, uint64_t>,
                                 Isa::kBytes>::type;

  FASTSSL_INLINE static Vector broadcast(acc_t x) { return Vector{} + x; }

  template <class scalar_t>
  FASTSSL_INLINE static Vector load(const scalar_t* from) {
    if constexpr (std::is_same_v<scalar_t, acc_t>) {
      Vector x;
      std::memcpy(&x, from, sizeof(x));
      return x;
    } else {
      typename VectorOf<uint16_t, kLanes * 2>::type narrow;
      std::memcpy(&narrow, from, sizeof(narrow));
      return bits_to_float<scalar_t, Vector>(__builtin_convertvector(narrow, Bits));
    }
  }

  FASTSSL_INLINE static void store(acc_t* to, Vector x) { std::memcpy(to, &x, sizeof(x)); }

  // The first `count` lanes, or all of them, in any storage type.
  template <class scalar_t>
  FASTSSL_INLINE static void store_head(scalar_t* to, Vector x, int64_t count) {
    if constexpr (std::is_same_v<scalar_t, acc_t>) {
      if (count >= kLanes) return store(to, x);
      for (int64_t l = 0; l < count; ++l) to[l] = x[l];
    } else {
      scalar_t narrow[kLanes];
      if constexpr (std::is_same_v<scalar_t, BFloat16>) {
        const Bits bits = std::bit_cast<Bits>(x);
        const Bits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;  // as cpu::store
        const auto words = __builtin_convertvector(x == x ? rounded : Bits{} + 0x7fc0,
                                                   typename VectorOf<uint16_t, kLanes * 2>::type);
        std::memcpy(narrow, &words, sizeof(narrow));
      } else {
        for (int l = 0; l < kLanes; ++l) cpu::store(narrow + l, x[l]);
      }
      if (count >= kLanes) {
        std::memcpy(to, narrow, sizeof(narrow));
      } else {
        for (int64_t l = 0; l < count; ++l) to[l] = narrow[l];
      }
    }
  }

  FASTSSL_INLINE static Vector max(Vector a, Vector b) { return a > b ? a : b; }

  // Hides from the compiler where x comes from. GCC 12 would follow a selection by an earlier one
  // back to a comparison, and takes a 64-byte one that is used twice lane by lane.
  FASTSSL_INLINE static void forget([[maybe_unused]] Vector& x) {
#if defined(__x86_64__) && defined(__GNUC__)
    asm("" : "+x"(x));
#endif
  }

  // x with `value` in the lanes from `count` on.
  FASTSSL_INLINE static Vector fill_tail(Vector x, int64_t count, acc_t value) {
    if (count >= kLanes) return x;
    const Vector index = __builtin_convertvector(lane_numbers(), Vector);
    return index < broadcast(acc_t(count)) ? x : broadcast(value);
  }

  FASTSSL_INLINE static Bits lane_numbers() {
    Bits index;
    for (int l = 0; l < kLanes; ++l) index[l] = l;
    return index;
  }

  FASTSSL_INLINE static acc_t sum(Vector x) {
    return reduce(x, [](auto a, auto b) { return a + b; });
  }
  FASTSSL_INLINE static acc_t max(Vector x) {
    return reduce(x, [](auto a, auto b) { return a > b ? a : b; });
  }
  FASTSSL_INLINE static int64_t min(Bits x) {
    return reduce(x, [](auto a, auto b) { return a < b ? a : b; });
  }

  // Calls out(j, column j) for the square of lanes x lanes numbers that `rows` holds: its first
  // half is interleaved with its second once for each bit of a row's number.
  template <int kLeft = kLanes, class Out>
  FASTSSL_INLINE static void transpose(const Vector (&rows)[kLanes], const Out& out) {
    if constexpr (kLeft == 1) {
#pragma GCC unroll 16
      for (int j = 0; j < kLanes; ++j) out(j, rows[j]);
    } else {
      constexpr int kHalf = kLanes / 2;
      Vector mixed[kLanes];
#pragma GCC unroll 8
      for (int i = 0; i < kHalf; ++i) {
        mixed[2 * i] = interleave<0>(rows[i], rows[kHalf + i], kEveryLane);
        mixed[2 * i + 1] = interleave<kHalf>(rows[i], rows[kHalf + i], kEveryLane);
      }
      transpose<kLeft / 2>(mixed, out);
    }
  }

  // e^x for x <= 0, to about 1 ulp; below half the smallest normal it is 0.
  FASTSSL_INLINE static Vector exp_nonpositive(Vector x) {
    if constexpr (sizeof(acc_t) == 8) {
      for (int l = 0; l < kLanes; ++l) x[l] = std::exp(x[l]);
      return x;
    } else {
      // Leaves the nearest integer plus the exponent's bias in the low mantissa bits.
      const Vector round = broadcast(0x1.8p23f + 127);
      const Vector clamped =
          max(broadcast(-88.02969f), x);  // -127 ln 2, whose biased exponent is 0
      const Vector shifted = clamped * 1.44269504f + round;
      const Vector n = shifted - round;
      const Vector r = (clamped - n * 0x1.62ep-1f) - n * 0x1.0bfbe8p-15f;  // ln 2 in two parts
      // exp(r) = 1 + r + r^2 q(r) on |r| <= ln(2)/2, q fitted to a relative error of 3e-9
      Vector q = broadcast(0x1.6a2434p-10f);
      q = q * r + 0x1.1239e2p-7f;
      q = q * r + 0x1.5558f2p-5f;
      q = q * r + 0x1.555492p-3f;
      q = q * r + 0x1.fffffcp-2f;
      q = q * r + 1.f;
      q = q * r + 1.f;
      return q * Vector(Bits(shifted) << 23);
    }
  }

  // ln max(x, smallest normal), to about 1 ulp.
  FASTSSL_INLINE static Vector log_clamped(Vector x) {
    const Vector least = broadcast(std::numeric_limits<acc_t>::min());
    x = x > least ? x : least;
    if constexpr (sizeof(acc_t) == 8) {
      for (int l = 0; l < kLanes; ++l) x[l] = std::log(x[l]);
      return x;
    } else {
      // x = 2^k m with m in [sqrt(1/2), sqrt(2))
      using Integers = typename VectorOf<int32_t, Isa::kBytes>::type;
      const Integers k = Integers(Bits(x) - 0x3f3504f3u) >> 23;
      const Vector n = __builtin_convertvector(k, Vector);
      const Vector r = Vector(Bits(x) - (Bits(k) << 23)) - 1.f;
      // ln(1 + r) = r + r^2 q(r), q fitted to a relative error of 4e-9
      Vector q = broadcast(-0x1.3839a8p-4f);
      q = q * r + 0x1.084fcap-3f;
      q = q * r - 0x1.0f392ep-3f;
      q = q * r + 0x1.2270a2p-3f;
      q = q * r - 0x1.54271cp-3f;
      q = q * r + 0x1.99a3fcp-3f;
      q = q * r - 0x1.000428p-2f;
      q = q * r + 0x1.55555p-2f;
      q = q * r - 0x1.fffff8p-2f;
      return n * 0x1.62ep-1f + (n * 0x1.0bfbe8p-15f + (q * r) * r + r);
    }
  }

 private:
  static constexpr auto kEveryLane = std::make_integer_sequence<int, kLanes>{};

  // a and b, lane by lane in turn, from lane `first` on.
  template <int first, int... lane>
  FASTSSL_INLINE static Vector interleave(Vector a, Vector b, std::integer_sequence<int, lane...>) {
    return __builtin_shufflevector(a, b, (first + lane / 2 + lane % 2 * kLanes)...);
  }

  template <class V, class Combine>
  FASTSSL_INLINE static auto reduce(V x, const Combine& combine) {
    using number_t = std::decay_t<decltype(x[0])>;
    constexpr int kHalf = sizeof(V) / 2;
    if constexpr (kHalf == sizeof(number_t)) {
      return combine(x[0], x[1]);
    } else {
      typename VectorOf<number_t, kHalf>::type low, high;
      std::memcpy(&low, &x, kHalf);
      std::memcpy(&high, reinterpret_cast<const char*>(&x) + kHalf, kHalf);
      return reduce(combine(low, high), combine);
    }
  }
};

// Calls body(j, count, x) over a row of C numbers, a vector at a time; the last one is filled up
// with zeros.
template <class simd, class scalar_t, class Body>
FASTSSL_INLINE void for_row(const scalar_t* row, int64_t C, const Body& body) {
  int64_t j = 0;
  for (; j + simd::kLanes <= C; j += simd::kLanes) {
    body(j, int64_t(simd::kLanes), simd::load(row + j));
  }
  if (j == C) return;
  scalar_t tail[simd::kLanes] = {};
  for (int64_t l = 0; l < C - j; ++l) tail[l] = row[j + l];
  body(j, C - j, simd::load(tail));
}

}  // namespace fastssl::cpu
