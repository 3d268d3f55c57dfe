// Convolutions as they are written: every tap of every output; any kernel, stride and padding.
#include "correlation.h"

namespace normlab {
namespace {

constexpr Multiplies<true> UNIT_STRIDE;
constexpr Multiplies<false> ANY_STRIDE;

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

// Neighbouring columns of a row, and the neighbouring taps that reach the input from all of them.
struct Run {
  int64_t in, tap, out, taps, columns;
  bool add;
};

// A convolution, or backward the gradient of its input: the same for forward (reductions are input channels) and backward
// (output channels).
class Product2d {
 public:
  Product2d(const Geometry& geometry, const float* weight, const float* bias, bool backward);

  void operator()(const vec* in, vec* out) const;

 private:
  Axis rows_, columns_;
  int64_t reductions_, taps_;
  Tiling tiles_;
  std::vector<float> weight_;  // by tile of outputs, then (reductions, kh, kw, outputs of the tile)
  const float* bias_;
  std::vector<Run> runs_;
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

// weight (out, in, taps) by tiles of outputs, or of inputs where the gradient flows back.
std::vector<float> packed(const float* weight, const Filter& filter, const Cut& cut, bool backward) {
  const int64_t taps = filter.height * filter.width, reductions = backward ? filter.outputs : filter.inputs;
  std::vector<float> packed(filter.outputs * filter.taps());
  float* to = packed.data();
  for (int64_t tile = 0; tile < cut.parts; ++tile) {
    for (int64_t r = 0; r < reductions; ++r) {
      for (int64_t k = 0; k < taps; ++k) {
        for (int64_t o = cut.begin(tile); o < cut.begin(tile + 1); ++o) {
          *to++ = backward ? weight[(r * filter.inputs + o) * taps + k] : weight[(o * filter.inputs + r) * taps + k];
        }
      }
    }
  }
  return packed;
}

Product2d::Product2d(const Geometry& g, const float* weight, const float* bias, bool backward)
    : rows_{backward, g.stride[0], g.padding[0], g.filter.height, backward ? g.out.height : g.in.height,
            backward ? g.in.height : g.out.height},
      columns_{backward, g.stride[1], g.padding[1], g.filter.width, backward ? g.out.width : g.in.width,
               backward ? g.in.width : g.out.width},
      reductions_(backward ? g.filter.outputs : g.filter.inputs),
      taps_(g.filter.height * g.filter.width),
      tiles_(backward ? tiling(g.filter.inputs, (g.in.width + g.stride[1] - 1) / g.stride[1])
                      : tiling(g.filter.outputs, g.out.width)),
      weight_(packed(weight, g.filter, tiles_.outputs, backward)),
      bias_(bias),
      runs_(runs_of(columns_, tiles_.columns)) {}

void Product2d::operator()(const vec* in, vec* out) const {
  const auto& multiplies = columns_.in_step() == 1 ? UNIT_STRIDE.of : ANY_STRIDE.of;
  Product p{};
  p.in_column = columns_.in_step();
  p.weight_output = 1;
  p.out_output = rows_.out * columns_.out;
  p.out_column = columns_.out_step();
  for (int64_t tile = 0; tile < tiles_.outputs.parts; ++tile) {
    const int64_t first = tiles_.outputs.begin(tile), outputs = tiles_.outputs.size(tile);
    p.bias = bias_ ? bias_ + first : nullptr;
    for (int64_t row = 0; row < rows_.out; ++row) {
      const Taps taps = rows_.inside(row);
      const vec* const in_row = in + taps.b0 * columns_.in;
      const float* const weight = weight_.data() + (first * reductions_ * taps_ + taps.k0 * columns_.kernel * outputs);
      vec* const out_row = out + (first * rows_.out + row) * columns_.out;
      p.in_i = taps.db * columns_.in;
      p.weight_i = taps.dk * columns_.kernel * outputs;
      p.i = taps.count;
      for (const Run& run : runs_) {
        p.in = in_row + run.in;
        p.weight = weight + run.tap * outputs;
        p.out = out_row + run.out;
        p.r = reductions_;
        p.in_r = rows_.in * columns_.in;
        p.weight_r = taps_ * outputs;
        p.j = run.taps;
        p.in_j = columns_.backward ? -1 : 1;
        p.weight_j = columns_.out_step() * outputs;
        p.add = run.add;
        lengthen(p);
        multiplies[outputs - 1][run.columns - 1](p);
      }
    }
  }
}

// The block with zeros around each image.
void pad(const vec* x, const Geometry& g, vec* out) {
  const auto [height, width] = g.padded();
  std::memset(static_cast<void*>(out), 0, g.filter.inputs * height * width * sizeof(vec));
  for (int64_t channel = 0; channel < g.filter.inputs; ++channel) {
    for (int64_t row = 0; row < g.in.height; ++row) {
      std::memcpy(static_cast<void*>(out + (channel * height + row + g.padding[0]) * width + g.padding[1]),
                  x + (channel * g.in.height + row) * g.in.width, g.in.width * sizeof(vec));
    }
  }
}

class Direct final : public Convolution {
 public:
  Direct(const Geometry& geometry, const float* weight, const float* bias, bool backward)
      : geometry_(geometry), product_(geometry, weight, bias, backward), correlation_(geometry) {}

  void forward(const vec* x, vec* out) const override { product_(x, out); }

  void backward(const vec* x, const vec* gradient, vec* dx, float* sums) const override {
    const Geometry& g = geometry_;
    if (dx) product_(gradient, dx);
    if (!sums) return;
    vec* const room = scratch<4>(correlation_.room() + g.filter.inputs * g.padded().plane());
    if (g.padding[0] || g.padding[1]) {
      vec* const padded = room + correlation_.room();
      pad(x, g, padded);
      x = padded;
    }
    correlation_(x, gradient, room, sums);
  }

  int64_t sums() const override { return geometry_.filter.outputs * geometry_.filter.taps(); }
  void weight_gradient(const float* sums, float* dweight) const override { std::copy_n(sums, this->sums(), dweight); }

 private:
  Geometry geometry_;
  Product2d product_;
  Correlation correlation_;
};

}  // namespace

std::unique_ptr<Convolution> direct(const Geometry& geometry, const float* weight, const float* bias, bool backward) {
  return std::make_unique<Direct>(geometry, weight, bias, backward);
}

}  // namespace normlab
