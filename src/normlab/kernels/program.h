// A chain of stages as `program.py` writes it.
#pragma once

#include "stage.h"

namespace [[gnu::visibility("hidden")]] normlab {

enum Head { NO_HEAD, CONVOLUTION, LINEAR };
enum Norm { NO_NORM, BATCH, FIXED };
enum Tracking { UNTRACKED, FINITE_ONLY, ALWAYS };

struct Stage {
  int64_t head, tracking, inner_residual, flatten, needs_gradient;
  Norm norm;
  Numbers geometry;
  Numbers sources;  // stages whose results are its input, side by side; -1 is the input of the chain
  MaybeTensor weight, bias, tracked, nonfinite;
  Epilogue epilogue;  // mean and var: those that are kept, or fixed
  double share;
};

std::vector<Stage> stages_of(const Numbers& program, const std::vector<Tensor>& tensors,
                             const std::vector<double>& factors);

}  // namespace normlab
