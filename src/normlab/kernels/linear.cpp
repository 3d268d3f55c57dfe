// linear and its gradients on lane tensors (blocks, features, LANES). The columns of a tile are blocks of images.
#include "stage.h"
#include "tile.h"

namespace normlab {
namespace {

constexpr Multiplies<false> TILES;

// Reductions whose inputs stay in the nearest cache while the outputs pass by.
constexpr int64_t DEPTH = 64;
constexpr int64_t GROUPS = 4;
// Parts into which the outputs are divided among threads.

// out (blocks, outputs) = weight applied to in (blocks, reductions). Weights lie by tile of outputs: that of output o
// of the tile and reduction r at tile + o * weight_output + r * weight_r.
template <class F>
void product(const vec* in, const F& weight_of, const float* bias, vec* out, int64_t blocks, int64_t reductions,
             int64_t outputs, const Tiling& tiles) {
  const Cut groups{tiles.outputs.parts, std::min(GROUPS, tiles.outputs.parts)};
  const Cut depth{reductions, (reductions + DEPTH - 1) / DEPTH};
  parallel(groups.parts * tiles.columns.parts, [&](int64_t part) {
    const int64_t group = part % groups.parts, j = part / groups.parts;
    const int64_t block = tiles.columns.begin(j);
    Product p{};
    p.in_j = 1;
    p.in_column = reductions;
    p.out_output = 1;
    p.out_column = outputs;
    p.r = p.i = 1;
    for (int64_t d = 0; d < depth.parts; ++d) {
      p.in = in + block * reductions + depth.begin(d);
      p.j = depth.size(d);
      p.add = d > 0;
      for (int64_t i = groups.begin(group); i < groups.begin(group + 1); ++i) {
        const int64_t output = tiles.outputs.begin(i);
        weight_of(p, output, tiles.outputs.size(i), depth.begin(d));
        p.out = out + block * outputs + output;
        p.bias = bias ? bias + output : nullptr;
        TILES.of[tiles.outputs.size(i) - 1][tiles.columns.size(j) - 1](p);
      }
    }
  });
}

}  // namespace

Tensor linear(const Tensor& x, const Tensor& weight, const MaybeTensor& bias) {
  const Shape shape(x);
  STD_TORCH_CHECK(x.dim() == 3 && weight.dim() == 2 && weight.size(1) == shape.channels, "expected weight (out, ",
                  shape.channels, ")");
  const int64_t outputs = weight.size(0);
  Tensor out = unwritten({shape.blocks, outputs, LANES});
  const float* const rows = numbers(weight);
  const auto weight_of = [&](Product& p, int64_t output, int64_t, int64_t r) {
    p.weight = rows + output * shape.channels + r;
    p.weight_output = shape.channels;
    p.weight_j = 1;
  };
  product(vectors(x), weight_of, numbers(bias, outputs), written(out), shape.blocks, shape.channels, outputs,
          tiling(outputs, shape.blocks));
  return out;
}

namespace {

Tensor backward_input(const Tensor& gradient, const Tensor& weight) {
  const Shape shape(gradient);
  const int64_t inputs = weight.size(1);
  Tensor out = unwritten({shape.blocks, inputs, LANES});
  const Tiling tiles = tiling(inputs, shape.blocks);
  // A tile's weights side by side: in the matrix they lie a row apart, on few lines of the cache.
  const float* const rows = numbers(weight);
  std::vector<float> packed(shape.channels * inputs);
  float* to = packed.data();
  for (int64_t tile = 0; tile < tiles.outputs.parts; ++tile) {
    const int64_t size = tiles.outputs.size(tile);
    for (int64_t r = 0; r < shape.channels; ++r, to += size) {
      const float* const from = rows + r * inputs + tiles.outputs.begin(tile);
      for (int64_t o = 0; o < size; ++o) to[o] = from[o];
    }
  }
  const auto weight_of = [&](Product& p, int64_t input, int64_t size, int64_t r) {
    p.weight = packed.data() + input * shape.channels + r * size;
    p.weight_output = 1;
    p.weight_j = size;
  };
  product(vectors(gradient), weight_of, nullptr, written(out), shape.blocks, shape.channels, inputs, tiles);
  return out;
}

// Here a vector holds LANES inputs of one image: the sum over images then needs no sum over lanes.
constexpr int ROWS = ACCUMULATORS >= 24 ? 6 : 4;
constexpr int COLUMNS = ACCUMULATORS >= 24 ? 4 : 2;

template <int OUTPUTS>
void outer(const vec* x, const float* gradient, int64_t blocks, int64_t width, int64_t outputs, int64_t first,
           vec* out, int64_t columns) {
  for (int64_t column = 0; column < columns; column += COLUMNS) {
    vec sum[OUTPUTS][COLUMNS] = {};
    for (int64_t block = 0; block < blocks; ++block) {
      for (int64_t lane = 0; lane < LANES; ++lane) {
        const vec* row = x + (block * LANES + lane) * width + column;
        const float* g = gradient + (block * outputs + first) * LANES + lane;
        vec values[COLUMNS];
        UNROLL for (int c = 0; c < COLUMNS; ++c) values[c] = held(row[c]);
        UNROLL for (int o = 0; o < OUTPUTS; ++o) {
          UNROLL for (int c = 0; c < COLUMNS; ++c) sum[o][c] += g[o * LANES] * values[c];
        }
      }
    }
    UNROLL for (int o = 0; o < OUTPUTS; ++o) {
      UNROLL for (int c = 0; c < COLUMNS; ++c) out[o * width + column + c] = sum[o][c];
    }
  }
}

template <int OUTPUTS>
void outer_of(int64_t outputs_here, const vec* x, const float* gradient, int64_t blocks, int64_t width,
              int64_t outputs, int64_t first, vec* out, int64_t columns) {
  if (outputs_here == OUTPUTS) return outer<OUTPUTS>(x, gradient, blocks, width, outputs, first, out, columns);
  if constexpr (OUTPUTS > 1) {
    outer_of<OUTPUTS - 1>(outputs_here, x, gradient, blocks, width, outputs, first, out, columns);
  }
}

void backward_weight(const Tensor& gradient, const Tensor& x, Gradients& result) {
  const Shape in(x), out(gradient);
  const int64_t inputs = in.channels, outputs = out.channels;
  const int64_t width = ((inputs + LANES - 1) / LANES + COLUMNS - 1) / COLUMNS * COLUMNS;  // vectors of a row
  result.weight = unwritten({outputs, inputs});
  result.bias = unwritten({outputs});
  float* const dweight = static_cast<float*>(result.weight->data_ptr());
  float* const dbias = static_cast<float*>(result.bias->data_ptr());
  const vec *x_in = vectors(x), *g_in = vectors(gradient);
  vec* const rows = scratch<1>(in.blocks * LANES * width);  // x as (images, inputs)
  parallel(in.blocks, [&](int64_t block) {
    vec* const to = rows + block * LANES * width;
    for (int64_t i = 0; i < width; ++i) {
      vec tile[LANES];
      for (int64_t k = 0; k < LANES; ++k) {
        tile[k] = i * LANES + k < inputs ? x_in[block * inputs + i * LANES + k] : vec{};
      }
      transpose(tile);
      for (int64_t lane = 0; lane < LANES; ++lane) to[lane * width + i] = tile[lane];
    }
  });
  const float* const g = reinterpret_cast<const float*>(g_in);
  parallel((outputs + ROWS - 1) / ROWS, [&](int64_t part) {
    const int64_t first = part * ROWS, here = std::min<int64_t>(ROWS, outputs - first);
    vec* const sums = scratch<2>(ROWS * width);
    outer_of<ROWS>(here, rows, g, in.blocks, width, outputs, first, sums, width);
    for (int64_t o = 0; o < here; ++o) {
      std::memcpy(dweight + (first + o) * inputs, sums + o * width, inputs * sizeof(float));
      vec sum{};
      for (int64_t block = 0; block < in.blocks; ++block) sum += g_in[block * outputs + first + o];
      dbias[first + o] = lane_sum(sum);
    }
  });
}

}  // namespace

Gradients linear_backward(const Tensor& gradient, const Tensor& x, const Tensor& weight, bool of_input, bool of_weight) {
  STD_TORCH_CHECK(x.dim() == 3 && gradient.dim() == 3, "expected features, not images");
  STD_TORCH_CHECK(weight.dim() == 2 && weight.size(0) == gradient.size(1), "expected weight (", gradient.size(1), ", in)");
  Shape(gradient).expect(x.size(0), weight.size(0), 1, 1);
  Gradients result;
  if (of_input) result.input = backward_input(gradient, weight);
  if (of_weight) backward_weight(gradient, x, result);
  return result;
}

}  // namespace normlab
