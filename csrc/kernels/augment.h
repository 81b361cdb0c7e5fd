// Views of images: every random choice, and what each pixel becomes.
//
// V views of N images of K channels, S x S pixels. The CPU and CUDA kernels call the functions of
// this file for every pixel, and run the one pipeline of augment_pipeline.h: random words and
// positions are integers, trigonometry and other tables come from the host, and the few floating
// operations round one at a time (CMakeLists.txt compiles both kernels without contraction), so
// that both write the same bits.
//
// "Pillow" names the function of that library whose result is reproduced.
#pragma once

#include <cstdint>

#ifdef FASTSSL_WITH_CUDA
#include <cuda_bf16.h>
#include <cuda_runtime_api.h>
#endif

namespace fastssl {

constexpr int kMostViews = 16;
constexpr int kLeastSize = 2, kMostSize = 160;  // S; two images of 160 x 160 x 3 fit shared memory
constexpr int kGrayLevels = 256;
constexpr int kFixedAffine = 6;  // numbers of a fixed-point affine map
constexpr int kMostOperations = 32;

// The 14 operations of RandAugment, in the order of their level tables (plans.py).
enum class Operation : int32_t {
  kAutoContrast,
  kBrightness,
  kColor,
  kContrast,
  kEqualize,
  kIdentity,
  kPosterize,
  kRotate,
  kSharpness,
  kShearX,
  kShearY,
  kSolarize,
  kTranslateX,
  kTranslateY,
  kCount
};
constexpr int kOperations = int(Operation::kCount);

// What one view may do to an image; a count of 0 is "not at all". A table is a count and where it
// starts in `integers` or `factors`. Plan of fastssl/ops/plans.py has the fields in this
// order, check_plan() of csrc/ops/augment.cpp bounds them.
struct ViewPlan {
  int32_t fill;                       // gray level of what lies outside the image
  int32_t angles, angle_table;        // integers [angles, 6]: rotations
  int32_t translate, padding, flip;   // pixels, pixels, whether
  int32_t crop, resize_table;         // side of a crop; integers [S, 3]: its way back to S
  int32_t jitters, jitter_table;      // factors [3, jitters]: brightness, contrast, saturation
  int32_t hues, hue_table;            // integers [hues]
  int32_t operations, chance;         // of RandAugment; each applied chance times in 2^16
  int32_t levels, level_table;        // integers [14, levels, 6]
  int32_t enhance_table;              // factors [levels]
  int32_t cutout_least, cutout_most;  // pixels; none if the most is 0
  int32_t cutout_fill;                // gray level
  int32_t warps, warp_table;          // integers [5, warps]: cos, sin, shrink, shear, shift
  int32_t noises, noise_table;        // integers [noises]: quantiles of the noise
};
constexpr int kPlanFields = sizeof(ViewPlan) / sizeof(int32_t);

struct ViewPlans {
  ViewPlan view[kMostViews];
};

// What all views of a call share.
struct AugmentShape {
  int64_t N;
  int V, K, S;
  bool channels_last;
};

// ---- random words -------------------------------------------------------------------------------

struct Words {
  uint32_t x, y, z, w;
};

// The random words of one view of one image: Philox-4x32-10 of the counter (index, step, view,
// block), as fastssl/data/philox.py.
struct Draws {
  uint64_t seed;
  uint32_t index, step, view;

  constexpr Words operator()(uint32_t block) const {
    uint32_t c0 = index, c1 = step, c2 = view, c3 = block;
    uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
    for (int round = 0; round < 10; ++round) {
      const uint64_t p0 = uint64_t(c0) * 0xD2511F53u, p1 = uint64_t(c2) * 0xCD9E8D57u;
      c0 = uint32_t(p1 >> 32) ^ c1 ^ k0;
      c1 = uint32_t(p1);
      c2 = uint32_t(p0 >> 32) ^ c3 ^ k1;
      c3 = uint32_t(p0);
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    return {c0, c1, c2, c3};
  }
};

// Which block of words decides what.
constexpr uint32_t kWeakBlock = 0;       // angle, shift x, shift y, flip
constexpr uint32_t kCropBlock = 1;       // x, y; hue; order of the jitters
constexpr uint32_t kJitterBlock = 2;     // brightness, contrast, saturation
constexpr uint32_t kCutoutBlock = 3;     // x, y, side
constexpr uint32_t kWarpBlock = 4;       // rotation, scale, shear; and the next one: shift x, y
constexpr uint32_t kOperationBlock = 8;  // operation, level, whether; one block each
constexpr uint32_t kNoiseBlock = 64;     // eight pixels each

// A word to an integer in [0, count).
constexpr int below(uint32_t word, int count) {
  return int(uint64_t(word) * uint32_t(count) >> 32);
}

// A word to an integer in [-most, most].
constexpr int within(uint32_t word, int most) { return below(word, 2 * most + 1) - most; }

// ---- where a pixel comes from -------------------------------------------------------------------

constexpr int kOutside = -1;

// Pillow Image.transform(AFFINE, NEAREST): (x, y) under a map in 16.16 fixed point, as a position
// y * S + x of the source.
constexpr int affine_source(const int32_t (&map)[kFixedAffine], int x, int y, int S) {
  const auto coordinate = [&](int32_t a, int32_t b, int32_t c) {
    return int32_t(uint32_t(a) * uint32_t(x) + uint32_t(b) * uint32_t(y) + uint32_t(c)) >> 16;
  };
  const int from_x = coordinate(map[0], map[1], map[2]);
  const int from_y = coordinate(map[3], map[4], map[5]);
  const bool inside = uint32_t(from_x) < uint32_t(S) && uint32_t(from_y) < uint32_t(S);
  return inside ? from_y * S + from_x : kOutside;
}

// A coordinate up to S - 1 outside the image, mirrored at the centre of the border pixels.
constexpr int reflect(int i, int S) {
  i = i < 0 ? -i : i;
  return i < S ? i : 2 * (S - 1) - i;
}

// Where column x (or row y) of a translated, then padded and cropped, then flipped image comes
// from.
constexpr int shifted_source(int x, int S, bool flip, int crop_shift, int translate_shift) {
  const int cropped = (flip ? S - 1 - x : x) + crop_shift;
  if (uint32_t(cropped) >= uint32_t(S)) return kOutside;
  return reflect(cropped + translate_shift, S);
}

// ---- gray levels and colours --------------------------------------------------------------------

constexpr uint8_t clip8(int x) { return uint8_t(x < 0 ? 0 : x > 255 ? 255 : x); }

// Pillow Image.convert("L").
constexpr int luma(int red, int green, int blue) {
  return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16;
}

// Pillow Image.blend, hence ImageEnhance: from `degenerate` at factor 0 past `pixel` at factor 1.
constexpr uint8_t blend(int degenerate, int pixel, float factor) {
  const float mixed = float(degenerate) + factor * float(pixel - degenerate);
  return uint8_t(int(mixed <= 0.f ? 0.f : mixed >= 255.f ? 255.f : mixed));
}

// Pillow ImageFilter.SMOOTH of a pixel, given it and the sum of the 3 x 3 pixels around it.
constexpr int smooth(int pixel, int sum) { return (2 * (sum + 4 * pixel) + 13) / 26; }

// Pillow ImageOps.autocontrast: gray level i of a channel whose levels span [low, high].
constexpr uint8_t stretched(int i, int low, int high) {
  if (high <= low) return uint8_t(i);
  const double scale = 255.0 / (high - low);
  const double offset = -low * scale;
  return clip8(int(double(i) * scale + offset));
}

// Pillow ImageOps.equalize: gray level i, of which `before` pixels of the channel are darker; the
// brightest level that occurs has `last` of its `total` pixels.
constexpr uint8_t equalized(int i, int before, int last, int total) {
  const int step = (total - last) / 255;
  return step == 0 ? uint8_t(i) : clip8((step / 2 + before) / step);
}

struct Colour {
  int red, green, blue;
};

// Pillow convert("HSV"), hue + shift modulo 256, convert("RGB"), without branches, so that a
// compiler can do several pixels at once. Pillow divides in double precision; of every hue and
// saturation that there are, single precision gives the same integer.
constexpr Colour shift_hue(Colour c, int shift) {
  const auto larger = [](int a, int b) { return a > b ? a : b; };
  const int value = larger(c.red, larger(c.green, c.blue));
  const int range = value + larger(-c.red, larger(-c.green, -c.blue));
  const float span = float(larger(range, 1));
  const float red = float(value - c.red) / span, green = float(value - c.green) / span;
  const float blue = float(value - c.blue) / span;
  const float sixths = c.red == value     ? blue - green
                       : c.green == value ? float(2.0 + double(red) - double(blue))
                                          : float(4.0 + double(green) - double(red));
  const float turn = sixths / 6.f;
  const int hue = (int((turn < 0.f ? turn + 1.f : turn) * 255.f) + shift) & 255;
  const int saturation = int(span / float(larger(value, 1)) * 255.f);

  const int sector = 2 * hue / 85;
  const float f = float(2 * hue - 85 * sector) / 85.f, s = float(saturation) / 255.f;
  const double v = double(value);
  const int p = int(v * (1.0 - double(s)) + 0.5);
  const int q = int(v * (1.0 - double(s * f)) + 0.5);
  const int t = int(v * (1.0 - double(s) * (1.0 - double(f))) + 0.5);
  // Sector 6, the end of the circle, is sector 0.
  const int r = sector == 1 ? q : sector == 2 || sector == 3 ? p : sector == 4 ? t : value;
  const int g = sector == 1 || sector == 2 ? value : sector == 3 ? q : sector % 6 == 0 ? t : p;
  const int b = sector == 2 ? t : sector == 3 || sector == 4 ? value : sector == 5 ? q : p;
  return range == 0 ? c : Colour{r, g, b};
}

// Pillow Image.resize(BILINEAR) enlarging: two neighbours with weights that sum to 2^22.
constexpr uint8_t interpolate(int first, int second, int32_t first_weight, int32_t second_weight) {
  const uint32_t sum = uint32_t(first) * uint32_t(first_weight) +
                       uint32_t(second) * uint32_t(second_weight) + (1u << 21);
  return clip8(int(sum >> 22));
}

// ---- the affine map of digits -------------------------------------------------------------------

constexpr int kWarpBits = 24;      // fraction of a map's numbers and of a coordinate
constexpr int kFractionBits = 12;  // of them, those that weigh the four neighbours
constexpr int kLevelBits = 16;     // fraction of a gray level, from here to the output

struct Warp {
  int64_t xx, xy, x, yx, yy, y;  // source x = (xx * X + xy * Y) / 2 + x, in X = 2x - (S - 1)
};

// shrink * rotation * shear, then the shifts.
constexpr Warp warp(int64_t cosine, int64_t sine, int64_t shrink, int64_t shear, int64_t shift_x,
                    int64_t shift_y, int S) {
  const auto times = [](int64_t a, int64_t b) { return (a * b) >> kWarpBits; };
  const int64_t centre = int64_t(S - 1) << (kWarpBits - 1);
  return {times(shrink, cosine), times(shrink, times(cosine, shear) - sine), shift_x + centre,
          times(shrink, sine),   times(shrink, times(sine, shear) + cosine), shift_y + centre};
}

// Bilinear, black outside: the gray level of one channel at (x, y) with kLevelBits of fraction.
constexpr int32_t warped(const uint8_t* channel, const Warp& map, int x, int y, int S) {
  const int64_t X = 2 * x - (S - 1), Y = 2 * y - (S - 1);
  const int64_t from_x = ((map.xx * X + map.xy * Y) >> 1) + map.x;
  const int64_t from_y = ((map.yx * X + map.yy * Y) >> 1) + map.y;
  const int64_t left = from_x >> kWarpBits, top = from_y >> kWarpBits;
  const auto pixel = [&](int64_t column, int64_t row) -> uint32_t {
    const bool inside = column >= 0 && column < S && row >= 0 && row < S;
    return inside ? channel[row * S + column] : 0;
  };
  constexpr uint32_t one = 1u << kFractionBits;
  const uint32_t u = uint32_t(from_x >> (kWarpBits - kFractionBits)) & (one - 1);
  const uint32_t v = uint32_t(from_y >> (kWarpBits - kFractionBits)) & (one - 1);
  const uint32_t upper = pixel(left, top) * (one - u) + pixel(left + 1, top) * u;
  const uint32_t lower = pixel(left, top + 1) * (one - u) + pixel(left + 1, top + 1) * u;
  constexpr int excess = 2 * kFractionBits - kLevelBits;
  return int32_t((upper * (one - v) + lower * v + (1u << (excess - 1))) >> excess);
}

// The noise that one of the eight 16-bit halves of a block of words stands for.
constexpr int32_t noise(const Words& words, int half, const int32_t* quantiles, int count) {
  const uint32_t pair = half < 4 ? (half < 2 ? words.x : words.y) : (half < 6 ? words.z : words.w);
  const uint32_t drawn = half % 2 == 0 ? pair & 0xffffu : pair >> 16;
  return quantiles[drawn * uint32_t(count) >> 16];
}

// ---- the output ---------------------------------------------------------------------------------

// Gray levels to a channel's zero mean and unit variance, mean and std of pixels in [0, 1].
struct Normal {
  float scale, bias;
};
constexpr Normal normal(float mean, float std) { return {1.f / (255.f * std), -mean / std}; }

// A gray level as the output holds it; with kLevelBits of fraction it is the same number 2^-16
// times as large, exactly.
constexpr float normalised(int level, Normal n) { return float(level) * n.scale + n.bias; }
constexpr float normalised_fraction(int32_t level, Normal n) {
  return float(level) * (n.scale * 0x1p-16f) + n.bias;
}
constexpr uint8_t rounded_level(int32_t level) {
  return clip8((level + (1 << (kLevelBits - 1))) >> kLevelBits);
}

}  // namespace fastssl

namespace fastssl::cpu {

template <class scalar_t>              // float, BFloat16, or uint8_t: gray levels, not normalised
void augment(const uint8_t* images,    // [N, K, S, S]
             const int32_t* integers,  // tables
             const float* factors,     // tables
             const ViewPlans& plans,   // [V]
             uint64_t seed,
             const int64_t* step,   // []
             const int64_t* index,  // [N]
             const float* mean,     // [K]
             const float* std,      // [K]
             scalar_t* views,       // [V, N, K, S, S] or, channels_last, [V, N, S, S, K]
             const AugmentShape& shape);

}  // namespace fastssl::cpu

#ifdef FASTSSL_WITH_CUDA
namespace fastssl::cuda {

template <class scalar_t>  // float, __nv_bfloat16 or uint8_t
cudaError_t augment(const uint8_t* images, const int32_t* integers, const float* factors,
                    const ViewPlans& plans, uint64_t seed, const int64_t* step,
                    const int64_t* index, const float* mean, const float* std, scalar_t* views,
                    const AugmentShape& shape, cudaStream_t stream);

}  // namespace fastssl::cuda
#endif
