#include "dispatch.h"

#include <cstdlib>
#include <cstring>

namespace fastssl::cpu {
namespace {

constexpr const char* kNames[] = {"portable", "avx2", "avx512"};

Level detect() {
  Level best = Level::kPortable;
#if defined(__x86_64__) && defined(__GNUC__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("x86-64-v3")) best = Level::kAvx2;
  if (__builtin_cpu_supports("x86-64-v4")) best = Level::kAvx512;
#endif
  if (const char* wanted = std::getenv("FASTSSL_CPU_CAPABILITY")) {
    for (int i = 0; i < int(best); ++i) {
      if (std::strcmp(wanted, kNames[i]) == 0) return Level(i);
    }
  }
  return best;
}

}  // namespace

Level level() {
  static const Level value = detect();
  return value;
}

const char* level_name() { return kNames[int(level())]; }

}  // namespace fastssl::cpu
