#include "../kernels/augment.h"

#include <algorithm>
#include <bit>
#include <vector>

#include "../torch_api.h"

namespace fastssl {
namespace {

constexpr const char* kName = "augment";

// A table of `rows` x `columns` numbers that starts at `offset` must lie in its tensor; what it
// holds cannot lead a kernel astray.
void check_table(const Tensor& table, int64_t offset, int64_t rows, int64_t columns) {
  FASTSSL_CHECK(
      rows >= 0 && rows <= table.numel() && offset >= 0 && offset + rows * columns <= table.numel(),
      kName, ": a table of ", rows, " x ", columns, " numbers at ", offset, " of ", table.numel());
}

void check_plan(const ViewPlan& plan, const Tensor& integers, const Tensor& factors, int S) {
  const auto expect = [](bool holds, const char* what) {
    FASTSSL_CHECK(holds, kName, ": a plan's ", what, " is out of range");
  };
  const auto within = [](int value, int least, int most) {
    return least <= value && value <= most;
  };
  expect(within(plan.translate, 0, S - 1), "translate");
  expect(within(plan.padding, 0, S), "padding");
  expect(plan.crop == 0 || within(plan.crop, 2, S), "crop");
  expect(within(plan.operations, 0, kMostOperations), "operations");
  expect(within(plan.cutout_least, 0, plan.cutout_most) && plan.cutout_most <= 2 * S, "cutout");
  expect(plan.operations == 0 || plan.levels > 0, "levels");
  expect(plan.jitters == 0 || plan.hues > 0, "hues");
  expect(within(plan.noises, 0, 1 << 16), "noises");
  check_table(integers, plan.angle_table, plan.angles, kFixedAffine);
  check_table(integers, plan.resize_table, plan.crop == 0 ? 0 : S, 3);
  check_table(factors, plan.jitter_table, plan.jitters, 3);
  check_table(integers, plan.hue_table, plan.hues, 1);
  check_table(integers, plan.level_table, plan.levels, kOperations * kFixedAffine);
  check_table(factors, plan.enhance_table, plan.levels, 1);
  check_table(integers, plan.warp_table, plan.warps, 5);
  check_table(integers, plan.noise_table, plan.noises, 1);
}

ViewPlans read_plans(const std::vector<int64_t>& numbers, const Tensor& integers,
                     const Tensor& factors, int S) {
  ViewPlans plans{};
  for (size_t v = 0; v < numbers.size() / kPlanFields; ++v) {
    int32_t fields[kPlanFields];
    std::copy_n(numbers.begin() + v * kPlanFields, kPlanFields, fields);
    plans.view[v] = std::bit_cast<ViewPlan>(fields);
    check_plan(plans.view[v], integers, factors, S);
  }
  return plans;
}

struct Augment {
  Tensor images, integers, factors, step, index, mean, std;
  ViewPlans plans;
  AugmentShape shape;
  Tensor views;
};

Augment prepare(const Tensor& images, const Tensor& integers, const Tensor& factors,
                const std::vector<int64_t>& plans, const Tensor& step, const Tensor& index,
                const Tensor& mean, const Tensor& std, ScalarType dtype, bool channels_last) {
  FASTSSL_CHECK(images.dim() == 4 && images.scalar_type() == ScalarType::Byte &&
                    (images.size(1) == 1 || images.size(1) == 3) &&
                    images.size(2) == images.size(3) && images.size(2) >= kLeastSize &&
                    images.size(2) <= kMostSize,
                kName, ": expected images uint8 [N, 1 or 3, S, S]");
  const int64_t N = images.size(0), K = images.size(1), S = images.size(2);
  const int64_t V = int64_t(plans.size()) / kPlanFields;
  FASTSSL_CHECK(V >= 1 && V <= kMostViews && int64_t(plans.size()) == V * kPlanFields, kName,
                ": expected plans of 1 to ", kMostViews, " views, ", kPlanFields, " numbers each");
  const auto expect = [&](const Tensor& tensor, ScalarType type, int64_t numel, const char* what) {
    FASTSSL_CHECK(tensor.scalar_type() == type && tensor.device() == images.device() &&
                      (numel < 0 || tensor.numel() == numel),
                  kName, ": expected ", what, " on the images' device");
  };
  expect(integers, ScalarType::Int, -1, "integers int32");
  expect(factors, ScalarType::Float, -1, "factors float32");
  expect(step, ScalarType::Long, 1, "step int64 []");
  expect(index, ScalarType::Long, N, "index int64 [N]");
  expect(mean, ScalarType::Float, K, "mean float32 [K]");
  expect(std, ScalarType::Float, K, "std float32 [K]");

  Augment call{as_contiguous(images),
               as_contiguous(integers),
               as_contiguous(factors),
               step,
               as_contiguous(index),
               as_contiguous(mean),
               as_contiguous(std),
               read_plans(plans, integers, factors, int(S)),
               {N, int(V), int(K), int(S), channels_last},
               {}};
  const int64_t sizes[] = {V, N, K, S, S}, P = S * S;
  call.views = channels_last
                   ? allocate_strided(images, sizes, {{N * K * P, K * P, 1, S * K, K}}, dtype)
                   : allocate(images, sizes, dtype);
  return call;
}

// Calls body.operator()<scalar_t>() for the dtype of the views.
template <class Types, class Body>
void dispatch_views(const Tensor& views, const Body& body) {
  switch (views.scalar_type()) {
    case ScalarType::Float:
      return body.template operator()<float>();
    case ScalarType::BFloat16:
      return body.template operator()<typename Types::bfloat16>();
    case ScalarType::Byte:
      return body.template operator()<uint8_t>();
    default:
      FASTSSL_CHECK(false, kName, ": expected dtype float32, bfloat16 or uint8");
  }
}

Tensor augment_cpu(const Tensor& images, const Tensor& integers, const Tensor& factors,
                   const std::vector<int64_t>& plans, int64_t seed, const Tensor& step,
                   const Tensor& index, const Tensor& mean, const Tensor& std, ScalarType dtype,
                   bool channels_last) {
  Augment call =
      prepare(images, integers, factors, plans, step, index, mean, std, dtype, channels_last);
  dispatch_views<CpuTypes>(call.views, [&]<class scalar_t>() {
    cpu::augment(pointer<uint8_t>(call.images), pointer<int32_t>(call.integers),
                 pointer<float>(call.factors), call.plans, uint64_t(seed),
                 pointer<int64_t>(call.step), pointer<int64_t>(call.index),
                 pointer<float>(call.mean), pointer<float>(call.std),
                 mutable_pointer<scalar_t>(call.views), call.shape);
  });
  return call.views;
}

#ifdef FASTSSL_WITH_CUDA
Tensor augment_cuda(const Tensor& images, const Tensor& integers, const Tensor& factors,
                    const std::vector<int64_t>& plans, int64_t seed, const Tensor& step,
                    const Tensor& index, const Tensor& mean, const Tensor& std, ScalarType dtype,
                    bool channels_last) {
  const aten::accelerator::DeviceGuard guard(images.get_device_index());
  Augment call =
      prepare(images, integers, factors, plans, step, index, mean, std, dtype, channels_last);
  dispatch_views<CudaTypes>(call.views, [&]<class scalar_t>() {
    check_launch(cuda::augment(pointer<uint8_t>(call.images), pointer<int32_t>(call.integers),
                               pointer<float>(call.factors), call.plans, uint64_t(seed),
                               pointer<int64_t>(call.step), pointer<int64_t>(call.index),
                               pointer<float>(call.mean), pointer<float>(call.std),
                               mutable_pointer<scalar_t>(call.views), call.shape,
                               current_stream(call.images)),
                 kName);
  });
  return call.views;
}
#endif

}  // namespace
}  // namespace fastssl

STABLE_TORCH_LIBRARY_IMPL(fastssl, CPU, m) { m.impl("augment", TORCH_BOX(&fastssl::augment_cpu)); }
#ifdef FASTSSL_WITH_CUDA
STABLE_TORCH_LIBRARY_IMPL(fastssl, CUDA, m) {
  m.impl("augment", TORCH_BOX(&fastssl::augment_cuda));
}
#endif
