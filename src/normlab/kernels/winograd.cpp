// Convolutions of stride 1 with three to five columns: along rows by Winograd's transforms, see points.h, so that at each
// point a convolution with a kernel of one column is left. A number that is not finite makes NaN of its neighbours too.
#include "correlation.h"
#include "points.h"

namespace normlab {
namespace {

// Rows in memory: `count` of each channel's, the first of which is number `first`.
struct Rows {
  int64_t first, count;
};

// The convolutions that are left, of images `width` wide; or backward the gradients of their inputs.
class Vertical {
 public:
  // weight(output, input, tap) gives numbers of all points, taps in the order in which they read rows.
  template <class F>
  Vertical(int64_t outputs, int64_t inputs, int64_t taps, int64_t padding, int64_t height_in, int64_t height_out,
           int64_t width, const F& weight)
      : inputs_(inputs),
        taps_(taps),
        padding_(padding),
        height_in_(height_in),
        width_(width),
        tiles_(tiling(outputs, height_out * width)),
        widest_((tiles_.columns.length + tiles_.columns.parts - 1) / tiles_.columns.parts),
        weights_(outputs * inputs * taps),
        weight_(POINTS * weights_) {
    float* to = weight_.data();
    for (int64_t tile = 0; tile < tiles_.outputs.parts; ++tile) {
      for (int64_t i = 0; i < inputs; ++i) {
        for (int64_t tap = 0; tap < taps; ++tap) {
          for (int64_t o = tiles_.outputs.begin(tile); o < tiles_.outputs.begin(tile + 1); ++o, ++to) {
            const std::array<double, POINTS> at_points = weight(o, i, tap);
            for (int point = 0; point < POINTS; ++point) to[point * weights_] = float(at_points[point]);
          }
        }
      }
    }
  }

  // Rows [begin, end) of the outputs. Those that all taps reach lie end to end, and are cut into tiles as one.
  void operator()(int point, const vec* in, const Rows& in_rows, vec* out, const Rows& out_rows, int64_t begin,
                  int64_t end) const {
    const float* const weight = weight_.data() + point * weights_;
    Product p{};
    p.in_column = p.out_column = p.weight_output = 1;
    p.out_output = out_rows.count * width_;
    for (int64_t tile = 0; tile < tiles_.outputs.parts; ++tile) {
      const int64_t first = tiles_.outputs.begin(tile), outputs = tiles_.outputs.size(tile);
      int64_t together = 1;
      for (int64_t row = begin; row < end; row += together) {
        const int64_t low = std::clamp<int64_t>(padding_ - row, 0, taps_);
        const int64_t high = std::clamp<int64_t>(height_in_ + padding_ - row, low, taps_);
        together = low == 0 && high == taps_ ? std::min(end, height_in_ + padding_ - taps_ + 1) - row : 1;
        const int64_t columns = together * width_;
        const Cut cut{columns, (columns + widest_ - 1) / widest_};
        for (int64_t part = 0; part < cut.parts; ++part) {
          p.in = in + (row - padding_ + low - in_rows.first) * width_ + cut.begin(part);
          p.out = out + (first * out_rows.count + row - out_rows.first) * width_ + cut.begin(part);
          p.weight = weight + (first * inputs_ * taps_ + low * outputs);
          p.r = inputs_;
          p.in_r = in_rows.count * width_;
          p.weight_r = taps_ * outputs;
          p.i = high - low;
          p.in_i = width_;
          p.weight_i = outputs;
          p.j = 1;
          lengthen(p);
          TILES.of[outputs - 1][cut.size(part) - 1](p);
        }
      }
    }
  }

 private:
  static constexpr Multiplies<true> TILES{};

  int64_t inputs_, taps_, padding_, height_in_, width_;
  Tiling tiles_;
  int64_t widest_, weights_;
  std::vector<float> weight_;  // by point, tile of outputs, then (inputs, taps, outputs of the tile)
};

// COUNT numbers of a row from `begin` on, zero where it has none: in place, or put into the room.
template <int COUNT>
inline const vec* part_of(const vec* row, int64_t width, int64_t begin, vec* room) {
  if (begin >= 0 && begin + COUNT <= width) return row + begin;
  for (int64_t i = 0; i < COUNT; ++i) room[i] = begin + i >= 0 && begin + i < width ? row[begin + i] : vec{};
  return room;
}

// Tiles of OUTPUTS columns.
template <int OUTPUTS>
class Winograd final : public Convolution {
 public:
  Winograd(const Geometry& geometry, const float* weight, const float* bias, bool backward)
      : g_(geometry),
        f_(geometry.filter),
        tiles_(at_a_point(geometry).out.width),
        bias_(bias),
        product_(product(geometry, weight, backward)),
        correlation_(at_a_point(geometry)) {}

  void forward(const vec* x, vec* out) const override {
    const Cut strips{g_.out.height, this->strips()};
    for (int64_t strip = 0; strip < strips.parts; ++strip) {
      const int64_t begin = strips.begin(strip), end = strips.begin(strip + 1);
      const int64_t first = std::clamp<int64_t>(begin - g_.padding[0], 0, g_.in.height);
      const int64_t last = std::clamp<int64_t>(end - 1 - g_.padding[0] + f_.height, first, g_.in.height);
      const int64_t in_step = f_.inputs * (last - first) * tiles_, out_step = f_.outputs * (end - begin) * tiles_;
      vec* const in_points = scratch<4>(POINTS * (in_step + out_step));
      vec* const out_points = in_points + POINTS * in_step;
      transform_inputs(x, first, last, in_points);
      for (int point = 0; point < POINTS; ++point) {
        product_(point, in_points + point * in_step, {first, last - first}, out_points + point * out_step,
                 {begin, end - begin}, begin, end);
      }
      write_outputs(out_points, begin, end, out);
    }
  }

  void backward(const vec* x, const vec* gradient, vec* dx, float* sums) const override {
    const int64_t padded = g_.padded().height;
    const int64_t out_step = f_.outputs * g_.out.height * tiles_, in_step = f_.inputs * padded * tiles_;
    vec* const out_points = scratch<4>(POINTS * (out_step + in_step) + correlation_.room());
    vec *const in_points = out_points + POINTS * out_step, *const room = in_points + POINTS * in_step;
    transform_gradient(gradient, out_points);
    if (dx) {
      const int64_t step = f_.inputs * g_.in.height * tiles_;
      for (int point = 0; point < POINTS; ++point) {
        product_(point, out_points + point * out_step, {0, g_.out.height}, in_points + point * step, {0, g_.in.height}, 0,
                 g_.in.height);
      }
      for (int64_t row = 0; row < f_.inputs * g_.in.height; ++row) {
        write_inputs(in_points + row * tiles_, step, dx + row * g_.in.width);
      }
    }
    if (!sums) return;
    transform_inputs(x, -g_.padding[0], g_.in.height + g_.padding[0], in_points);
    for (int point = 0; point < POINTS; ++point) {
      correlation_(in_points + point * in_step, out_points + point * out_step, room, sums + point * weights());
    }
  }

  int64_t sums() const override { return POINTS * weights(); }

  void weight_gradient(const float* sums, float* dweight) const override {
    for (int64_t i = 0; i < weights(); ++i) {
      for (int tap = 0; tap < TAPS; ++tap) {
        double sum = 0;
        for (int point = 0; point < POINTS; ++point) sum += WEIGHTS[point][tap] * sums[point * weights() + i];
        dweight[i * TAPS + tap] = float(sum);
      }
    }
  }

 private:
  static constexpr int TAPS = POINTS + 1 - OUTPUTS;
  static constexpr auto WEIGHTS = weights_at_points<TAPS>();
  static constexpr int64_t CACHED = 8192;  // vectors

  int64_t weights() const { return f_.outputs * f_.inputs * f_.height; }

  // The geometry that is left: a column for each tile.
  static Geometry at_a_point(Geometry g) {
    g.filter.width = 1;
    g.padding[1] = 0;
    g.in.width = g.out.width = (g.out.width + OUTPUTS - 1) / OUTPUTS;
    return g;
  }

  static Vertical product(const Geometry& g, const float* weight, bool backward) {
    const Filter& f = g.filter;
    const auto at_points = [=](int64_t output, int64_t input, int64_t row) {
      const float* const taps = weight + ((output * f.inputs + input) * f.height + row) * TAPS;
      std::array<double, POINTS> sums{};
      for (int point = 0; point < POINTS; ++point) {
        for (int tap = 0; tap < TAPS; ++tap) sums[point] += WEIGHTS[point][tap] * taps[tap];
      }
      return sums;
    };
    const int64_t width = at_a_point(g).out.width, last = f.height - 1;
    if (!backward) return {f.outputs, f.inputs, f.height, g.padding[0], g.in.height, g.out.height, width, at_points};
    return {f.inputs, f.outputs, f.height, last - g.padding[0], g.out.height, g.in.height, width,
            [=](int64_t output, int64_t input, int64_t row) { return at_points(input, output, last - row); }};
  }

  // As many strips of rows as leave each of them in the cache.
  int64_t strips() const {
    const int64_t all = POINTS * tiles_ * (f_.inputs * g_.in.height + f_.outputs * g_.out.height);
    return std::clamp<int64_t>((all + CACHED - 1) / CACHED, 1, g_.out.height);
  }

  // Rows [first, last) of every channel; those that are none are zero.
  void transform_inputs(const vec* x, int64_t first, int64_t last, vec* to) const {
    const int64_t step = f_.inputs * (last - first) * tiles_, tiles = tiles_, padding = g_.padding[1];
    vec room[POINTS];
    for (int64_t channel = 0; channel < f_.inputs; ++channel) {
      for (int64_t row = first; row < last; ++row) {
        const bool there = row >= 0 && row < g_.in.height;
        const vec* const from = there ? x + (channel * g_.in.height + row) * g_.in.width : nullptr;
        const int64_t width = there ? g_.in.width : 0;
        for (int64_t tile = 0; tile < tiles; ++tile, ++to) {
          inputs_at_points(part_of<POINTS>(from, width, tile * OUTPUTS - padding, room), to, step);
        }
      }
    }
  }

  void transform_gradient(const vec* gradient, vec* to) const {
    const int64_t step = f_.outputs * g_.out.height * tiles_, tiles = tiles_, width = g_.out.width;
    vec room[OUTPUTS];
    for (int64_t row = 0; row < f_.outputs * g_.out.height; ++row) {
      for (int64_t tile = 0; tile < tiles; ++tile, ++to) {
        outputs_at_points<OUTPUTS>(part_of<OUTPUTS>(gradient + row * width, width, tile * OUTPUTS, room), to, step);
      }
    }
  }

  // Rows [begin, end) of every channel.
  void write_outputs(const vec* at, int64_t begin, int64_t end, vec* out) const {
    const int64_t step = f_.outputs * (end - begin) * tiles_, width = g_.out.width;
    for (int64_t channel = 0; channel < f_.outputs; ++channel) {
      const vec bias = splat(bias_ ? bias_[channel] : 0.0f);
      for (int64_t row = begin; row < end; ++row) {
        vec* const to = out + (channel * g_.out.height + row) * width;
        for (int64_t column = 0; column < width; column += OUTPUTS, ++at) {
          vec y[OUTPUTS];
          points_to_outputs<OUTPUTS>(at, step, y);
          UNROLL for (int j = 0; j < OUTPUTS; ++j) {
            if (column + j < width) to[column + j] = y[j] + bias;
          }
        }
      }
    }
  }

  // A row of inputs, to whose numbers neighbouring tiles add.
  void write_inputs(const vec* at, int64_t step, vec* row) const {
    const int64_t tiles = tiles_, width = g_.in.width, padding = g_.padding[1];
    vec sum[POINTS] = {};
    for (int64_t tile = 0; tile < tiles; ++tile) {
      vec more[POINTS];
      points_to_inputs(at + tile, step, more);
      UNROLL for (int i = 0; i < POINTS; ++i) sum[i] += more[i];
      const int64_t begin = tile * OUTPUTS - padding;
      UNROLL for (int i = 0; i < OUTPUTS; ++i) {
        if (begin + i >= 0 && begin + i < width) row[begin + i] = sum[i];
      }
      UNROLL for (int i = 0; i < POINTS; ++i) sum[i] = i + OUTPUTS < POINTS ? sum[i + OUTPUTS] : vec{};
    }
    const int64_t done = tiles * OUTPUTS - padding;
    for (int64_t column = std::max<int64_t>(done, 0); column < width; ++column) {
      row[column] = column - done < POINTS ? sum[column - done] : vec{};
    }
  }

  Geometry g_;
  Filter f_;
  int64_t tiles_;
  const float* bias_;
  Vertical product_;
  Correlation correlation_;
};

}  // namespace

bool winograd_pays(const Geometry& g) {
  const Filter& f = g.filter;
  if (g.stride[0] != 1 || g.stride[1] != 1 || f.width < 3 || f.width > 5) return false;
  const int64_t outputs = POINTS + 1 - f.width, tiles = (g.out.width + outputs - 1) / outputs;
  const int64_t products = f.outputs * f.inputs * f.height;
  const int64_t transforms = 30 * (f.outputs + f.inputs);  // as many multiplications take their time
  return tiles * (POINTS * products + transforms) < g.out.width * f.width * products;
}

std::unique_ptr<Convolution> winograd(const Geometry& g, const float* weight, const float* bias, bool backward) {
  switch (g.filter.width) {
    case 3: return std::make_unique<Winograd<4>>(g, weight, bias, backward);
    case 4: return std::make_unique<Winograd<3>>(g, weight, bias, backward);
    default: return std::make_unique<Winograd<2>>(g, weight, bias, backward);
  }
}

}  // namespace normlab
