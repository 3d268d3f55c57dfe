// What a training step ends with.
#pragma once

#include "lanes.h"

namespace [[gnu::visibility("hidden")]] normlab {

// Mean loss and number of right answers, float64 (2,), and the gradient of the mean loss. A tie is right where the
// first of the largest logits is.
std::tuple<Tensor, Tensor> cross_entropy(const Tensor& logits, int64_t count, const Tensor& targets);

// The Euclidean norm of all tensors together.
double total_norm(const std::vector<Tensor>& tensors);

}  // namespace normlab
