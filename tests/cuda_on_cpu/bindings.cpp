// The launchers of csrc/kernels, bound for the tests of the ops; runtime/bind.h explains the lines.
#include "runtime/bind.h"

#include "kernels/entropy.h"
#include "kernels/joint_distribution.h"
#include "kernels/kl_divergence.h"
#include "kernels/mutual_information.h"
#include "kernels/pseudo_label_cross_entropy.h"
#include "kernels/row_loss.h"
#include "kernels/softmax_hessian_product.h"
#include "kernels/softmax_mse.h"
#include "kernels/unit_perturbation.h"
#include "kernels/weighted_cross_entropy.h"

using namespace fastssl;

BIND_FLOATING("entropy", "logits, gradient, workspace, loss, N, C", cuda::entropy<scalar_t, acc_t>);
BIND_FLOATING("joint_partials", "logits_a, logits_b, partials, N, C, V",
              cuda::joint_partials<scalar_t, acc_t>);
BIND_FLOATING("joint_gradients", "grad_joint, grad, logits_a, logits_b, grad_a, grad_b, N, C, V",
              cuda::joint_gradients<scalar_t, acc_t>);
BIND_FLOATING("pooled_softmax", "logits, probabilities, N, C, V",
              cuda::pooled_softmax<scalar_t, acc_t>);
BIND_FLOATING("softmax_gradient", "logits, t, grad, scale, gradient, N, C, V",
              cuda::softmax_gradient<scalar_t, acc_t>);
BIND("symmetrize_float32", "partials, count, scale, joint, C", cuda::symmetrize<float>);
BIND("symmetrize_float64", "partials, count, scale, joint, C", cuda::symmetrize<double>);
BIND_FLOATING("kl_divergence", "target_logits, logits, gradient, workspace, loss, N, C",
              cuda::kl_divergence<scalar_t, acc_t>);
BIND("mutual_information_float32", "joint, log_marginals, rows, information, C",
     cuda::mutual_information<float>);
BIND("mutual_information_float64", "joint, log_marginals, rows, information, C",
     cuda::mutual_information<double>);
BIND("mutual_information_grad_joint_float32", "joint, log_marginals, grad_joint, C",
     cuda::mutual_information_grad_joint<float>);
BIND("mutual_information_grad_joint_float64", "joint, log_marginals, grad_joint, C",
     cuda::mutual_information_grad_joint<double>);
BIND_FLOATING("pseudo_label_cross_entropy",
              "weak_logits, strong_logits, threshold, gradient, workspace, loss, kept, N, C, V",
              cuda::pseudo_label_cross_entropy<scalar_t, acc_t>);
BIND_FLOATING("scale_gradient", "grad, divisor, gradient, scaled, count",
              cuda::scale_gradient<scalar_t, acc_t>);
BIND_FLOATING("softmax_hessian_product", "logits, tangent, product, N, C",
              cuda::softmax_hessian_product<scalar_t>);
BIND_FLOATING("softmax_mse", "target_logits, logits, gradient, workspace, loss, N, C",
              cuda::softmax_mse<scalar_t, acc_t>);
BIND_FLOATING("unit_perturbation", "direction, radius, perturbation, N, D",
              cuda::unit_perturbation<scalar_t, acc_t>);
BIND_FLOATING("weighted_cross_entropy", "logits, targets, weights, gradient, workspace, loss, N, C",
              cuda::weighted_cross_entropy<scalar_t, scalar_t, acc_t>);
BIND_FLOATING("weighted_cross_entropy_wide",
              "logits, targets, weights, gradient, workspace, loss, N, C",
              cuda::weighted_cross_entropy<scalar_t, acc_t, acc_t>);
