// The steps that turn one image into one view, written once for the CPU and CUDA kernels.
//
// A team runs them: on the CPU one thread, on CUDA one block. Every member calls every function; a
// team's own functions end with its members in step. It offers
//
//   front, back                     uint8 [K, S, S]: the image, and room for the next one
//   columns, rows                   int32 [S]
//   counts, table                   int32 [256], uint8 [256]
//   each(n, body)                   body(i) for i in [0, n), in any order
//   each_pixel(width, height, body) body(x, y, y * width + x)
//   sum(n, body)                    of the integers body(i)
//   histogram(channel, n)           of n gray levels, into counts
//   lowest(), highest()             gray level in counts that occurs
//   accumulate()                    counts to the number of darker pixels
//   swap()                          front and back
//   store(to, x)                    a float as the output's type
#pragma once

#include "augment.h"

// FASTSSL_INNER marks the bodies of loops: one that stays a function of its own would not be
// compiled for the instruction set of its caller (cpu/dispatch.h), and changing sets costs more
// than a pixel.
#ifdef __CUDACC__
#define FASTSSL_TEAM __device__ __forceinline__
#define FASTSSL_INNER
#else
#define FASTSSL_TEAM [[gnu::always_inline]] inline
#define FASTSSL_INNER __attribute__((always_inline))
#endif

namespace fastssl {

template <int K, class Team>
struct Pipeline {
  Team& team;
  const int32_t* integers;
  const float* factors;
  const ViewPlan& plan;
  const Draws& draws;
  int S;

  FASTSSL_TEAM int pixels() const { return S * S; }

  // ---- the first pass: from the image to front --------------------------------------------------

  // Rotation, translation with reflection, crop with padding, flip.
  FASTSSL_TEAM void weak(const uint8_t* image) {
    const Words words = draws(kWeakBlock), crop = draws(kCropBlock);
    const bool flip = plan.flip != 0 && words.w >> 31 != 0;
    const int shift_x = within(words.y, plan.translate), shift_y = within(words.z, plan.translate);
    const int crop_x = within(crop.x, plan.padding), crop_y = within(crop.y, plan.padding);
    int32_t *columns = team.columns, *rows = team.rows;
    const int size = S, P = pixels();
    team.each(S, [=](int i) FASTSSL_INNER {
      columns[i] = shifted_source(i, size, flip, crop_x, shift_x);
      rows[i] = shifted_source(i, size, false, crop_y, shift_y);
    });
    uint8_t* to = team.front;
    const uint8_t fill = uint8_t(plan.fill);
    if (plan.angles == 0) {
      team.each_pixel(S, S, [=](int x, int y, int p) FASTSSL_INNER {
        const int column = columns[x], row = rows[y];
        const bool inside = (column | row) >= 0;
        const int from = row * size + column;
        for (int k = 0; k < K; ++k) to[k * P + p] = inside ? image[k * P + from] : fill;
      });
      return;
    }
    int32_t map[kFixedAffine];
    load_map(plan.angle_table, below(words.x, plan.angles), map);
    team.each_pixel(S, S, [=](int x, int y, int p) FASTSSL_INNER {
      const int column = columns[x], row = rows[y];
      const int from = (column | row) < 0 ? kOutside : affine_source(map, column, row, size);
      for (int k = 0; k < K; ++k) to[k * P + p] = from < 0 ? fill : image[k * P + from];
    });
  }

  // A random crop brought back to S x S, and flip.
  FASTSSL_TEAM void crop(const uint8_t* image) {
    const Words words = draws(kCropBlock);
    const bool flip = plan.flip != 0 && draws(kWeakBlock).w >> 31 != 0;
    const int size = S, P = pixels(), side = plan.crop;
    const uint8_t* corner = image + below(words.y, S - side + 1) * S + below(words.x, S - side + 1);
    const int32_t* table = integers + plan.resize_table;
    uint8_t *narrow = team.back, *to = team.front;
    team.each_pixel(S, side, [=](int x, int y, int p) FASTSSL_INNER {
      const int32_t* taps = table + 3 * (flip ? size - 1 - x : x);
      const int from = y * size + tap(taps, side);
      for (int k = 0; k < K; ++k) {
        const uint8_t* pair = corner + k * P + from;
        narrow[k * P + p] = interpolate(pair[0], pair[1], taps[1], taps[2]);
      }
    });
    team.each_pixel(S, S, [=](int x, int y, int p) FASTSSL_INNER {
      const int32_t* taps = table + 3 * y;
      const int from = tap(taps, side) * size + x;
      for (int k = 0; k < K; ++k) {
        const uint8_t* pair = narrow + k * P + from;
        to[k * P + p] = interpolate(pair[0], pair[size], taps[1], taps[2]);
      }
    });
  }

  // The first of two neighbours, kept inside the crop whatever the table says.
  FASTSSL_TEAM static int tap(const int32_t* taps, int side) {
    return taps[0] < 0 ? 0 : taps[0] > side - 2 ? side - 2 : taps[0];
  }

  FASTSSL_TEAM void load_map(int32_t table, int row, int32_t (&map)[kFixedAffine]) const {
    for (int j = 0; j < kFixedAffine; ++j) map[j] = integers[table + kFixedAffine * row + j];
  }

  // ---- operations on front ----------------------------------------------------------------------

  FASTSSL_TEAM void affine(const int32_t (&given)[kFixedAffine]) {
    int32_t map[kFixedAffine];
    for (int j = 0; j < kFixedAffine; ++j) map[j] = given[j];
    const uint8_t* from = team.front;
    uint8_t* to = team.back;
    const int size = S, P = pixels();
    const uint8_t fill = uint8_t(plan.fill);
    team.each_pixel(S, S, [=](int x, int y, int p) FASTSSL_INNER {
      const int source = affine_source(map, x, y, size);
      for (int k = 0; k < K; ++k) to[k * P + p] = source < 0 ? fill : from[k * P + source];
    });
    team.swap();
  }

  // Every gray level by itself.
  template <class Change>
  FASTSSL_TEAM void each_level(const Change& change) {
    uint8_t* front = team.front;
    team.each(K * pixels(), [=](int i) FASTSSL_INNER { front[i] = change(front[i]); });
  }

  FASTSSL_TEAM void brightness(float factor) {
    each_level([=](int level) FASTSSL_INNER { return blend(0, level, factor); });
  }

  FASTSSL_TEAM void contrast(float factor) {
    const uint8_t* front = team.front;
    const int P = pixels();
    const int total = team.sum(P, [=](int p) FASTSSL_INNER {
      if constexpr (K == 1) {
        return int(front[p]);
      } else {
        return luma(front[p], front[P + p], front[2 * P + p]);
      }
    });
    const int mean = (2 * total + P) / (2 * P);
    each_level([=](int level) FASTSSL_INNER { return blend(mean, level, factor); });
  }

  FASTSSL_TEAM void colour(float factor) {
    if constexpr (K == 3) {
      const int P = pixels();
      uint8_t *red = team.front, *gray = team.back;
      team.each(P, [=](int p) FASTSSL_INNER {
        gray[p] = uint8_t(luma(red[p], red[P + p], red[2 * P + p]));
      });
      for (int k = 0; k < K; ++k) {
        uint8_t* channel = team.front + k * P;
        team.each(P, [=](int p) FASTSSL_INNER { channel[p] = blend(gray[p], channel[p], factor); });
      }
    }
  }

  FASTSSL_TEAM void hue(int shift) {
    if constexpr (K == 3) {
      const uint8_t* from = team.front;
      uint8_t* to = team.back;
      const int P = pixels();
      team.each(P, [=](int p) FASTSSL_INNER {
        const Colour shifted = shift_hue({from[p], from[P + p], from[2 * P + p]}, shift);
        to[p] = uint8_t(shifted.red);
        to[P + p] = uint8_t(shifted.green);
        to[2 * P + p] = uint8_t(shifted.blue);
      });
      team.swap();
    }
  }

  FASTSSL_TEAM void sharpness(float factor) {
    const int size = S, P = pixels();
    for (int k = 0; k < K; ++k) {
      const uint8_t* from = team.front + k * P;
      uint8_t* to = team.back + k * P;
      // All between the first inner pixel and the last, as one run; then the border as it was.
      team.each(P - 2 * (S + 1), [=](int i) FASTSSL_INNER {
        const uint8_t* above = from + i;
        const uint8_t* beside = above + size;
        const uint8_t* under = beside + size;
        const int sum = above[0] + above[1] + above[2] + beside[0] + beside[1] + beside[2] +
                        under[0] + under[1] + under[2];
        to[size + 1 + i] = blend(smooth(beside[1], sum), beside[1], factor);
      });
      team.each(S, [=](int i) FASTSSL_INNER {
        to[i] = from[i];
        to[P - size + i] = from[P - size + i];
        if (i == 0 || i == size - 1) return;
        to[i * size] = from[i * size];
        to[i * size + size - 1] = from[i * size + size - 1];
      });
    }
    team.swap();
  }

  // Each channel through a table of its gray levels, which `prepare()` makes from its counts.
  template <class Prepare>
  FASTSSL_TEAM void by_histogram(const Prepare& prepare) {
    const int P = pixels();
    uint8_t* table = team.table;
    for (int k = 0; k < K; ++k) {
      uint8_t* channel = team.front + k * P;
      team.histogram(channel, P);
      const auto entry = prepare();
      team.each(kGrayLevels, [=](int level) FASTSSL_INNER { table[level] = entry(level); });
      team.each(P, [=](int p) FASTSSL_INNER { channel[p] = table[channel[p]]; });
    }
  }

  FASTSSL_TEAM void auto_contrast() {
    by_histogram([&] {
      const int low = team.lowest(), high = team.highest();
      return [=](int level) FASTSSL_INNER { return stretched(level, low, high); };
    });
  }

  FASTSSL_TEAM void equalize() {
    const int total = pixels();
    by_histogram([&] {
      const int32_t* counts = team.counts;
      const int last = counts[team.highest()];
      team.accumulate();
      return [=](int level) FASTSSL_INNER { return equalized(level, counts[level], last, total); };
    });
  }

  FASTSSL_TEAM void operate(Operation operation, int level) {
    const int row = int(operation) * plan.levels + level;
    int32_t map[kFixedAffine];
    load_map(plan.level_table, row, map);
    const float factor = factors[plan.enhance_table + level];
    const int number = map[0];
    switch (operation) {
      case Operation::kAutoContrast:
        return auto_contrast();
      case Operation::kBrightness:
        return brightness(factor);
      case Operation::kColor:
        return colour(factor);
      case Operation::kContrast:
        return contrast(factor);
      case Operation::kEqualize:
        return equalize();
      case Operation::kPosterize:
        return each_level([=](int gray) FASTSSL_INNER { return uint8_t(gray & number); });
      case Operation::kSharpness:
        return sharpness(factor);
      case Operation::kSolarize:
        return each_level([=](int gray)
                              FASTSSL_INNER { return uint8_t(gray < number ? gray : 255 - gray); });
      case Operation::kRotate:
      case Operation::kShearX:
      case Operation::kShearY:
      case Operation::kTranslateX:
      case Operation::kTranslateY:
        return affine(map);
      default:
        return;
    }
  }

  FASTSSL_TEAM void rand_augment() {
    for (int i = 0; i < plan.operations; ++i) {
      const Words words = draws(kOperationBlock + uint32_t(i));
      if (int(words.z >> 16) >= plan.chance) continue;
      operate(Operation(below(words.x, kOperations)), below(words.y, plan.levels));
    }
  }

  // Brightness, contrast, saturation and hue, in random order.
  FASTSSL_TEAM void jitter() {
    const Words words = draws(kJitterBlock), crop_words = draws(kCropBlock);
    const float* table = factors + plan.jitter_table;
    int order = below(crop_words.w, 24);
    uint32_t left = 0x3210;  // a digit for each that is still to come
    for (int remaining = 4, orders = 6; remaining > 0; --remaining) {
      const int place = 4 * (order / orders);
      order %= orders;
      if (remaining > 2) orders /= remaining - 1;
      const uint32_t turn = left >> place & 15, lower = (1u << place) - 1;
      left = (left & lower) | (left >> 4 & ~lower);
      if (turn == 0) brightness(table[below(words.x, plan.jitters)]);
      if (turn == 1) contrast(table[plan.jitters + below(words.y, plan.jitters)]);
      if (turn == 2) colour(table[2 * plan.jitters + below(words.z, plan.jitters)]);
      if (turn == 3) hue(integers[plan.hue_table + below(crop_words.z, plan.hues)]);
    }
  }

  FASTSSL_TEAM void cutout() {
    const Words words = draws(kCutoutBlock);
    const int side = plan.cutout_least + below(words.z, plan.cutout_most - plan.cutout_least + 1);
    const int left = below(words.x, S) - side / 2, top = below(words.y, S) - side / 2;
    const int first_x = left < 0 ? 0 : left, first_y = top < 0 ? 0 : top;
    const int width = (left + side < S ? left + side : S) - first_x;
    const int height = (top + side < S ? top + side : S) - first_y;
    if (width <= 0 || height <= 0) return;
    uint8_t* corner = team.front + first_y * S + first_x;
    const uint8_t fill = uint8_t(plan.cutout_fill);
    const int size = S, P = pixels();
    team.each_pixel(width, height, [=](int x, int y, int) FASTSSL_INNER {
      for (int k = 0; k < K; ++k) corner[k * P + y * size + x] = fill;
    });
  }

  // ---- the last pass: to the output -------------------------------------------------------------

  template <class scalar_t>
  FASTSSL_TEAM void write(const Normal (&normals)[K], scalar_t* view, bool channels_last) {
    const uint8_t* front = team.front;
    const int P = pixels();
    if (channels_last) {
      team.each(P, [=](int p) FASTSSL_INNER {
        for (int k = 0; k < K; ++k) put(view + p * K + k, front[k * P + p], normals[k]);
      });
    } else {
      for (int k = 0; k < K; ++k) {
        const Normal n = normals[k];
        team.each(P, [=](int p) FASTSSL_INNER { put(view + k * P + p, front[k * P + p], n); });
      }
    }
  }

  template <class scalar_t>
  FASTSSL_TEAM static void put(scalar_t* to, uint8_t level, Normal n) {
    if constexpr (sizeof(scalar_t) == 1) {
      *to = level;
    } else {
      Team::store(to, normalised(level, n));
    }
  }

  // The affine map and noise of digits, straight from the image.
  template <class scalar_t>
  FASTSSL_TEAM void write_warped(const uint8_t* image, const Normal (&normals)[K], scalar_t* view,
                                 bool channels_last) {
    const Words turn = draws(kWarpBlock), shift = draws(kWarpBlock + 1);
    const int count = plan.warps, size = S, P = pixels();
    const int32_t* table = integers + plan.warp_table;
    const int angle = below(turn.x, count);
    const Warp map =
        warp(table[angle], table[count + angle], table[2 * count + below(turn.y, count)],
             table[3 * count + below(turn.z, count)], table[4 * count + below(shift.x, count)],
             table[4 * count + below(shift.y, count)], S);
    const int32_t* quantiles = integers + plan.noise_table;
    const int noises = plan.noises;
    const Draws words_of = draws;
    team.each((K * P + 7) / 8, [=](int i) FASTSSL_INNER {
      const Words words = noises == 0 ? Words{} : words_of(kNoiseBlock + uint32_t(i));
      for (int half = 0; half < 8; ++half) {
        const int e = 8 * i + half;
        if (e >= K * P) return;
        const int k = e / P, p = e % P;
        int32_t level = warped(image + k * P, map, p % size, p / size, size);
        if (noises != 0) level += noise(words, half, quantiles, noises);
        scalar_t* to = view + (channels_last ? p * K + k : e);
        if constexpr (sizeof(scalar_t) == 1) {
          *to = rounded_level(level);
        } else {
          Team::store(to, normalised_fraction(level, K == 1 || k == 0 ? normals[0]
                                                     : k == 1         ? normals[1 % K]
                                                                      : normals[2 % K]));
        }
      }
    });
  }

  template <class scalar_t>
  FASTSSL_TEAM void run(const uint8_t* image, const Normal (&normals)[K], scalar_t* view,
                        bool channels_last) {
    if (plan.warps > 0) return write_warped(image, normals, view, channels_last);
    if (plan.crop > 0) {
      crop(image);
    } else {
      weak(image);
    }
    if (plan.jitters > 0) jitter();
    if (plan.operations > 0) rand_augment();
    if (plan.cutout_most > 0) cutout();
    write(normals, view, channels_last);
  }
};

}  // namespace fastssl
