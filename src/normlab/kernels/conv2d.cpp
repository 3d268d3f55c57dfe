// conv2d and its gradients on lane tensors: any kernel, stride and padding.
#include "convolution.h"
#include "stage.h"
#include "tile.h"

namespace normlab {
namespace {

Geometry geometry_of(const Shape& x, const Tensor& weight, const Numbers& numbers) {
  STD_TORCH_CHECK(numbers.size() == 4, "expected stride and padding, two numbers each");
  STD_TORCH_CHECK(weight.dim() == 4 && weight.size(1) == x.channels, "expected weight (out, ", x.channels, ", kh, kw)");
  Geometry g{{weight.size(0), weight.size(1), weight.size(2), weight.size(3)},
             {numbers[0], numbers[1]},
             {numbers[2], numbers[3]},
             {x.height, x.width},
             {}};
  const auto out = [&](int64_t length, int64_t kernel, int axis) {
    const int64_t padded = length + 2 * g.padding[axis];
    STD_TORCH_CHECK(kernel > 0 && g.stride[axis] > 0 && g.padding[axis] >= 0 && padded >= kernel,
                    "expected a kernel within the image");
    return (padded - kernel) / g.stride[axis] + 1;
  };
  g.out = {out(x.height, g.filter.height, 0), out(x.width, g.filter.width, 1)};
  return g;
}

std::unique_ptr<Convolution> convolution(const Geometry& g, const float* weight, const float* bias, bool backward) {
  return winograd_pays(g) ? winograd(g, weight, bias, backward) : direct(g, weight, bias, backward);
}

constexpr int64_t CHUNKS = 16;
// Partial sums of a batch: as many whatever the number of threads, so that the sum is the same.

}  // namespace

Tensor conv2d(const Tensor& x, const Tensor& weight, const MaybeTensor& bias, const Numbers& geometry, const After& after) {
  const Shape shape(x);
  STD_TORCH_CHECK(x.dim() == 5, "expected images to convolve");
  const Geometry g = geometry_of(shape, weight, geometry);
  const int64_t outputs = g.filter.outputs, block_out = outputs * g.out.plane();
  Tensor out = unwritten({shape.blocks, outputs, g.out.height, g.out.width, LANES});
  const auto computed = convolution(g, numbers(weight), numbers(bias, outputs), false);
  const vec* const from = vectors(x);
  vec* const to = written(out);
  parallel(shape.blocks, [&](int64_t block) {
    computed->forward(from + block * shape.block(), to + block * block_out);
    if (after) after(block, (const float*)(to + block * block_out));
  });
  return out;
}

Gradients conv2d_backward(const Gradient& gradient, const Tensor& x, const Tensor& weight, const Numbers& geometry,
                          bool of_input, bool of_weight) {
  const Shape in(x);
  const Geometry g = geometry_of(in, weight, geometry);
  const int64_t outputs = g.filter.outputs, plane = g.out.plane();
  const auto computed = convolution(g, numbers(weight), nullptr, true);
  Gradients result;
  vec* to = nullptr;
  if (of_input) {
    result.input = unwritten_like(x);
    to = written(*result.input);
  }
  const Cut chunks{in.blocks, std::min(in.blocks, CHUNKS)};
  const int64_t sums_of_weight = of_weight ? computed->sums() : 0, sums_of_bias = of_weight ? outputs : 0;
  const int64_t numbers_each = sums_of_weight + sums_of_bias;
  std::vector<float> partial(chunks.parts * numbers_each);
  const vec* const from = vectors(x);
  parallel(chunks.parts, [&](int64_t chunk) {
    float* const sums = of_weight ? partial.data() + chunk * numbers_each : nullptr;
    vec* const room = scratch<0>(outputs * plane);
    for (int64_t block = chunks.begin(chunk); block < chunks.begin(chunk + 1); ++block) {
      const vec* const of_block = (const vec*)gradient(block, (float*)room);
      computed->backward(from + block * in.block(), of_block, to ? to + block * in.block() : nullptr, sums);
      for (int64_t output = 0; output < sums_of_bias; ++output) {
        sums[sums_of_weight + output] += lane_sum(total(of_block + output * plane, plane));
      }
    }
  });
  if (of_weight) {
    result.weight = unwritten({outputs, g.filter.inputs, g.filter.height, g.filter.width});
    result.bias = unwritten({outputs});
    for (int64_t chunk = 1; chunk < chunks.parts; ++chunk) {
      for (int64_t i = 0; i < numbers_each; ++i) partial[i] += partial[chunk * numbers_each + i];
    }
    computed->weight_gradient(partial.data(), static_cast<float*>(result.weight->data_ptr()));
    std::copy_n(partial.data() + sums_of_weight, outputs, static_cast<float*>(result.bias->data_ptr()));
  }
  return result;
}

}  // namespace normlab
