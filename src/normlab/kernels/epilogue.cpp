// What follows a convolution or linear layer, in one pass that writes only the pooled result, and its gradients.
#include <cmath>

#include "stage.h"

namespace normlab {
namespace {

// Which inputs a window holds along one axis.
struct Window {
  int64_t begin, end;
  Window(const Epilogue& e, int axis, int64_t position, int64_t length)
      : begin(std::max<int64_t>(position * e.stride[axis] - e.padding[axis], 0)),
        end(std::min(position * e.stride[axis] - e.padding[axis] + e.size[axis], length)) {}
};

// One input's share in the average of the window at (row, column).
float share_of(const Epilogue& e, const Shape& shape, int64_t row, int64_t column) {
  if (!e.count_padding) {
    const Window rows(e, 0, row, shape.height), columns(e, 1, column, shape.width);
    return 1.0f / ((rows.end - rows.begin) * (columns.end - columns.begin));
  }
  const int64_t top = row * e.stride[0] - e.padding[0], left = column * e.stride[1] - e.padding[1];
  const int64_t height = std::min(top + e.size[0], shape.height + e.padding[0]) - top;
  const int64_t width = std::min(left + e.size[1], shape.width + e.padding[1]) - left;
  return 1.0f / (height * width);
}

// scale * x + shift normalizes, by channel.
struct Affine {
  std::vector<float> scale, shift;
};

Affine affine(const Epilogue& e, int64_t channels) {
  Affine a{std::vector<float>(channels, 1.0f), std::vector<float>(channels, 0.0f)};
  STD_TORCH_CHECK(e.mean.has_value() == e.var.has_value(), "expected mean and var, or neither");
  const float *mean = numbers(e.mean, channels), *var = numbers(e.var, channels);
  const float *gamma = numbers(e.gamma, channels), *beta = numbers(e.beta, channels);
  for (int64_t c = 0; mean && c < channels; ++c) {
    a.scale[c] = float((gamma ? gamma[c] : 1.0) / std::sqrt(double(var[c]) + e.eps));
    a.shift[c] = float((beta ? beta[c] : 0.0) - double(mean[c]) * a.scale[c]);
  }
  return a;
}

template <class F>
inline void each(int64_t count, const F& f) {
  for (int64_t i = 0; i < count; ++i) f(i);
}

const vec* apply(int64_t activation, const vec* y, vec* out, int64_t count) {
  if (activation == NONE) return y;
  with_activation(activation, [&](auto kind) { each(count, [&](int64_t i) { out[i] = activate<kind>(y[i]); }); });
  return out;
}

// Rows of a plane that are pooled together: those of one row of windows where windows do not overlap, else all.
struct Group {
  int64_t begin, end, out_begin, out_end;
};

template <class F>
void groups(const Epilogue& e, const Shape& shape, int64_t height_out, const F& f) {
  if (e.pool && e.tiles()) {
    for (int64_t row = 0; row < height_out; ++row) f(Group{row * e.size[0], (row + 1) * e.size[0], row, row + 1});
  } else {
    f(Group{0, shape.height, 0, height_out});
  }
}

void pool(const Epilogue& e, const Shape& shape, const Group& group, int64_t width_out, const vec* active, vec* out) {
  const bool tiles = e.tiles();
  for (int64_t row = group.out_begin; row < group.out_end; ++row) {
    const Window r(e, 0, row, shape.height);
    for (int64_t column = 0; column < width_out; ++column) {
      const Window c(e, 1, column, shape.width);
      const vec* window = active + (r.begin - group.begin) * shape.width;
      vec value = e.pool == 1 ? vec{} : window[c.begin];
      for (int64_t i = r.begin; i < r.end; ++i, window += shape.width) {
        for (int64_t j = c.begin; j < c.end; ++j) {
          const vec v = window[j];
          if (e.pool == 1) {
            value += v;
          } else {
            value = (v > value) | (v != v) ? v : value;
          }
        }
      }
      if (e.pool == 1) value *= tiles ? 1.0f / (e.size[0] * e.size[1]) : share_of(e, shape, row, column);
      out[row * width_out + column] = value;
    }
  }
}

// The gradient of the activated plane where each input lies in one window of an average.
void unpool_tiles(const Epilogue& e, const Shape& shape, const Group& group, int64_t width_out, const vec* gradient,
                  vec* out) {
  const float share = 1.0f / (e.size[0] * e.size[1]);
  const vec* const g = gradient + group.out_begin * width_out;
  for (int64_t column = 0; column < shape.width; ++column) {
    out[column] = column / e.size[1] < width_out ? g[column / e.size[1]] * share : vec{};
  }
  for (int64_t row = 1; row < e.size[0]; ++row) {
    std::memcpy(static_cast<void*>(out + row * shape.width), out, shape.width * sizeof(vec));
  }
}

// The same for any windows, and for maxima.
void unpool(const Epilogue& e, const Shape& shape, const Group& group, int64_t width_out, const vec* gradient,
            const vec* active, vec* out) {
  each((group.end - group.begin) * shape.width, [&](int64_t i) { out[i] = vec{}; });
  for (int64_t row = group.out_begin; row < group.out_end; ++row) {
    const Window r(e, 0, row, shape.height);
    for (int64_t column = 0; column < width_out; ++column) {
      const Window c(e, 1, column, shape.width);
      const vec g = gradient[row * width_out + column];
      const int64_t base = (r.begin - group.begin) * shape.width, rows = r.end - r.begin;
      if (e.pool == 1) {
        const vec share = g * share_of(e, shape, row, column);
        for (int64_t i = 0, at = base; i < rows; ++i, at += shape.width) {
          for (int64_t j = c.begin; j < c.end; ++j) out[at + j] += share;
        }
        continue;
      }
      vec best = active[base + c.begin];
      ivec place = ivec{} + int32_t(base + c.begin);  // of the maximum, as torch: the first, or the last NaN
      for (int64_t i = 0, at = base; i < rows; ++i, at += shape.width) {
        for (int64_t j = c.begin; j < c.end; ++j) {
          const vec v = active[at + j];
          const ivec better = (v > best) | (v != v);
          best = better ? v : best;
          place = better ? ivec{} + int32_t(at + j) : place;
        }
      }
      for (int64_t i = 0, at = base; i < rows; ++i, at += shape.width) {
        for (int64_t j = c.begin; j < c.end; ++j) out[at + j] += place == int32_t(at + j) ? g : vec{};
      }
    }
  }
}

}  // namespace

Statistics::Statistics(int64_t blocks, int64_t channels, int64_t count, int64_t activation)
    : blocks_(blocks), channels_(channels), count_(count), activation_(activation), means_(blocks * channels),
      squares_(blocks * channels) {}

void Statistics::add(int64_t block, const vec* y, int64_t plane) {
  const vec present = examples_of(block, count_);
  const double elements = double(std::min<int64_t>(LANES, count_ - block * LANES)) * plane;
  vec* const room = scratch<3>(plane);
  for (int64_t channel = 0; channel < channels_; ++channel) {
    const vec* const x = apply(activation_, y + channel * plane, room, plane);
    vec sum[4] = {};
    int64_t i = 0;
    for (; i + 4 <= plane; i += 4) {
      UNROLL for (int k = 0; k < 4; ++k) sum[k] += x[i + k];
    }
    for (; i < plane; ++i) sum[0] += x[i];
    const vec total = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    const float middle = float(lane_sum(present != 0.0f ? total : vec{}) / elements);
    vec shifted[2] = {}, square[2] = {};
    for (i = 0; i + 2 <= plane; i += 2) {
      UNROLL for (int k = 0; k < 2; ++k) {
        const vec deviation = x[i + k] - middle;
        shifted[k] += deviation;
        square[k] += deviation * deviation;
      }
    }
    for (; i < plane; ++i) {
      const vec deviation = x[i] - middle;
      shifted[0] += deviation;
      square[0] += deviation * deviation;
    }
    const double rest = lane_sum(present != 0.0f ? shifted[0] + shifted[1] : vec{});  // what rounding left
    means_[block * channels_ + channel] = middle + rest / elements;
    squares_[block * channels_ + channel] =
        lane_sum(present != 0.0f ? square[0] + square[1] : vec{}) - rest * rest / elements;
  }
}

std::tuple<Tensor, Tensor> Statistics::merged(int64_t plane) const {
  Tensor mean = empty({channels_}), var = empty({channels_});
  for (int64_t channel = 0; channel < channels_; ++channel) {
    double elements = 0, middle = 0, squared = 0;
    for (int64_t block = 0; block < blocks_; ++block) {
      const double more = double(std::min<int64_t>(LANES, count_ - block * LANES)) * plane;
      const double shift = means_[block * channels_ + channel] - middle, share = more / (elements + more);
      middle += shift * share;
      squared += squares_[block * channels_ + channel] + shift * shift * elements * share;
      elements += more;
    }
    static_cast<float*>(mean.data_ptr())[channel] = float(middle);
    static_cast<float*>(var.data_ptr())[channel] = float(squared / elements);
  }
  return {mean, var};
}

int64_t Epilogue::out(int64_t length, int axis) const {
  if (!pool) return length;
  STD_TORCH_CHECK(size[axis] > 0 && stride[axis] > 0, "expected a window and a stride of one pixel at least");
  STD_TORCH_CHECK(padding[axis] >= 0 && 2 * padding[axis] <= size[axis], "expected padding of at most half a window");
  STD_TORCH_CHECK(length + 2 * padding[axis] >= size[axis], "expected a window within the image");
  return (length + 2 * padding[axis] - size[axis]) / stride[axis] + 1;
}

Tensor Epilogue::forward(const Tensor& y) const {
  const Shape shape(y);
  STD_TORCH_CHECK(!pool || y.dim() == 5, "expected images to pool");
  const int64_t height = out(shape.height, 0), width = out(shape.width, 1);
  Tensor result = y.dim() == 5 ? empty({shape.blocks, shape.channels, height, width, LANES})
                               : empty({shape.blocks, shape.channels, LANES});
  const Affine a = affine(*this, shape.channels);
  const vec *const all = vectors(y), *const added = vectors(residual, shape), *const factors = vectors(mask, shape);
  vec* const to_all = written(result);
  parallel(shape.blocks, [&](int64_t block) {
    vec* const room = scratch<3>(shape.plane());
    with_activation(activation, [&](auto kind) {  // out here: of features a channel has a single vector
      for (int64_t channel = 0; channel < shape.channels; ++channel) {
        const int64_t at = (block * shape.channels + channel) * shape.plane();
        vec* const to = to_all + (block * shape.channels + channel) * height * width;
        const float scale = a.scale[channel], shift = a.shift[channel];
        groups(*this, shape, height, [&](const Group& group) {
          const int64_t first = at + group.begin * shape.width, count = (group.end - group.begin) * shape.width;
          vec* const active = pool ? room : to;
          const vec* const from = apply(before, all + first, active, count);
          if (added) {
            each(count, [&](int64_t i) { active[i] = activate<kind>(from[i] * scale + shift + added[first + i]); });
          } else {
            each(count, [&](int64_t i) { active[i] = activate<kind>(from[i] * scale + shift); });
          }
          if (factors) each(count, [&](int64_t i) { active[i] *= factors[first + i]; });
          if (pool) normlab::pool(*this, shape, group, width, active, to);
        });
      }
    });
  });
  return result;
}

EpilogueBackward::EpilogueBackward(const Epilogue& e, const Tensor& gradient, const Tensor& y, int64_t count)
    : residual(empty({0})), gamma(empty({0})), beta(empty({0})), epilogue_(e), y_(y), z_(torch::stable::empty_like(y)),
      count_(count) {
  const Shape shape(y), shape_out(gradient);
  const int64_t plane = shape.plane(), channels = shape.channels;
  const Affine a = affine(e, channels);
  const vec *const all = vectors(y), *const added = vectors(e.residual, shape), *const factors = vectors(e.mask, shape);
  shape.expect_count(count);
  shape_out.expect(shape.blocks, shape.channels, e.out(shape.height, 0), e.out(shape.width, 1));
  const vec* const g_all = vectors(gradient);
  vec* const z_all = written(z_);
  scale_ = a.scale;
  middle_.assign(channels, 0.0f);
  factor_ = offset_ = middle_;
  if (e.mean) std::copy_n(numbers(*e.mean), channels, middle_.data());
  std::vector<double> sums(shape.blocks * channels), products(shape.blocks * channels);

  parallel(shape.blocks, [&](int64_t block) {
    vec* const active = scratch<3>(4 * plane);
    vec *const slope = active + plane, *const unpooled = slope + plane, *const normed = unpooled + plane;
    with_activation(e.activation, [&](auto kind) {
      for (int64_t channel = 0; channel < channels; ++channel) {
        const int64_t at = (block * channels + channel) * plane;
        const vec* const g_plane = g_all + (block * channels + channel) * shape_out.plane();
        const float scale = a.scale[channel], shift = a.shift[channel], middle = middle_[channel];
        vec sum{}, product{};
        groups(e, shape, shape_out.height, [&](const Group& group) {
          const int64_t first = at + group.begin * shape.width, here = (group.end - group.begin) * shape.width;
          const vec* const from = apply(e.before, all + first, normed, here);
          vec* const z = z_all + first;
          const auto flow = [&](const vec* g, const auto& slope_at) {
            each(here, [&](int64_t i) {
              const vec value = g[i] * slope_at(i);
              z[i] = value;
              sum += value;
              product += value * (from[i] - middle);
            });
          };
          if (!added && !factors && (!e.pool || (e.pool == 1 && e.tiles()))) {
            if (e.pool) unpool_tiles(e, shape, group, shape_out.width, g_plane, unpooled);
            return flow(e.pool ? unpooled : g_plane,
                        [&](int64_t i) { return activate_with_slope<kind>(from[i] * scale + shift).slope; });
          }
          each(here, [&](int64_t i) {
            const vec at_activation = from[i] * scale + shift;
            const Activated result = activate_with_slope<kind>(added ? at_activation + added[first + i] : at_activation);
            active[i] = factors ? result.value * factors[first + i] : result.value;
            slope[i] = factors ? result.slope * factors[first + i] : result.slope;
          });
          if (e.pool) unpool(e, shape, group, shape_out.width, g_plane, active, unpooled);
          flow(e.pool ? unpooled : g_plane, [&](int64_t i) { return slope[i]; });
        });
        if (e.pool && e.tiles() && shape.height % e.size[0]) {  // rows that no window holds
          const int64_t first = shape_out.height * e.size[0] * shape.width;
          each(plane - first, [&](int64_t i) { z_all[at + first + i] = vec{}; });
        }
        sums[block * channels + channel] = lane_sum(sum);
        products[block * channels + channel] = lane_sum(product);
      }
    });
  });

  if (e.residual) residual = e.mean || e.before ? z_ : torch::stable::clone(z_);
  if (!e.mean) return;
  gamma = empty({channels});
  beta = empty({channels});
  const float* const var = numbers(*e.var);
  const double elements = double(count) * plane;
  for (int64_t channel = 0; channel < channels; ++channel) {
    double sum = 0, product = 0;
    for (int64_t block = 0; block < shape.blocks; ++block) {
      sum += sums[block * channels + channel];
      product += products[block * channels + channel];
    }
    const double inverse = 1.0 / std::sqrt(double(var[channel]) + e.eps);
    static_cast<float*>(beta.data_ptr())[channel] = float(sum);
    static_cast<float*>(gamma.data_ptr())[channel] = float(product * inverse);
    if (e.batch) {
      factor_[channel] = float(-a.scale[channel] * product * inverse * inverse / elements);
      offset_[channel] = float(-a.scale[channel] * sum / elements);
    }
  }
}

// dy = scale * (dz - mean(dz) - normalized * mean(dz * normalized)), the means only where statistics are the batch's.
void EpilogueBackward::finish(int64_t block, vec* out) const {
  const Shape shape(y_);
  const int64_t plane = shape.plane();
  const Epilogue& e = epilogue_;
  const vec *const y = vectors(y_) + block * shape.block(), *const z = vectors(z_) + block * shape.block();
  const bool whole = (block + 1) * LANES <= count_;
  const vec present = examples_of(block, count_);
  vec* const normed = scratch<3>(plane);
  for (int64_t channel = 0; channel < shape.channels; ++channel) {
    const int64_t at = channel * plane;
    const float scale = scale_[channel], factor = factor_[channel], offset = offset_[channel], middle = middle_[channel];
    const vec* const from = apply(e.before, y + at, normed, plane);
    if (e.batch) {
      each(plane, [&](int64_t i) { out[at + i] = z[at + i] * scale + ((from[i] - middle) * factor + offset); });
      if (!whole) each(plane, [&](int64_t i) { out[at + i] = present != 0.0f ? out[at + i] : vec{}; });
    } else {
      each(plane, [&](int64_t i) { out[at + i] = z[at + i] * scale; });
    }
    if (e.before != NONE) {
      with_activation(e.before, [&](auto kind) {
        each(plane, [&](int64_t i) { out[at + i] *= activate_with_slope<kind>(y[at + i]).slope; });
      });
    }
  }
}

Tensor EpilogueBackward::input() {
  if (!epilogue_.mean && !epilogue_.before) return z_;
  const Shape shape(y_);
  Tensor result = epilogue_.residual ? torch::stable::empty_like(y_) : z_;
  vec* const to = written(result);
  parallel(shape.blocks, [&](int64_t block) { finish(block, to + block * shape.block()); });
  return result;
}

}  // namespace normlab
