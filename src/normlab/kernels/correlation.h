// What the ways to compute a convolution share.
#pragma once

#include "convolution.h"
#include "tile.h"

namespace [[gnu::visibility("hidden")]] normlab {

// The gradient of the weight: every output's gradient with every tap's input, summed over all positions.
class Correlation {
 public:
  explicit Correlation(const Geometry& geometry);

  int64_t room() const { return most_ * taps_; }

  // Adds the sums over all images of the block to (outputs, taps) numbers. `in` is padded; room for the images' own.
  void operator()(const vec* in, const vec* gradient, vec* room, float* sums) const;

 private:
  int64_t outputs_, taps_, most_, row_step_, column_step_;
  Sides out_;
  Tiling tiles_;
  std::vector<int64_t> offsets_;
};

}  // namespace normlab
