// One binary, several instruction sets. A kernel's body is an always-inlined template over `Isa`;
// the macro below wraps it into one function per instruction set and picks the best one the
// processor has, once.
#pragma once

#define FASTSSL_INLINE [[gnu::always_inline]] inline

namespace fastssl::cpu {

// Lane counts and register tiles follow the instruction set's registers: a product tile is kRows x
// (kVectors * kBytes) and must leave registers for one row of operands.
struct Portable {
  static constexpr int kBytes = 16, kRows = 4, kVectors = 2;
};
struct Avx2 {
  static constexpr int kBytes = 32, kRows = 4, kVectors = 3;
};
struct Avx512 {
  static constexpr int kBytes = 64, kRows = 8, kVectors = 3;
};

// kAmx is kAvx512 with a matrix unit (amx.h).
enum class Level { kPortable, kAvx2, kAvx512, kAmx };

// The best level of this processor, or the lower one that FASTSSL_CPU_CAPABILITY (portable, avx2,
// avx512, amx) asks for. Read once.
Level level();
const char* level_name();

}  // namespace fastssl::cpu

#if defined(__x86_64__) && defined(__GNUC__)
#define FASTSSL_TARGET(arch) __attribute__((target("arch=" arch)))
#define FASTSSL_PER_LEVEL(name, body)            \
  template <class... Arguments>                  \
  FASTSSL_TARGET("x86-64-v4")                    \
  void name##_avx512(Arguments... arguments) {   \
    body<Avx512>(arguments...);                  \
  }                                              \
  template <class... Arguments>                  \
  FASTSSL_TARGET("x86-64-v3")                    \
  void name##_avx2(Arguments... arguments) {     \
    body<Avx2>(arguments...);                    \
  }                                              \
  template <class... Arguments>                  \
  void name##_portable(Arguments... arguments) { \
    body<Portable>(arguments...);                \
  }                                              \
  template <class... Arguments>                  \
  void name(Arguments... arguments) {            \
    switch (level()) {                           \
      case Level::kAmx:                          \
      case Level::kAvx512:                       \
        return name##_avx512(arguments...);      \
      case Level::kAvx2:                         \
        return name##_avx2(arguments...);        \
      case Level::kPortable:                     \
        return name##_portable(arguments...);    \
    }                                            \
  }
#else
#define FASTSSL_PER_LEVEL(name, body) \
  template <class... Arguments>       \
  void name(Arguments... arguments) { \
    body<Portable>(arguments...);     \
  }
#endif
