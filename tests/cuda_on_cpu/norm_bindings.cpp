// The launchers of batch norm, whose structures become parameters with a name each.
#include "runtime/bind.h"

#include "kernels/batch_norm_leaky_relu.h"

using namespace fastssl;

namespace {

template <class scalar_t, class acc_t>
cudaError_t moments(const scalar_t* maps, double* workspace, acc_t* mean, acc_t* variance,
                    int64_t N, int64_t K, int64_t H, int64_t W, int64_t pool, cudaStream_t stream) {
  return cuda::batch_moments(maps, workspace, mean, variance, {N, K, H, W, pool}, stream);
}

template <class scalar_t, class acc_t>
cudaError_t norm(const scalar_t* maps, const acc_t* weight, const acc_t* bias, const acc_t* mean,
                 const acc_t* variance, double eps, acc_t negative_slope, scalar_t* output,
                 int64_t N, int64_t K, int64_t H, int64_t W, int64_t pool, cudaStream_t stream) {
  const NormChannels<acc_t> channels{weight, bias, mean, variance};
  return cuda::batch_norm_leaky_relu(maps, channels, eps, negative_slope, output,
                                     {N, K, H, W, pool}, stream);
}

template <class scalar_t, class acc_t>
cudaError_t norm_backward(const scalar_t* grad, const scalar_t* maps, const acc_t* weight,
                          const acc_t* bias, const acc_t* mean, const acc_t* variance, double eps,
                          acc_t negative_slope, double* workspace, scalar_t* grad_maps,
                          acc_t* grad_weight, acc_t* grad_bias, int64_t N, int64_t K, int64_t H,
                          int64_t W, int64_t pool, cudaStream_t stream) {
  const NormChannels<acc_t> channels{weight, bias, mean, variance};
  return cuda::batch_norm_leaky_relu_backward(grad, maps, channels, eps, negative_slope, workspace,
                                              grad_maps, grad_weight, grad_bias, {N, K, H, W, pool},
                                              stream);
}

}  // namespace

BIND(
    "batch_norm_workspace", "elements, N, K, H, W, pool",
    +[](int64_t* elements, int64_t N, int64_t K, int64_t H, int64_t W, int64_t pool, cudaStream_t) {
      *elements = cuda::batch_norm_workspace({N, K, H, W, pool});
      return cudaSuccess;
    });
BIND_FLOATING("batch_moments", "maps, workspace, mean, variance, N, K, H, W, pool",
              moments<scalar_t, acc_t>);
BIND_FLOATING("batch_norm_leaky_relu",
              "maps, weight, bias, mean, variance, eps, negative_slope, output, N, K, H, W, pool",
              norm<scalar_t, acc_t>);
BIND_FLOATING("batch_norm_leaky_relu_backward",
              "grad, maps, weight, bias, mean, variance, eps, negative_slope, workspace, "
              "grad_maps, grad_weight, grad_bias, N, K, H, W, pool",
              norm_backward<scalar_t, acc_t>);
