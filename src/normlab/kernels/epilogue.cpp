// What follows a convolution or linear layer, in one pass that writes only the pooled result, and its gradients.
#include <cmath>

#include "pairs.h"
#include "stage.h"

namespace normlab {
namespace {

// Which inputs a window holds along one axis.
struct Window {
  int64_t begin, end;
  int64_t size() const { return end - begin; }
};

// The windows of a plane.
struct Windows {
  const Epilogue& e;
  const Shape& shape;

  Window along(int axis, int64_t position, int64_t length) const {
    const int64_t begin = position * e.stride[axis] - e.padding[axis];
    return {std::max<int64_t>(begin, 0), std::min(begin + e.size[axis], length)};
  }
  Window rows(int64_t row) const { return along(0, row, shape.height); }
  Window columns(int64_t column) const { return along(1, column, shape.width); }

  // One input's share in the average of the window at (row, column).
  float share(int64_t row, int64_t column) const {
    if (!e.count_padding) return 1.0f / (rows(row).size() * columns(column).size());
    const int64_t top = row * e.stride[0] - e.padding[0], left = column * e.stride[1] - e.padding[1];
    const int64_t height = std::min(top + e.size[0], shape.height + e.padding[0]) - top;
    const int64_t width = std::min(left + e.size[1], shape.width + e.padding[1]) - left;
    return 1.0f / (height * width);
  }
};

// Calls f with the kind of pooling as a compile-time constant.
template <class F>
inline void with_pool(const Epilogue& e, const F& f) {
  if (e.pool == AVERAGE) return f(std::integral_constant<int, AVERAGE>{});
  f(std::integral_constant<int, MAXIMUM>{});
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
    a.scale[c] = float((gamma ? gamma[c] : 1.0) * e.inverse(var[c]));
    a.shift[c] = float((beta ? beta[c] : 0.0) - (e.centers ? double(mean[c]) * a.scale[c] : 0.0));
  }
  return a;
}

template <class F>
inline void each(int64_t count, const F& f) {
  for (int64_t i = 0; i < count; ++i) f(i);
}

const vec* apply(int64_t activation, const vec* y, vec* out, int64_t count) {
  if (activation == NONE) return y;
  with_activation(activation, [&](auto kind) { each(count, [=](int64_t i) { out[i] = activate<kind>(y[i]); }); });
  return out;
}

// Whether channels have a single vector each: then they are what there is to loop over.
bool features(const Epilogue& e, const Shape& shape) { return shape.plane() == 1 && !e.pool; }

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

template <int KIND>
void pool(const Windows& windows, const Group& group, int64_t width_out, const vec* active, vec* out) {
  const int64_t width = windows.shape.width;
  for (int64_t row = group.out_begin; row < group.out_end; ++row) {
    const Window r = windows.rows(row);
    const vec* const from = active + (r.begin - group.begin) * width;
    for (int64_t column = 0; column < width_out; ++column) {
      const Window c = windows.columns(column);
      vec value = KIND == AVERAGE ? vec{} : from[c.begin];
      for (int64_t i = 0; i < r.size(); ++i) {
        for (int64_t j = 0; j < c.size(); ++j) {
          const vec v = from[i * width + c.begin + j];
          if (KIND == AVERAGE) value += v;
          if (KIND == MAXIMUM) value = larger(value, v);
        }
      }
      out[row * width_out + column] = KIND == AVERAGE ? value * windows.share(row, column) : value;
    }
  }
}

// Where a window's maximum is, counted from its first input: the first of equal ones, or the last NaN.
inline ivec place_of_maximum(const vec* window, int64_t height, int64_t width, int64_t row_step) {
  vec best = window[0];
  ivec place{};
  for (int64_t i = 0; i < height; ++i) {
    for (int64_t j = 0; j < width; ++j) {
      const vec v = window[i * row_step + j];
      const ivec better = surpasses(v, best);
      best = better ? v : best;
      place = better ? ivec{} + int32_t(i * row_step + j) : place;
    }
  }
  return place;
}

// The gradient of the activated plane. For averages it takes no `active`.
template <int KIND>
void unpool(const Windows& windows, const Group& group, int64_t width_out, const vec* gradient, const vec* active,
            vec* out) {
  const int64_t width = windows.shape.width;
  each((group.end - group.begin) * width, [=](int64_t i) { out[i] = vec{}; });
  for (int64_t row = group.out_begin; row < group.out_end; ++row) {
    const Window r = windows.rows(row);
    for (int64_t column = 0; column < width_out; ++column) {
      const Window c = windows.columns(column);
      const int64_t first = (r.begin - group.begin) * width + c.begin;
      vec g = gradient[row * width_out + column];
      ivec place{};
      if (KIND == AVERAGE) g *= windows.share(row, column);
      if (KIND == MAXIMUM) place = place_of_maximum(active + first, r.size(), c.size(), width);
      for (int64_t i = 0; i < r.size(); ++i) {
        for (int64_t j = 0; j < c.size(); ++j) {
          const int64_t at = i * width + j;
          const vec share = KIND == AVERAGE ? g : place == int32_t(at) ? g : vec{};
          out[first + at] += share;
        }
      }
    }
  }
}

// The gradient at the activation, z; its sum, and that of its products with what the norm got less its middle.
template <class F>
inline void flow(const vec* g, const vec* from, float middle, int64_t count, vec* z, vec& sum, vec& product,
                 const F& slope_at) {
  vec sums = sum, products = product;  // in registers: as far as the compiler knows, z might lie over what is given
  for (int64_t i = 0; i < count; ++i) {
    const vec value = g[i] * slope_at(i);
    z[i] = value;
    sums += value;
    products += value * (from[i] - middle);
  }
  sum = sums;
  product = products;
}

}  // namespace

Statistics::Statistics(int64_t blocks, int64_t channels, int64_t count, int64_t activation)
    : blocks_(blocks), channels_(channels), count_(count), activation_(activation), means_(blocks * channels),
      squares_(blocks * channels) {}

namespace {

// Of the deviations from a middle.
struct Moments {
  vec sum, square;
};

Moments moments(const vec* x, int64_t count, float middle) {
  vec sum[2] = {}, square[2] = {};
  const auto add = [&](int64_t i, int k) {
    const vec deviation = x[i] - middle;
    sum[k] += deviation;
    square[k] += deviation * deviation;
  };
  int64_t i = 0;
  for (; i + 2 <= count; i += 2) {
    add(i, 0);
    add(i + 1, 1);
  }
  if (i < count) add(i, 0);
  return {sum[0] + sum[1], square[0] + square[1]};
}

}  // namespace

void Statistics::add(int64_t block, const vec* y, int64_t plane) {
  const vec present = examples_of(block, count_);
  const double elements = double(std::min<int64_t>(LANES, count_ - block * LANES)) * plane;
  const int64_t together = std::clamp<int64_t>(512 / plane, 1, LANES);  // channels that stay in the nearest cache
  vec* const room = scratch<3>(together * plane);
  for (int64_t first = 0; first < channels_; first += together) {
    const int64_t here = std::min(together, channels_ - first);
    const vec* const x = apply(activation_, y + first * plane, room, here * plane);
    vec sums[LANES] = {}, squares[LANES] = {};
    for (int64_t k = 0; k < here; ++k) sums[k] = present != 0.0f ? total(x + k * plane, plane) : vec{};
    const vec middle = lane_sums(sums) / float(elements);
    for (int64_t k = 0; k < here; ++k) {
      const auto [sum, square] = moments(x + k * plane, plane, middle[k]);
      sums[k] = present != 0.0f ? sum : vec{};
      squares[k] = present != 0.0f ? square : vec{};
    }
    const vec rest = lane_sums(sums), squared = lane_sums(squares);  // the rest: what rounding left
    for (int64_t k = 0; k < here; ++k) {
      const double shift = rest[k] / elements;
      means_[block * channels_ + first + k] = middle[k] + shift;
      squares_[block * channels_ + first + k] = squared[k] - rest[k] * shift;
    }
  }
}

std::tuple<Tensor, Tensor> Statistics::merged(int64_t plane) const {
  Tensor mean = unwritten({channels_}), var = unwritten({channels_});
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
  Tensor result = y.dim() == 5 ? unwritten({shape.blocks, shape.channels, height, width, LANES})
                               : unwritten({shape.blocks, shape.channels, LANES});
  const Affine a = affine(*this, shape.channels);
  const vec *const all = vectors(y), *const added = vectors(residual, shape), *const factors = vectors(mask, shape);
  vec* const to_all = written(result);
  parallel(shape.blocks, [&](int64_t block) {
    vec* const room = scratch<3>(shape.plane());
    with_activation(activation, [&](auto kind) {
      const auto activated = [&](int64_t first, int64_t count, vec* to, const auto& normalized) {
        const vec* const from = apply(before, all + first, to, count);
        if (added) {
          const vec* const more = added + first;
          each(count, [=](int64_t i) { to[i] = activate<kind>(normalized(from[i], i) + more[i]); });
        } else {
          each(count, [=](int64_t i) { to[i] = activate<kind>(normalized(from[i], i)); });
        }
        if (factors) each(count, [&](int64_t i) { to[i] *= factors[first + i]; });
      };
      if (features(*this, shape)) {
        const int64_t first = block * shape.channels;
        const float *const scale = a.scale.data(), *const shift = a.shift.data();
        const auto normalized = [=](vec x, int64_t c) { return x * scale[c] + shift[c]; };
        return activated(first, shape.channels, to_all + first, normalized);
      }
      for (int64_t channel = 0; channel < shape.channels; ++channel) {
        const int64_t at = (block * shape.channels + channel) * shape.plane();
        vec* const to = to_all + (block * shape.channels + channel) * height * width;
        const float scale = a.scale[channel], shift = a.shift[channel];
        if (in_pairs()) {
          const Plane plane{apply(before, all + at, room, shape.plane()), shape.width, scale, shift, 0.0f,
                            added ? added + at : nullptr, factors ? factors + at : nullptr};
          with_pool(*this, [&](auto of) { pool_pairs<of, kind>(plane, height, width, to); });
          continue;
        }
        groups(*this, shape, height, [&](const Group& group) {
          const int64_t first = at + group.begin * shape.width, count = (group.end - group.begin) * shape.width;
          vec* const active = pool ? room : to;
          activated(first, count, active, [=](vec x, int64_t) { return x * scale + shift; });
          if (pool) {
            with_pool(*this, [&](auto of) { normlab::pool<of>(Windows{*this, shape}, group, width, active, to); });
          }
        });
      }
    });
  });
  return result;
}

EpilogueBackward::EpilogueBackward(const Epilogue& e, const Tensor& gradient, const Tensor& y, int64_t count)
    : epilogue_(e), y_(y), z_(unwritten_like(y)), count_(count) {
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
  std::vector<float> gradient_sums(shape.blocks * channels), product_sums(shape.blocks * channels);

  parallel(shape.blocks, [&](int64_t block) {
    const bool flat = features(e, shape);
    const int64_t most = flat ? channels : plane;
    vec* const active = scratch<3>(4 * most + 2 * channels);
    vec *const slope = active + most, *const unpooled = slope + most, *const normed = unpooled + most;
    vec *const sums = normed + most, *const products = sums + channels;
    with_activation(e.activation, [&](auto kind) {
      if (flat) {
        const int64_t at = block * channels;
        const vec *const from = apply(e.before, all + at, normed, channels), *const g = g_all + at;
        const float *const scale = a.scale.data(), *const shift = a.shift.data(), *const middle = middle_.data();
        vec* const z = z_all + at;
        return each(channels, [=](int64_t c) {
          const vec at_activation = from[c] * scale[c] + shift[c];
          const vec slope = activate_with_slope<kind>(added ? at_activation + added[at + c] : at_activation).slope;
          const vec value = g[c] * (factors ? slope * factors[at + c] : slope);
          z[c] = sums[c] = value;
          products[c] = value * (from[c] - middle[c]);
        });
      }
      for (int64_t channel = 0; channel < channels; ++channel) {
        const int64_t at = (block * channels + channel) * plane;
        const vec* const g_plane = g_all + (block * channels + channel) * shape_out.plane();
        const float scale = a.scale[channel], shift = a.shift[channel], middle = middle_[channel];
        vec &sum = sums[channel] = vec{}, &product = products[channel] = vec{};
        if (e.in_pairs()) {
          const Plane whole{apply(e.before, all + at, normed, plane), shape.width, scale, shift, middle,
                            added ? added + at : nullptr, factors ? factors + at : nullptr};
          with_pool(e, [&](auto of) {
            unpool_pairs<of, kind>(whole, shape.height, shape_out.height, shape_out.width, g_plane, z_all + at, sum, product);
          });
          continue;
        }
        groups(e, shape, shape_out.height, [&](const Group& group) {
          const int64_t first = at + group.begin * shape.width, here = (group.end - group.begin) * shape.width;
          const vec* const from = apply(e.before, all + first, normed, here);
          const bool slope_alone = !added && !factors && e.pool != MAXIMUM;
          if (!slope_alone) {
            each(here, [=](int64_t i) {
              const vec at_activation = from[i] * scale + shift;
              const Activated result = activate_with_slope<kind>(added ? at_activation + added[first + i] : at_activation);
              active[i] = factors ? result.value * factors[first + i] : result.value;
              slope[i] = factors ? result.slope * factors[first + i] : result.slope;
            });
          }
          if (e.pool) {
            with_pool(e, [&](auto of) {
              unpool<of>(Windows{e, shape}, group, shape_out.width, g_plane, active, unpooled);
            });
          }
          const vec* const g = e.pool ? unpooled : g_plane;
          if (slope_alone) {
            flow(g, from, middle, here, z_all + first, sum, product,
                 [=](int64_t i) { return activate_with_slope<kind>(from[i] * scale + shift).slope; });
          } else {
            flow(g, from, middle, here, z_all + first, sum, product, [=](int64_t i) { return slope[i]; });
          }
        });
        if (e.pool && e.tiles() && shape.height % e.size[0]) {  // rows that no window holds
          const int64_t first = shape_out.height * e.size[0] * shape.width;
          each(plane - first, [&](int64_t i) { z_all[at + first + i] = vec{}; });
        }
      }
    });
    add_lane_sums(sums, channels, gradient_sums.data() + block * channels);
    add_lane_sums(products, channels, product_sums.data() + block * channels);
  });

  if (e.residual) residual = e.mean || e.before ? z_ : torch::stable::clone(z_);
  if (!e.mean) return;
  gamma = unwritten({channels});
  beta = unwritten({channels});
  const float* const var = numbers(*e.var);
  const double elements = double(count) * plane;
  for (int64_t channel = 0; channel < channels; ++channel) {
    double sum = 0, product = 0;
    for (int64_t block = 0; block < shape.blocks; ++block) {
      sum += gradient_sums[block * channels + channel];
      product += product_sums[block * channels + channel];
    }
    if (!e.centers) product += middle_[channel] * sum;
    const double inverse = e.inverse(var[channel]);
    static_cast<float*>(beta->data_ptr())[channel] = float(sum);
    static_cast<float*>(gamma->data_ptr())[channel] = float(product * inverse);
    if (!e.batch) continue;
    if (e.scales) factor_[channel] = float(-a.scale[channel] * product * inverse * inverse / elements);
    if (e.centers) offset_[channel] = float(-a.scale[channel] * sum / elements);
  }
}

// dy = scale * (dz - mean(dz) - deviation / std * mean(dz * normalized)), the means only where statistics are the
// batch's: the first of a norm that takes off the mean, the second of one that takes off the deviation.
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
      each(plane, [=](int64_t i) { out[at + i] = z[at + i] * scale + ((from[i] - middle) * factor + offset); });
      if (!whole) each(plane, [&](int64_t i) { out[at + i] = present != 0.0f ? out[at + i] : vec{}; });
    } else {
      each(plane, [=](int64_t i) { out[at + i] = z[at + i] * scale; });
    }
    if (e.before != NONE) {
      with_activation(e.before, [&](auto kind) {
        each(plane, [=](int64_t i) { out[at + i] *= activate_with_slope<kind>(y[at + i]).slope; });
      });
    }
  }
}

Tensor EpilogueBackward::input() {
  if (!epilogue_.mean && !epilogue_.before) return z_;
  const Shape shape(y_);
  Tensor result = epilogue_.residual ? unwritten_like(y_) : z_;
  vec* const to = written(result);
  parallel(shape.blocks, [&](int64_t block) { finish(block, to + block * shape.block()); });
  return result;
}

}  // namespace normlab
