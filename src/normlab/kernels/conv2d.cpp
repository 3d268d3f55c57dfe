// conv2d and its gradients on lane tensors: any kernel, stride and padding.
#include "stage.h"
#include "tile.h"

namespace normlab {
namespace {

constexpr Multiplies<true> UNIT_STRIDE;
constexpr Multiplies<false> ANY_STRIDE;

struct Geometry {
  int64_t stride[2], padding[2];
};

Geometry geometry_of(const Numbers& numbers) {
  STD_TORCH_CHECK(numbers.size() == 4, "expected stride and padding, two numbers each");
  return {{numbers[0], numbers[1]}, {numbers[2], numbers[3]}};
}

// Along one axis, the taps k = k0, k0 + dk, ... that reach an output position, and the inputs b0, b0 + db, ... that
// they read there.
struct Taps {
  int64_t k0, dk, count, b0, db;
};

// Along one axis, in two directions: forward the outputs are the convolution's, read every tap and step by the
// stride in the input; backward they are its inputs, come in `stride` phases, and read every stride-th tap.
struct Axis {
  bool backward;
  int64_t stride, padding, kernel, in, out;

  int64_t phases() const { return backward ? std::min(stride, out) : 1; }
  int64_t out_step() const { return backward ? stride : 1; }
  int64_t in_step() const { return backward ? 1 : stride; }
  int64_t columns(int64_t phase) const { return backward ? (out - phase + stride - 1) / stride : out; }

  // All taps of an output position, those that read outside of the input included.
  Taps taps(int64_t position) const {
    if (!backward) return {0, 1, kernel, position * stride - padding, 1};
    const int64_t first = (position + padding) % stride;
    return {first, stride, first < kernel ? (kernel - first - 1) / stride + 1 : 0, (position + padding - first) / stride,
            -1};
  }
  // Those of them that read inside.
  Taps inside(int64_t position) const {
    Taps all = taps(position);
    while (all.count && !(0 <= all.b0 && all.b0 < in)) {
      if (all.db > 0 ? all.b0 >= in : all.b0 < 0) return {0, 1, 0, 0, 1};
      all.k0 += all.dk;
      all.b0 += all.db;
      --all.count;
    }
    while (all.count) {
      const int64_t last = all.b0 + (all.count - 1) * all.db;
      if (0 <= last && last < in) break;
      --all.count;
    }
    return all;
  }
};

// What a plane of outputs is made from; the same for forward (reductions are input channels) and backward (output
// channels).
struct Plan {
  Axis rows, columns;
  int64_t reductions, kernel;  // kernel: taps in all
  Tiling tiles;
  const float* weight;  // packed: by tile of outputs, then (reductions, kh, kw, outputs of the tile)
  const float* bias;
};

// Neighbouring columns of a row, and the neighbouring taps that reach the input from all of them.
struct Run {
  int64_t in, tap, out, taps, columns;
  bool add;
};

// The runs of every row: tile by tile, and in each the taps that its whole width shares come first.
std::vector<Run> runs_of(const Axis& axis, const Cut& tiles) {
  std::vector<Run> runs;
  for (int64_t phase = 0; phase < axis.phases(); ++phase) {
    const Taps taps = axis.taps(phase);
    const int64_t in_step = axis.in_step();
    const Cut cut{axis.columns(phase), tiles.parts};
    for (int64_t part = 0; part < cut.parts; ++part) {
      const int64_t begin = cut.begin(part), width = cut.size(part);
      if (!width) continue;
      const auto reach = [&](int64_t j) {  // the columns of the tile from which tap j is inside
        const int64_t base = taps.b0 + j * taps.db;
        const int64_t lo = base >= 0 ? 0 : (-base + in_step - 1) / in_step;
        const int64_t hi = base >= axis.in ? 0 : (axis.in - 1 - base) / in_step + 1;
        return std::pair{std::max<int64_t>(lo - begin, 0), std::min(hi - begin, width)};
      };
      const auto run = [&](int64_t j, int64_t count, int64_t lo, int64_t hi, bool add) {
        runs.push_back({taps.b0 + j * taps.db + (begin + lo) * in_step, taps.k0 + j * taps.dk,
                        phase + (begin + lo) * axis.out_step(), count, hi - lo, add});
      };
      const std::pair<int64_t, int64_t> whole{0, width};
      int64_t first = 0;
      while (first < taps.count && reach(first) != whole) ++first;
      int64_t end = first;
      while (end < taps.count && reach(end) == whole) ++end;
      run(first, end - first, 0, width, false);  // without any tap it writes the bias
      for (int64_t other = 0; other < taps.count; ++other) {
        if (first <= other && other < end) continue;
        const auto [lo, hi] = reach(other);
        if (lo < hi) run(other, 1, lo, hi, true);
      }
    }
  }
  return runs;
}

void planes(const Plan& plan, const std::vector<Run>& runs, const vec* in, vec* out) {
  const Axis &rows = plan.rows, &columns = plan.columns;
  const auto& multiplies = columns.in_step() == 1 ? UNIT_STRIDE.of : ANY_STRIDE.of;
  Product p{};
  p.in_column = columns.in_step();
  p.weight_output = 1;
  p.out_output = rows.out * columns.out;
  p.out_column = columns.out_step();
  for (int64_t tile = 0; tile < plan.tiles.outputs.parts; ++tile) {
    const int64_t first = plan.tiles.outputs.begin(tile), outputs = plan.tiles.outputs.size(tile);
    p.bias = plan.bias ? plan.bias + first : nullptr;
    for (int64_t row = 0; row < rows.out; ++row) {
      const Taps taps = rows.inside(row);
      const vec* const in_row = in + taps.b0 * columns.in;
      const float* const weight = plan.weight + first * plan.reductions * plan.kernel + taps.k0 * columns.kernel * outputs;
      vec* const out_row = out + (first * rows.out + row) * columns.out;
      p.in_i = taps.db * columns.in;
      p.weight_i = taps.dk * columns.kernel * outputs;
      p.i = taps.count;
      for (const Run& run : runs) {
        p.in = in_row + run.in;
        p.weight = weight + run.tap * outputs;
        p.out = out_row + run.out;
        p.r = plan.reductions;
        p.in_r = rows.in * columns.in;
        p.weight_r = plan.kernel * outputs;
        p.j = run.taps;
        p.in_j = columns.backward ? -1 : 1;
        p.weight_j = columns.out_step() * outputs;
        p.add = run.add;
        lengthen(p);
        multiplies[outputs - 1][run.columns - 1](p);
      }
    }
  }
}

// weight (out, in, taps) by tiles of outputs, or of inputs where the gradient flows back.
std::vector<float> packed(const float* weight, int64_t channels_out, int64_t channels_in, int64_t taps, const Cut& cut,
                          bool backward) {
  std::vector<float> packed(channels_out * channels_in * taps);
  const int64_t reductions = backward ? channels_out : channels_in;
  float* to = packed.data();
  for (int64_t tile = 0; tile < cut.parts; ++tile) {
    for (int64_t r = 0; r < reductions; ++r) {
      for (int64_t k = 0; k < taps; ++k) {
        for (int64_t o = cut.begin(tile); o < cut.begin(tile + 1); ++o) {
          *to++ = backward ? weight[(r * channels_in + o) * taps + k] : weight[(o * channels_in + r) * taps + k];
        }
      }
    }
  }
  return packed;
}

struct Sides {
  int64_t height, width;
};

Sides sides_out(const Shape& x, const Tensor& weight, const Geometry& g) {
  STD_TORCH_CHECK(weight.dim() == 4 && weight.size(1) == x.channels, "expected weight (out, ", x.channels, ", kh, kw)");
  const auto out = [&](int64_t length, int axis) {
    const int64_t kernel = weight.size(2 + axis), padded = length + 2 * g.padding[axis];
    STD_TORCH_CHECK(kernel > 0 && g.stride[axis] > 0 && g.padding[axis] >= 0 && padded >= kernel,
                    "expected a kernel within the image");
    return (padded - kernel) / g.stride[axis] + 1;
  };
  return {out(x.height, 0), out(x.width, 1)};
}

// All that is the same for every block.
struct Product2d {
  Plan plan;
  std::vector<Run> runs;
  std::vector<float> weight;

  Product2d(const Tensor& given, const float* bias, const Geometry& g, const Shape& x, const Sides& sides, bool backward) {
    const int64_t channels_out = given.size(0), channels_in = given.size(1), kh = given.size(2), kw = given.size(3);
    const Tiling tiles = backward ? tiling(channels_in, (x.width + g.stride[1] - 1) / g.stride[1])
                                  : tiling(channels_out, sides.width);
    weight = packed(numbers(given), channels_out, channels_in, kh * kw, tiles.outputs, backward);
    const auto axis = [&](int i, int64_t kernel, int64_t in, int64_t out) {
      return Axis{backward, g.stride[i], g.padding[i], kernel, backward ? out : in, backward ? in : out};
    };
    plan = {axis(0, kh, x.height, sides.height), axis(1, kw, x.width, sides.width),
            backward ? channels_out : channels_in, kh * kw, tiles, weight.data(), bias};
    runs = runs_of(plan.columns, tiles.columns);
  }
  void operator()(const vec* in, vec* out) const { planes(plan, runs, in, out); }
};

}  // namespace

Tensor conv2d(const Tensor& x, const Tensor& weight, const MaybeTensor& bias, const Numbers& geometry, const After& after) {
  const Shape shape(x);
  STD_TORCH_CHECK(x.dim() == 5, "expected images to convolve");
  const Geometry g = geometry_of(geometry);
  const Sides sides = sides_out(shape, weight, g);
  const int64_t outputs = weight.size(0), block_out = outputs * sides.height * sides.width;
  Tensor out = unwritten({shape.blocks, outputs, sides.height, sides.width, LANES});
  const Product2d product(weight, numbers(bias, outputs), g, shape, sides, false);
  const vec* const from = vectors(x);
  vec* const to = written(out);
  parallel(shape.blocks, [&](int64_t block) {
    product(from + block * shape.block(), to + block * block_out);
    if (after) after(block, (const float*)(to + block * block_out));
  });
  return out;
}

namespace {

// Of the weight gradient a tile is OUTPUTS output channels x TAPS (input channel, kh, kw), summed over all positions.
struct Correlation {
  const vec* in;  // padded
  const vec* gradient;
  int64_t plane, height, width, row_step, column_step;
  const int64_t* offset;  // of each tap in `in`
  vec* out;               // the image in each lane has its own
  int64_t out_output;
};

template <int OUTPUTS, int TAPS>
void correlate(const Correlation& c) {
  vec sum[OUTPUTS][TAPS] = {};
  const vec* in[TAPS];
  UNROLL for (int t = 0; t < TAPS; ++t) in[t] = c.in + c.offset[t];
  const vec* gradient = c.gradient;
  for (int64_t row = 0; row < c.height; ++row) {
    for (int64_t column = 0, at = row * c.row_step; column < c.width; ++column, at += c.column_step, ++gradient) {
      add_products(sum, [&](int o) { return gradient[o * c.plane]; }, [&](int t) { return in[t][at]; });
    }
  }
  UNROLL for (int o = 0; o < OUTPUTS; ++o) {
    UNROLL for (int t = 0; t < TAPS; ++t) c.out[o * c.out_output + t] = sum[o][t];
  }
}

using Correlate = void (*)(const Correlation&);
constexpr int MAX_TAPS = 8;

struct Correlates {
  Correlate of[MAX_OUTPUTS][MAX_TAPS];
  constexpr Correlates() : of{} { fill(std::make_index_sequence<MAX_OUTPUTS * MAX_TAPS>{}); }
  template <std::size_t... I>
  constexpr void fill(std::index_sequence<I...>) {
    ((of[I / MAX_TAPS][I % MAX_TAPS] = one<int(I / MAX_TAPS) + 1, int(I % MAX_TAPS) + 1>()), ...);
  }
  template <int OUTPUTS, int TAPS>
  static constexpr Correlate one() {
    if constexpr (OUTPUTS * TAPS <= ACCUMULATORS) return &correlate<OUTPUTS, TAPS>;
    return nullptr;
  }
};
constexpr Correlates CORRELATES;

// The block with zeros around each image.
void pad(const vec* x, const Shape& shape, const Geometry& g, vec* out) {
  const int64_t height = shape.height + 2 * g.padding[0], width = shape.width + 2 * g.padding[1];
  std::memset(static_cast<void*>(out), 0, shape.channels * height * width * sizeof(vec));
  for (int64_t channel = 0; channel < shape.channels; ++channel) {
    for (int64_t row = 0; row < shape.height; ++row) {
      std::memcpy(static_cast<void*>(out + (channel * height + row + g.padding[0]) * width + g.padding[1]),
                  x + (channel * shape.height + row) * shape.width, shape.width * sizeof(vec));
    }
  }
}

constexpr int64_t CHUNKS = 16;
// Partial sums of a batch: as many whatever the number of threads, so that the sum is the same.

}  // namespace

Gradients conv2d_backward(const Gradient& gradient, const Tensor& x, const Tensor& weight, const Numbers& geometry,
                          bool of_input, bool of_weight) {
  const Shape in(x);
  const Geometry g = geometry_of(geometry);
  const Sides sides = sides_out(in, weight, g);
  const int64_t outputs = weight.size(0), kh = weight.size(2), kw = weight.size(3);
  const Shape out(in.blocks, outputs, sides.height, sides.width);
  const int64_t taps = in.channels * kh * kw, padded_width = in.width + 2 * g.padding[1];
  const int64_t padded_plane = (in.height + 2 * g.padding[0]) * padded_width;
  const bool padding = g.padding[0] || g.padding[1];
  const Tiling tiles = tiling(outputs, taps, 1.0);
  Numbers offsets(taps);
  for (int64_t tap = 0; tap < taps; ++tap) {
    const int64_t channel = tap / (kh * kw), row = tap / kw % kh, column = tap % kw;
    offsets[tap] = channel * padded_plane + row * padded_width + column;
  }
  Gradients result;
  std::optional<Product2d> product;
  vec* to = nullptr;
  if (of_input) {
    result.input = unwritten_like(x);
    product.emplace(weight, nullptr, g, in, sides, true);
    to = written(*result.input);
  }
  const Cut chunks{in.blocks, std::min(in.blocks, CHUNKS)};
  const int64_t numbers_each = of_weight ? outputs * (taps + 1) : 0;
  std::vector<float> partial(chunks.parts * numbers_each);
  const vec* const from = vectors(x);
  parallel(chunks.parts, [&](int64_t chunk) {
    float* const sums = partial.data() + chunk * numbers_each;
    const int64_t sums_of_tile = (tiles.outputs.least() + 1) * taps;
    vec* const room = scratch<0>(out.block() + sums_of_tile + (padding ? in.channels * padded_plane : 0));
    vec* const by_lane = room + out.block();
    vec* const padded = by_lane + sums_of_tile;
    for (int64_t block = chunks.begin(chunk); block < chunks.begin(chunk + 1); ++block) {
      const vec* const of_block = (const vec*)gradient(block, (float*)room);
      if (of_input) (*product)(of_block, to + block * in.block());
      if (!of_weight) continue;
      const vec* image = from + block * in.block();
      if (padding) {
        pad(image, in, g, padded);
        image = padded;
      }
      for (int64_t i = 0; i < tiles.outputs.parts; ++i) {
        const int64_t output = tiles.outputs.begin(i), here = tiles.outputs.size(i);
        for (int64_t j = 0; j < tiles.columns.parts; ++j) {
          const int64_t tap = tiles.columns.begin(j);
          const Correlation c{image, of_block + output * out.plane(), out.plane(), out.height, out.width,
                              g.stride[0] * padded_width, g.stride[1], offsets.data() + tap, by_lane + tap, taps};
          CORRELATES.of[here - 1][tiles.columns.size(j) - 1](c);
        }
        add_lane_sums(by_lane, here * taps, sums + output * taps);
      }
      for (int64_t output = 0; output < outputs; ++output) {
        sums[outputs * taps + output] += lane_sum(total(of_block + output * out.plane(), out.plane()));
      }
    }
  });
  if (of_weight) {
    result.weight = unwritten({outputs, in.channels, kh, kw});
    result.bias = unwritten({outputs});
    float* const dweight = static_cast<float*>(result.weight->data_ptr());
    float* const dbias = static_cast<float*>(result.bias->data_ptr());
    for (int64_t chunk = 1; chunk < chunks.parts; ++chunk) {
      for (int64_t i = 0; i < numbers_each; ++i) partial[i] += partial[chunk * numbers_each + i];
    }
    std::copy_n(partial.data(), outputs * taps, dweight);
    std::copy_n(partial.data() + outputs * taps, outputs, dbias);
  }
  return result;
}

}  // namespace normlab
