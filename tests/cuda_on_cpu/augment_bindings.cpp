// The launcher of augment, whose structures become parameters with a name each.
#include "runtime/bind.h"

#include <algorithm>

#include "kernels/augment.h"

using namespace fastssl;

namespace {

template <class scalar_t>
cudaError_t augment(const uint8_t* images, const int32_t* integers, const float* factors,
                    const int32_t* plans, int64_t seed, const int64_t* step, const int64_t* index,
                    const float* mean, const float* std, scalar_t* views, int64_t N, int V, int K,
                    int S, bool channels_last, cudaStream_t stream) {
  ViewPlans of_views{};
  std::copy_n(plans, V * kPlanFields, reinterpret_cast<int32_t*>(of_views.view));
  return cuda::augment(images, integers, factors, of_views, uint64_t(seed), step, index, mean, std,
                       views, {N, V, K, S, channels_last}, stream);
}

#define NAMES                                                                           \
  "images, integers, factors, plans, seed, step, index, mean, std, views, N, V, K, S, " \
  "channels_last"
BIND("augment_float32", NAMES, augment<float>);
BIND("augment_bfloat16", NAMES, augment<__nv_bfloat16>);
BIND("augment_uint8", NAMES, augment<uint8_t>);

}  // namespace
