// torch's channels_last order: images [N, K, H, W] whose channels lie side by side.
#pragma once

#include "../torch_api.h"

namespace fastssl {

inline bool is_channels_last(const Tensor& images) {
  if (images.dim() != 4) return false;
  int64_t expected = 1;
  for (const int64_t d : {1, 3, 2, 0}) {
    if (images.size(d) != 1 && images.stride(d) != expected) return false;
    expected *= images.size(d);
  }
  return true;
}

}  // namespace fastssl
