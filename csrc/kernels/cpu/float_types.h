// The 16-bit floating-point types as storage, and what each type is accumulated in. The conversions
// work on integers and floats alone, so that they serve scalars and vectors on any instruction set.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

#include "dispatch.h"

namespace fastssl::cpu {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

template <class scalar_t>
using acc_t = std::conditional_t<std::is_same_v<scalar_t, double>, double, float>;

// The values of 16-bit floats given as integers; Bits is uint32_t or a vector of it, Float alike.
template <class scalar_t, class Float, class Bits>
FASTSSL_INLINE Float bits_to_float(Bits bits) {
  if constexpr (std::is_same_v<scalar_t, BFloat16>) {
    return std::bit_cast<Float>(bits << 16);
  } else {
    // Exponent and mantissa as a float 2^112 too small, which also turns subnormals into normals;
    // an all-ones exponent (inf, NaN) lands at 2^16 or above and is given float's own.
    const Bits sign = (bits & 0x8000u) << 16;
    const Float scaled = std::bit_cast<Float>((bits & 0x7fffu) << 13) * 0x1p112f;
    const Bits magnitude = std::bit_cast<Bits>(scaled);
    const Bits special = magnitude | 0x7f800000u;
    return std::bit_cast<Float>((magnitude >= 0x47800000u ? special : magnitude) | sign);
  }
}

FASTSSL_INLINE float load(const float* from) { return *from; }
FASTSSL_INLINE double load(const double* from) { return *from; }
template <class half_t>
FASTSSL_INLINE float load(const half_t* from) {
  return bits_to_float<half_t, float>(uint32_t(from->bits));
}

FASTSSL_INLINE void store(float* to, float x) { *to = x; }
FASTSSL_INLINE void store(double* to, double x) { *to = x; }
FASTSSL_INLINE void store(BFloat16* to, float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;  // to nearest, ties to even
  to->bits = uint16_t(x != x ? 0x7fc0 : rounded);
}
FASTSSL_INLINE void store(Half* to, float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t sign = (bits >> 16) & 0x8000;
  const uint32_t magnitude = bits & 0x7fffffff;
  // Below 2^-14 a half is fixed-point with step 2^-24: adding 2^-1 leaves exactly those bits in the
  // mantissa.
  const uint32_t subnormal =
      std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
  const uint32_t normal = (magnitude - 0x38000000u + 0xfff + ((magnitude >> 13) & 1)) >> 13;
  uint32_t half = magnitude < 0x38800000u ? subnormal : normal;
  half = magnitude >= 0x477ff000u ? 0x7c00u : half;  // 65520 and above round to infinity
  half = magnitude > 0x7f800000u ? 0x7e00u : half;
  to->bits = uint16_t(sign | half);
}

}  // namespace fastssl::cpu
