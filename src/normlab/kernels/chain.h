// Chains of stages, forward and backward.
#pragma once

#include "program.h"

namespace [[gnu::visibility("hidden")]] normlab {

// Of a stage: what it gave, what its norm got of its head, and the statistics of the batch.
struct Saved {
  Tensor result;
  MaybeTensor before, mean, var;
};

// The gradients of all stages' weight, bias, gamma, beta and residual from outside.
constexpr int64_t GRADIENTS = 5;
using Found = std::vector<MaybeTensor>;

std::vector<Saved> forward(const std::vector<Stage>& stages, const Tensor& x, int64_t count);

// Moves the running statistics among the stages' tensors by what was saved of a batch.
void keep_all(const std::vector<Stage>& stages, const Tensor& x, int64_t count, const std::vector<Saved>& saved);

// The gradient of x, where it is wanted; all others go into `found`. What was saved is let go as soon as it has served.
MaybeTensor backward(const std::vector<Stage>& stages, const Tensor& gradient, const Tensor& x, int64_t count,
                     std::vector<Saved> saved, bool needs_x, Found& found);

}  // namespace normlab
