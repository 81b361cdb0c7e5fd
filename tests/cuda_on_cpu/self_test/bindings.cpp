// The pattern of a bindings file; runtime/bind.h explains it.
#include "runtime/bind.h"
#include "self_test/row_softmax.h"

BIND_FLOATING("row_softmax", "logits, probabilities, mean, N, C",
              fastssl::cuda::row_softmax<scalar_t, acc_t>);
