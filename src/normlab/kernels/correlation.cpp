#include "correlation.h"

namespace normlab {
namespace {

// Of the weight gradient a tile is OUTPUTS output channels x TAPS (input channel, kh, kw), summed over all positions.
struct Correlated {
  const vec* in;  // padded
  const vec* gradient;
  int64_t plane, height, width, row_step, column_step;
  const int64_t* offset;  // of each tap in `in`
  vec* out;               // the image in each lane has its own
  int64_t out_output;
};

template <int OUTPUTS, int TAPS>
void correlate(const Correlated& c) {
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

using Correlate = void (*)(const Correlated&);
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

}  // namespace

Correlation::Correlation(const Geometry& g)
    : outputs_(g.filter.outputs),
      taps_(g.filter.taps()),
      row_step_(g.stride[0] * g.padded().width),
      column_step_(g.stride[1]),
      out_(g.out),
      tiles_(tiling(outputs_, taps_, 1.0)),
      offsets_(taps_) {
  most_ = tiles_.outputs.least() + 1;
  if (column_step_ == 1 && row_step_ == out_.width) out_ = {1, out_.plane()};  // rows that lie end to end are one
  for (int64_t tap = 0; tap < taps_; ++tap) {
    const int64_t column = tap % g.filter.width, row = tap / g.filter.width % g.filter.height;
    const int64_t channel = tap / (g.filter.width * g.filter.height);
    offsets_[tap] = (channel * g.padded().height + row) * g.padded().width + column;
  }
}

void Correlation::operator()(const vec* in, const vec* gradient, vec* room, float* sums) const {
  const int64_t plane = out_.plane();
  for (int64_t i = 0; i < tiles_.outputs.parts; ++i) {
    const int64_t output = tiles_.outputs.begin(i), here = tiles_.outputs.size(i);
    for (int64_t j = 0; j < tiles_.columns.parts; ++j) {
      const int64_t tap = tiles_.columns.begin(j);
      const Correlated c{in, gradient + output * plane, plane, out_.height, out_.width, row_step_, column_step_,
                         offsets_.data() + tap, room + tap, taps_};
      CORRELATES.of[here - 1][tiles_.columns.size(j) - 1](c);
    }
    add_lane_sums(room, here * taps_, sums + output * taps_);
  }
}

}  // namespace normlab
