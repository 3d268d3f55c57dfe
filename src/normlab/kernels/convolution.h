// The convolution of a block of images, and the ways to compute it.
#pragma once

#include <memory>

#include "lanes.h"

namespace [[gnu::visibility("hidden")]] normlab {

// The shape of a weight (outputs, inputs, height, width).
struct Filter {
  int64_t outputs, inputs, height, width;
  int64_t taps() const { return inputs * height * width; }
};

struct Sides {
  int64_t height, width;
  int64_t plane() const { return height * width; }
};

// What is the same for every block: stride and padding by axis, and the images' sides on both ends.
struct Geometry {
  Filter filter;
  int64_t stride[2], padding[2];
  Sides in, out;
  Sides padded() const { return {in.height + 2 * padding[0], in.width + 2 * padding[1]}; }
};

// A weight as one way of computing keeps it, for one direction.
class Convolution {
 public:
  virtual ~Convolution() = default;

  virtual void forward(const vec* x, vec* out) const = 0;

  // The gradient of the input, where there is room for it, and sums over the block from which that of the weight is made,
  // onto what is there.
  virtual void backward(const vec* x, const vec* gradient, vec* dx, float* sums) const = 0;
  virtual int64_t sums() const = 0;
  virtual void weight_gradient(const float* sums, float* dweight) const = 0;
};

std::unique_ptr<Convolution> direct(const Geometry& geometry, const float* weight, const float* bias, bool backward);

// Kernels of three to five columns with few multiplications, see winograd.cpp.
std::unique_ptr<Convolution> winograd(const Geometry& geometry, const float* weight, const float* bias, bool backward);
bool winograd_pays(const Geometry& geometry);

}  // namespace normlab
