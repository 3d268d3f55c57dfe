// The parts of a stage (see stage.py) that chain.cpp puts together. What is computed of a block of images is used
// while it is in the cache: statistics right behind the convolution, a gradient right before it.
#pragma once

#include <cmath>
#include <functional>

#include "lanes.h"

namespace [[gnu::visibility("hidden")]] normlab {

using Numbers = std::vector<int64_t>;
using MaybeTensor = std::optional<Tensor>;

// Is shown the outputs of each block as soon as they are there, by the thread that computed them.
using After = std::function<void(int64_t block, const float* outputs)>;

// Gives the gradient of a block's outputs: from memory, or computed into the room.
using Gradient = std::function<const float*(int64_t block, float* room)>;

// Those that were asked for.
struct Gradients {
  MaybeTensor input, weight, bias;
};

// Numbers: stride and padding, two each.
Tensor conv2d(const Tensor& x, const Tensor& weight, const MaybeTensor& bias, const Numbers& geometry, const After& after);
Gradients conv2d_backward(const Gradient& gradient, const Tensor& x, const Tensor& weight, const Numbers& geometry,
                          bool of_input, bool of_weight);

Tensor linear(const Tensor& x, const Tensor& weight, const MaybeTensor& bias);
Gradients linear_backward(const Tensor& gradient, const Tensor& x, const Tensor& weight, bool of_input, bool of_weight);

// Mean and biased variance (C,) of activation(y) over images and pixels, block by block, merged as in Chan, Golub &
// LeVeque 1983: never E[x^2] - E[x]^2.
class Statistics {
 public:
  Statistics(int64_t blocks, int64_t channels, int64_t count, int64_t activation);
  void add(int64_t block, const vec* y, int64_t plane);
  std::tuple<Tensor, Tensor> merged(int64_t plane) const;

 private:
  int64_t blocks_, channels_, count_, activation_;
  std::vector<double> means_, squares_;
};

// pool(mask * activation(scale * before(y) + shift + residual)), scale and shift those of batch normalization.
struct Epilogue {
  MaybeTensor mean, var, gamma, beta, residual, mask;
  double eps = 0;
  int64_t before = 0, activation = 0;
  bool batch = false;  // mean and var are this batch's own
  bool centers = true, scales = true;  // whether the norm takes off the mean, the deviation
  int64_t pool = 0;    // 0 none, 1 average, 2 maximum
  int64_t size[2] = {}, stride[2] = {}, padding[2] = {};
  bool count_padding = false;

  bool nothing() const { return !mean && !residual && !mask && !before && !activation && !pool; }
  bool tiles() const {  // windows that neither overlap nor leave a gap
    return size[0] == stride[0] && size[1] == stride[1] && !padding[0] && !padding[1];
  }
  bool in_pairs() const { return pool && tiles() && size[0] == 2 && size[1] == 2; }
  int64_t out(int64_t length, int axis) const;
  double inverse(float variance) const { return scales ? 1.0 / std::sqrt(double(variance) + eps) : 1.0; }

  Tensor forward(const Tensor& y) const;
};

// Its gradients. The activation is computed anew from y: neither the normalized nor the activated tensor is stored.
class EpilogueBackward {
 public:
  EpilogueBackward(const Epilogue& epilogue, const Tensor& gradient, const Tensor& y, int64_t count);
  void finish(int64_t block, vec* out) const;  // the gradient of a block of y
  Tensor input();                              // that of all of y, in the place of what `finish` reads

  MaybeTensor residual, gamma, beta;

 private:
  const Epilogue& epilogue_;
  Tensor y_, z_;  // z: the gradient at the activation
  int64_t count_;
  std::vector<float> scale_, middle_, factor_, offset_;
};

}  // namespace normlab
