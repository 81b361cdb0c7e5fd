// The device functions of CUDA's maths and integer libraries that the C library lacks. The
// approximate ones (__expf) are exact to rounding here: what they lose on a GPU is measured there.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

// ---- min, max: CUDA's own ignore a NaN ----------------------------------------------------------
template <class A, class B>
constexpr std::common_type_t<A, B> min(A a, B b) {
  using T = std::common_type_t<A, B>;
  static_assert(std::is_arithmetic_v<T>);
  if constexpr (std::is_floating_point_v<T>) {
    return std::fmin(T(a), T(b));
  } else {
    return T(b) < T(a) ? T(b) : T(a);
  }
}
template <class A, class B>
constexpr std::common_type_t<A, B> max(A a, B b) {
  using T = std::common_type_t<A, B>;
  static_assert(std::is_arithmetic_v<T>);
  if constexpr (std::is_floating_point_v<T>) {
    return std::fmax(T(a), T(b));
  } else {
    return T(a) < T(b) ? T(b) : T(a);
  }
}

// ---- floating point -----------------------------------------------------------------------------
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
inline float rsqrt(float x) { return rsqrtf(x); }
inline float rcbrtf(float x) { return 1.0f / std::cbrt(x); }
inline double sinpi(double x) { return std::sin(M_PI * std::remainder(x, 2.0)); }
inline double cospi(double x) { return std::cos(M_PI * std::remainder(x, 2.0)); }
inline float sinpif(float x) { return float(sinpi(double(x))); }
inline float cospif(float x) { return float(cospi(double(x))); }
inline void sincospi(double x, double* sine, double* cosine) {
  *sine = sinpi(x);
  *cosine = cospi(x);
}
inline void sincospif(float x, float* sine, float* cosine) {
  *sine = sinpif(x);
  *cosine = cospif(x);
}

inline float __expf(float x) { return std::exp(x); }
inline float __exp10f(float x) { return std::pow(10.0f, x); }
inline float __logf(float x) { return std::log(x); }
inline float __log2f(float x) { return std::log2(x); }
inline float __log10f(float x) { return std::log10(x); }
inline float __powf(float x, float y) { return std::pow(x, y); }
inline float __sinf(float x) { return std::sin(x); }
inline float __cosf(float x) { return std::cos(x); }
inline float __tanf(float x) { return std::tan(x); }
inline void __sincosf(float x, float* sine, float* cosine) {
  *sine = std::sin(x);
  *cosine = std::cos(x);
}
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __frsqrt_rn(float x) { return rsqrtf(x); }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }

// These keep nvcc from contracting; g++ for plain x86-64 never contracts.
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fsub_rn(float x, float y) { return x - y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fmaf_rn(float x, float y, float z) { return std::fma(x, y, z); }
inline double __dadd_rn(double x, double y) { return x + y; }
inline double __dsub_rn(double x, double y) { return x - y; }
inline double __dmul_rn(double x, double y) { return x * y; }
inline double __ddiv_rn(double x, double y) { return x / y; }
inline double __fma_rn(double x, double y, double z) { return std::fma(x, y, z); }

// ---- conversions: out of range saturates and NaN gives 0, as on the GPU -------------------------
namespace cuda_on_cpu {

template <class Integer, class Float>
Integer saturating_cast(Float rounded) {
  if (std::isnan(rounded)) return 0;
  // 2^(digits): the first value that does not fit; it is exact in Float, the largest integer is
  // not.
  const Float beyond = std::ldexp(Float(1), std::numeric_limits<Integer>::digits);
  if (rounded >= beyond) return std::numeric_limits<Integer>::max();
  if (rounded < Float(std::numeric_limits<Integer>::min()))
    return std::numeric_limits<Integer>::min();
  return Integer(rounded);
}

template <class To, class From>
__forceinline__ To reinterpret_bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

}  // namespace cuda_on_cpu

inline int __float2int_rn(float x) { return cuda_on_cpu::saturating_cast<int>(std::nearbyint(x)); }
inline int __float2int_rz(float x) { return cuda_on_cpu::saturating_cast<int>(std::trunc(x)); }
inline int __float2int_rd(float x) { return cuda_on_cpu::saturating_cast<int>(std::floor(x)); }
inline int __float2int_ru(float x) { return cuda_on_cpu::saturating_cast<int>(std::ceil(x)); }
inline unsigned __float2uint_rn(float x) {
  return cuda_on_cpu::saturating_cast<unsigned>(std::nearbyint(x));
}
inline unsigned __float2uint_rz(float x) {
  return cuda_on_cpu::saturating_cast<unsigned>(std::trunc(x));
}
inline long long __float2ll_rn(float x) {
  return cuda_on_cpu::saturating_cast<long long>(std::nearbyint(x));
}
inline int __double2int_rn(double x) {
  return cuda_on_cpu::saturating_cast<int>(std::nearbyint(x));
}
inline long long __double2ll_rn(double x) {
  return cuda_on_cpu::saturating_cast<long long>(std::nearbyint(x));
}
inline float __double2float_rn(double x) { return float(x); }
inline float __int2float_rn(int x) { return float(x); }
inline float __uint2float_rn(unsigned x) { return float(x); }

inline int __float_as_int(float x) { return cuda_on_cpu::reinterpret_bits<int>(x); }
inline unsigned __float_as_uint(float x) { return cuda_on_cpu::reinterpret_bits<unsigned>(x); }
inline float __int_as_float(int x) { return cuda_on_cpu::reinterpret_bits<float>(x); }
inline float __uint_as_float(unsigned x) { return cuda_on_cpu::reinterpret_bits<float>(x); }
inline long long __double_as_longlong(double x) {
  return cuda_on_cpu::reinterpret_bits<long long>(x);
}
inline double __longlong_as_double(long long x) { return cuda_on_cpu::reinterpret_bits<double>(x); }

// ---- integers -----------------------------------------------------------------------------------
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(unsigned(x)); }
inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll((unsigned long long)(x)); }
inline unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int bit = 0; bit < 32; ++bit) reversed |= (x >> bit & 1u) << (31 - bit);
  return reversed;
}
inline unsigned __umulhi(unsigned x, unsigned y) { return unsigned(uint64_t(x) * y >> 32); }
inline int __mulhi(int x, int y) { return int(int64_t(x) * y >> 32); }
inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
  return (unsigned long long)((unsigned __int128)(x)*y >> 64);
}
inline int __mul24(int x, int y) { return int(unsigned(x << 8 >> 8) * unsigned(y << 8 >> 8)); }
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  return unsigned(((uint64_t(high) << 32 | low) << (shift & 31)) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return unsigned((uint64_t(high) << 32 | low) >> (shift & 31));
}
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  const uint64_t bytes = uint64_t(y) << 32 | x;
  unsigned picked = 0;
  for (int i = 0; i < 4; ++i) {
    picked |= unsigned(bytes >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
  }
  return picked;
}
