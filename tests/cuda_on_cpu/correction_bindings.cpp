// The launchers of the correction network, whose structures become parameters with a name each.
#include "runtime/bind.h"

#include "kernels/complementary_correction.h"

using namespace fastssl;

namespace {

CorrectionShape correction_shape(int64_t N, int64_t C, int64_t D, int64_t R, int64_t E, int64_t F,
                                 int64_t J) {
  return {N, C, D, {C, D, E, R + F, J}, {R, E, F, J, C}};
}

template <class scalar_t, class param_t, class acc_t>
cudaError_t correct(const scalar_t* raw_output, const scalar_t* features, const param_t* raw_weight,
                    const param_t* raw_bias, const param_t* feature1_weight,
                    const param_t* feature1_bias, const param_t* feature2_weight,
                    const param_t* feature2_bias, const param_t* join_weight,
                    const param_t* join_bias, const param_t* out_weight, const param_t* out_bias,
                    acc_t negative_slope, acc_t* workspace, scalar_t* corrected, int64_t N,
                    int64_t C, int64_t D, int64_t R, int64_t E, int64_t F, int64_t J,
                    cudaStream_t stream) {
  const CorrectionLayers<const param_t> parameters{
      {raw_weight, feature1_weight, feature2_weight, join_weight, out_weight},
      {raw_bias, feature1_bias, feature2_bias, join_bias, out_bias}};
  return cuda::complementary_correction(raw_output, features, parameters, negative_slope, workspace,
                                        corrected, correction_shape(N, C, D, R, E, F, J), stream);
}

template <class scalar_t, class param_t, class acc_t>
cudaError_t correct_backward(const scalar_t* grad, const scalar_t* raw_output,
                             const scalar_t* features, const param_t* raw_weight,
                             const param_t* raw_bias, const param_t* feature1_weight,
                             const param_t* feature1_bias, const param_t* feature2_weight,
                             const param_t* feature2_bias, const param_t* join_weight,
                             const param_t* join_bias, const param_t* out_weight,
                             const param_t* out_bias, acc_t negative_slope, acc_t* workspace,
                             scalar_t* grad_raw_output, scalar_t* grad_features, acc_t* partials,
                             int64_t N, int64_t C, int64_t D, int64_t R, int64_t E, int64_t F,
                             int64_t J, cudaStream_t stream) {
  const CorrectionLayers<const param_t> parameters{
      {raw_weight, feature1_weight, feature2_weight, join_weight, out_weight},
      {raw_bias, feature1_bias, feature2_bias, join_bias, out_bias}};
  return cuda::complementary_correction_backward(
      grad, raw_output, features, parameters, negative_slope, workspace, grad_raw_output,
      grad_features, partials, correction_shape(N, C, D, R, E, F, J), stream);
}

template <class param_t, class acc_t>
cudaError_t sum_partials(const acc_t* partials, param_t* raw_weight, param_t* raw_bias,
                         param_t* feature1_weight, param_t* feature1_bias, param_t* feature2_weight,
                         param_t* feature2_bias, param_t* join_weight, param_t* join_bias,
                         param_t* out_weight, param_t* out_bias, int64_t N, int64_t C, int64_t D,
                         int64_t R, int64_t E, int64_t F, int64_t J, cudaStream_t stream) {
  const CorrectionLayers<param_t> gradients{
      {raw_weight, feature1_weight, feature2_weight, join_weight, out_weight},
      {raw_bias, feature1_bias, feature2_bias, join_bias, out_bias}};
  return cuda::sum_correction_partials(partials, gradients, correction_shape(N, C, D, R, E, F, J),
                                       stream);
}

template <class acc_t>
cudaError_t correction_sizes(int64_t* workspace, int64_t* count, int64_t* size, int64_t N,
                             int64_t C, int64_t D, int64_t R, int64_t E, int64_t F, int64_t J,
                             cudaStream_t) {
  const CorrectionShape shape = correction_shape(N, C, D, R, E, F, J);
  *workspace = cuda::correction_workspace<acc_t>(shape);
  *count = cuda::correction_partials_count(N);
  *size = cuda::correction_partials_size(shape);
  return cudaSuccess;
}

}  // namespace

#define CORRECTION_PARAMETERS                                               \
  "raw_weight, raw_bias, feature1_weight, feature1_bias, feature2_weight, " \
  "feature2_bias, join_weight, join_bias, out_weight, out_bias"
#define CORRECTION_SHAPE "N, C, D, R, E, F, J"
#define BIND_CORRECTION(suffix, scalar_t, param_t, acc_t)                                          \
  BIND("correct_" suffix,                                                                          \
       "raw_output, features, " CORRECTION_PARAMETERS                                              \
       ", negative_slope, workspace, corrected, " CORRECTION_SHAPE,                                \
       correct<scalar_t, param_t, acc_t>);                                                         \
  BIND("correct_backward_" suffix,                                                                 \
       "grad, raw_output, features, " CORRECTION_PARAMETERS                                        \
       ", negative_slope, workspace, grad_raw_output, grad_features, partials, " CORRECTION_SHAPE, \
       correct_backward<scalar_t, param_t, acc_t>)

BIND_CORRECTION("float32_float32", float, float, float);
BIND_CORRECTION("float64_float64", double, double, double);
BIND_CORRECTION("float16_float16", __half, __half, float);
BIND_CORRECTION("float16_float32", __half, float, float);
BIND_CORRECTION("bfloat16_bfloat16", __nv_bfloat16, __nv_bfloat16, float);
BIND_CORRECTION("bfloat16_float32", __nv_bfloat16, float, float);
BIND_FLOATING("sum_partials", "partials, " CORRECTION_PARAMETERS ", " CORRECTION_SHAPE,
              sum_partials<scalar_t, acc_t>);
BIND("correction_sizes_float32", "workspace, count, size, " CORRECTION_SHAPE,
     correction_sizes<float>);
BIND("correction_sizes_float64", "workspace, count, size, " CORRECTION_SHAPE,
     correction_sizes<double>);
