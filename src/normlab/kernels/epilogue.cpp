// What follows a convolution or linear layer, in one pass that writes only the pooled result:
//
//   out = pool(mask * activation(scale * before(y) + shift + residual))
//
// with scale and shift of batch normalization, whose statistics come from `statistics`. The backward pass computes
// the activation anew from y: neither the normalized nor the activated tensor is ever stored.
#include <cmath>

#include "lanes.h"

namespace normlab {
namespace {

struct Settings {
  int64_t before, activation, batch;  // batch: whether mean and var are this batch's own
  int64_t pool;                       // 0 none, 1 average, 2 maximum
  int64_t size[2], stride[2], padding[2], count_padding;

  explicit Settings(const std::vector<int64_t>& n)
      : before(n.at(0)), activation(n.at(1)), batch(n.at(2)), pool(n.at(3)), size{n.at(4), n.at(5)},
        stride{n.at(6), n.at(7)}, padding{n.at(8), n.at(9)}, count_padding(n.at(10)) {
    for (int axis = 0; pool && axis < 2; ++axis) {
      STD_TORCH_CHECK(size[axis] > 0 && stride[axis] > 0, "expected a window and a stride of one pixel at least");
      STD_TORCH_CHECK(padding[axis] >= 0 && 2 * padding[axis] <= size[axis], "expected padding of at most half a window");
    }
  }

  int64_t out(int64_t length, int axis) const {
    if (!pool) return length;
    STD_TORCH_CHECK(length + 2 * padding[axis] >= size[axis], "expected a window within the image");
    return (length + 2 * padding[axis] - size[axis]) / stride[axis] + 1;
  }
  bool tiles() const {  // windows that neither overlap nor leave a gap
    return size[0] == stride[0] && size[1] == stride[1] && !padding[0] && !padding[1];
  }
};

// Which inputs a window holds along one axis.
struct Window {
  int64_t begin, end;
  Window(const Settings& s, int axis, int64_t position, int64_t length)
      : begin(std::max<int64_t>(position * s.stride[axis] - s.padding[axis], 0)),
        end(std::min(position * s.stride[axis] - s.padding[axis] + s.size[axis], length)) {}
};

float share_of(const Settings& s, const Shape& shape, const Window& rows, const Window& columns, int64_t row,
               int64_t column) {
  if (!s.count_padding) return 1.0f / ((rows.end - rows.begin) * (columns.end - columns.begin));
  const int64_t top = row * s.stride[0] - s.padding[0], left = column * s.stride[1] - s.padding[1];
  const int64_t height = std::min(top + s.size[0], shape.height + s.padding[0]) - top;
  const int64_t width = std::min(left + s.size[1], shape.width + s.padding[1]) - left;
  return 1.0f / (height * width);
}

// scale * x + shift normalizes, by channel.
struct Affine {
  std::vector<float> scale, shift;
};

Affine affine(int64_t channels, const std::optional<Tensor>& means, const std::optional<Tensor>& vars,
              const std::optional<Tensor>& gammas, const std::optional<Tensor>& betas, double eps) {
  const float *const mean = numbers(means, channels), *const var = numbers(vars, channels);
  const float *const gamma = numbers(gammas, channels), *const beta = numbers(betas, channels);
  Affine a{std::vector<float>(channels, 1.0f), std::vector<float>(channels, 0.0f)};
  for (int64_t c = 0; mean && c < channels; ++c) {
    a.scale[c] = float((gamma ? gamma[c] : 1.0) / std::sqrt(double(var[c]) + eps));
    a.shift[c] = float((beta ? beta[c] : 0.0) - double(mean[c]) * a.scale[c]);
  }
  return a;
}

template <class F>
void each(int64_t count, const F& f) {
  for (int64_t i = 0; i < count; ++i) f(i);
}

// out = before(y)
const vec* apply_before(int64_t before, const vec* y, vec* out, int64_t count) {
  if (before == NONE) return y;
  with_activation(before, [&](auto activation) { each(count, [&](int64_t i) { out[i] = activate<activation>(y[i]); }); });
  return out;
}

// Rows of a plane that are pooled together: those of one row of windows where windows do not overlap, else all.
struct Group {
  int64_t begin, end, out_begin, out_end;
};

template <class F>
void groups(const Settings& s, const Shape& shape, int64_t height_out, const F& f) {
  if (s.pool && s.tiles()) {
    for (int64_t row = 0; row < height_out; ++row) f(Group{row * s.size[0], (row + 1) * s.size[0], row, row + 1});
  } else {
    f(Group{0, shape.height, 0, height_out});
  }
}

struct Plane {
  const vec *y, *residual, *mask;
};

Tensor epilogue(const Tensor& y, const std::optional<Tensor>& mean, const std::optional<Tensor>& var,
                const std::optional<Tensor>& gamma, const std::optional<Tensor>& beta, double eps,
                const std::optional<Tensor>& residual, const std::optional<Tensor>& mask,
                const std::vector<int64_t> settings) {
  const Shape shape(y);
  const Settings s(settings);
  STD_TORCH_CHECK(!s.pool || y.dim() == 5, "expected images to pool");
  STD_TORCH_CHECK(mean.has_value() == var.has_value(), "expected mean and var, or neither");
  const int64_t height = s.out(shape.height, 0), width = s.out(shape.width, 1);
  Tensor out = y.dim() == 5 ? empty({shape.blocks, shape.channels, height, width, LANES})
                            : empty({shape.blocks, shape.channels, LANES});
  const Affine a = affine(shape.channels, mean, var, gamma, beta, eps);
  const Plane all{vectors(y), vectors(residual, shape), vectors(mask, shape)};
  vec* const to_all = written(out);
  const bool tiles = s.tiles();
  parallel(shape.blocks, [&](int64_t block) {
    vec* const rows = scratch<3>(shape.plane());
    for (int64_t channel = 0; channel < shape.channels; ++channel) {
      const int64_t at = (block * shape.channels + channel) * shape.plane();
      vec* const to = to_all + (block * shape.channels + channel) * height * width;
      const float scale = a.scale[channel], shift = a.shift[channel];
      groups(s, shape, height, [&](const Group& group) {
        const int64_t first = at + group.begin * shape.width, count = (group.end - group.begin) * shape.width;
        vec* const active = s.pool ? rows : to;
        const vec* const from = apply_before(s.before, all.y + first, active, count);
        const vec* const residual = all.residual ? all.residual + first : nullptr;
        const vec* const mask = all.mask ? all.mask + first : nullptr;
        with_activation(s.activation, [&](auto activation) {
          if (residual) {
            each(count, [&](int64_t i) { active[i] = activate<activation>(from[i] * scale + shift + residual[i]); });
          } else {
            each(count, [&](int64_t i) { active[i] = activate<activation>(from[i] * scale + shift); });
          }
        });
        if (mask) each(count, [&](int64_t i) { active[i] *= mask[i]; });
        if (!s.pool) return;
        for (int64_t row = group.out_begin; row < group.out_end; ++row) {
          const Window r(s, 0, row, shape.height);
          for (int64_t column = 0; column < width; ++column) {
            const Window c(s, 1, column, shape.width);
            const vec* window = rows + (r.begin - group.begin) * shape.width;
            vec value = s.pool == 1 ? vec{} : window[c.begin];
            for (int64_t i = r.begin; i < r.end; ++i, window += shape.width) {
              for (int64_t j = c.begin; j < c.end; ++j) {
                const vec v = window[j];
                if (s.pool == 1) {
                  value += v;
                } else {
                  value = (v > value) | (v != v) ? v : value;
                }
              }
            }
            if (s.pool == 1) value *= tiles ? 1.0f / (s.size[0] * s.size[1]) : share_of(s, shape, r, c, row, column);
            to[row * width + column] = value;
          }
        }
      });
    }
  });
  return out;
}

// The gradient of the activated plane, from that of the pooled one.
void unpool(const Settings& s, const Shape& shape, const Group& group, int64_t width_out, const vec* gradient,
            const vec* active, vec* out) {
  const bool tiles = s.tiles();
  if (!tiles || shape.width % s.size[1]) each((group.end - group.begin) * shape.width, [&](int64_t i) { out[i] = vec{}; });
  for (int64_t row = group.out_begin; row < group.out_end; ++row) {
    const Window r(s, 0, row, shape.height);
    for (int64_t column = 0; column < width_out; ++column) {
      const Window c(s, 1, column, shape.width);
      const vec g = gradient[row * width_out + column];
      const int64_t base = (r.begin - group.begin) * shape.width;
      if (s.pool == 1) {
        const vec share = g * (tiles ? 1.0f / (s.size[0] * s.size[1]) : share_of(s, shape, r, c, row, column));
        for (int64_t i = 0, at = base; i < r.end - r.begin; ++i, at += shape.width) {
          for (int64_t j = c.begin; j < c.end; ++j) out[at + j] = tiles ? share : out[at + j] + share;
        }
        continue;
      }
      vec best = active[base + c.begin];
      ivec place{};  // of the maximum, as torch: the first, or the last NaN
      place += int32_t(base + c.begin);
      for (int64_t i = 0, at = base; i < r.end - r.begin; ++i, at += shape.width) {
        for (int64_t j = c.begin; j < c.end; ++j) {
          const vec v = active[at + j];
          const ivec better = (v > best) | (v != v);
          best = better ? v : best;
          place = better ? ivec{} + int32_t(at + j) : place;
        }
      }
      for (int64_t i = 0, at = base; i < r.end - r.begin; ++i, at += shape.width) {
        for (int64_t j = c.begin; j < c.end; ++j) {
          const vec here = place == int32_t(at + j) ? g : vec{};
          out[at + j] = tiles ? here : out[at + j] + here;
        }
      }
    }
  }
}

std::tuple<Tensor, Tensor, Tensor, Tensor> epilogue_backward(
    const Tensor& gradient, const Tensor& y, int64_t count, const std::optional<Tensor>& mean,
    const std::optional<Tensor>& var, const std::optional<Tensor>& gamma, const std::optional<Tensor>& beta, double eps,
    const std::optional<Tensor>& residual, const std::optional<Tensor>& mask, const std::vector<int64_t> settings) {
  const Shape shape(y), shape_out(gradient);
  const Settings s(settings);
  STD_TORCH_CHECK(mean.has_value() == var.has_value(), "expected mean and var, or neither");
  shape.expect_count(count);
  shape_out.expect(shape.blocks, shape.channels, s.out(shape.height, 0), s.out(shape.width, 1));
  const int64_t plane = shape.plane(), channels = shape.channels;
  const Affine a = affine(channels, mean, var, gamma, beta, eps);
  Tensor y_gradient = torch::stable::empty_like(y);
  Tensor residual_gradient = residual ? torch::stable::empty_like(y) : empty({0});
  Tensor gamma_gradient = empty({mean ? channels : 0}), beta_gradient = empty({mean ? channels : 0});
  const Plane all{vectors(y), vectors(residual, shape), vectors(mask, shape)};
  const vec* const g_all = vectors(gradient);
  vec* const z_all = residual ? written(residual_gradient) : written(y_gradient);  // the gradient at the activation
  const float* const center = numbers(mean, channels);
  std::vector<double> sums(shape.blocks * channels * 2);
  const bool statistics = center != nullptr;

  parallel(shape.blocks, [&](int64_t block) {
    vec* const active = scratch<3>(4 * plane);
    vec *const slope = active + plane, *const unpooled = slope + plane, *const normed = unpooled + plane;
    for (int64_t channel = 0; channel < channels; ++channel) {
      const int64_t at = (block * channels + channel) * plane;
      const vec* const g_plane = g_all + (block * channels + channel) * shape_out.plane();
      const float scale = a.scale[channel], shift = a.shift[channel], middle = statistics ? center[channel] : 0.0f;
      vec sum{}, product{};
      groups(s, shape, shape_out.height, [&](const Group& group) {
        const int64_t first = at + group.begin * shape.width, count = (group.end - group.begin) * shape.width;
        const vec* const from = apply_before(s.before, all.y + first, normed, count);
        const vec* const residual = all.residual ? all.residual + first : nullptr;
        const vec* const mask = all.mask ? all.mask + first : nullptr;
        with_activation(s.activation, [&](auto activation) {
          each(count, [&](int64_t i) {
            const Activated result =
                activate_with_slope<activation>(residual ? from[i] * scale + shift + residual[i] : from[i] * scale + shift);
            active[i] = result.value;
            slope[i] = result.slope;
          });
        });
        if (mask) {
          each(count, [&](int64_t i) {
            active[i] *= mask[i];
            slope[i] *= mask[i];
          });
        }
        const vec* g = g_plane;
        if (s.pool) {
          unpool(s, shape, group, shape_out.width, g_plane, active, unpooled);
          g = unpooled;
        }
        vec* const z = z_all + first;
        each(count, [&](int64_t i) {
          const vec here = g[i] * slope[i];
          z[i] = here;
          sum += here;
          product += here * (from[i] - middle);
        });
      });
      if (s.pool && s.tiles() && shape.height % s.size[0]) {  // rows that no window holds
        const int64_t first = shape_out.height * s.size[0] * shape.width;
        each(plane - first, [&](int64_t i) { z_all[at + first + i] = vec{}; });
      }
      sums[(block * channels + channel) * 2] = lane_sum(sum);
      sums[(block * channels + channel) * 2 + 1] = lane_sum(product);
    }
  });

  // dy = scale * (dz - mean(dz) - normalized * mean(dz * normalized)), the means only where statistics are the batch's
  const double elements = double(count) * plane;
  std::vector<float> slope_of_y(channels, 0.0f), constant(channels, 0.0f);
  for (int64_t channel = 0; statistics && channel < channels; ++channel) {
    double sum = 0, product = 0;
    for (int64_t block = 0; block < shape.blocks; ++block) {
      sum += sums[(block * channels + channel) * 2];
      product += sums[(block * channels + channel) * 2 + 1];
    }
    const double inverse = 1.0 / std::sqrt(double(numbers(*var)[channel]) + eps);
    static_cast<float*>(beta_gradient.data_ptr())[channel] = float(sum);
    static_cast<float*>(gamma_gradient.data_ptr())[channel] = float(product * inverse);
    if (s.batch) {
      slope_of_y[channel] = float(-a.scale[channel] * product * inverse * inverse / elements);
      constant[channel] = float(-a.scale[channel] * sum / elements);
    }
  }
  vec* const to_all = written(y_gradient);
  if (!residual && !statistics && s.before == NONE) return {y_gradient, residual_gradient, gamma_gradient, beta_gradient};
  parallel(shape.blocks, [&](int64_t block) {
    const vec present = examples_of(block, count);
    const bool whole = (block + 1) * LANES <= count;
    vec* const normed = scratch<3>(4 * plane);
    for (int64_t channel = 0; channel < channels; ++channel) {
      const int64_t at = (block * channels + channel) * plane;
      const float scale = a.scale[channel], factor = slope_of_y[channel], offset = constant[channel];
      const float middle = statistics ? center[channel] : 0.0f;
      const vec* const from = apply_before(s.before, all.y + at, normed, plane);
      const vec* const z = z_all + at;
      vec* const to = to_all + at;
      if (s.batch && statistics) {
        each(plane, [&](int64_t i) { to[i] = z[i] * scale + ((from[i] - middle) * factor + offset); });
        if (!whole) each(plane, [&](int64_t i) { to[i] = present != 0.0f ? to[i] : vec{}; });
      } else {
        each(plane, [&](int64_t i) { to[i] = z[i] * scale; });
      }
      if (s.before != NONE) {
        with_activation(s.before, [&](auto activation) {
          each(plane, [&](int64_t i) { to[i] *= activate_with_slope<activation>(all.y[at + i]).slope; });
        });
      }
    }
  });
  return {y_gradient, residual_gradient, gamma_gradient, beta_gradient};
}

// Mean and biased variance (C,) of before(y) over images and pixels: by blocks, merged as in Chan, Golub & LeVeque
// 1983, never E[x^2] - E[x]^2.
std::tuple<Tensor, Tensor> statistics(const Tensor& y, int64_t count, int64_t before) {
  const Shape shape(y);
  shape.expect_count(count);
  const int64_t plane = shape.plane(), channels = shape.channels;
  const vec* const all = vectors(y);
  std::vector<double> means(shape.blocks * channels), squares(shape.blocks * channels);
  parallel(shape.blocks, [&](int64_t block) {
    const vec present = examples_of(block, count);
    const double elements = double(std::min<int64_t>(LANES, count - block * LANES)) * plane;
    vec* const normed = scratch<3>(plane);
    for (int64_t channel = 0; channel < channels; ++channel) {
      const vec* const x = apply_before(before, all + (block * channels + channel) * plane, normed, plane);
      vec sum[4] = {};
      int64_t i = 0;
      for (; i + 4 <= plane; i += 4) {
        for (int k = 0; k < 4; ++k) sum[k] += x[i + k];
      }
      for (; i < plane; ++i) sum[0] += x[i];
      vec total = (sum[0] + sum[1]) + (sum[2] + sum[3]);
      total = present != 0.0f ? total : vec{};
      const float middle = float(lane_sum(total) / elements);
      vec shifted[2] = {}, square[2] = {};
      for (i = 0; i + 2 <= plane; i += 2) {
        for (int k = 0; k < 2; ++k) {
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
      means[block * channels + channel] = middle + rest / elements;
      squares[block * channels + channel] =
          lane_sum(present != 0.0f ? square[0] + square[1] : vec{}) - rest * rest / elements;
    }
  });
  Tensor mean = empty({channels}), var = empty({channels});
  for (int64_t channel = 0; channel < channels; ++channel) {
    double elements = 0, middle = 0, squared = 0;
    for (int64_t block = 0; block < shape.blocks; ++block) {
      const double more = double(std::min<int64_t>(LANES, count - block * LANES)) * plane;
      const double shift = means[block * channels + channel] - middle, share = more / (elements + more);
      middle += shift * share;
      squared += squares[block * channels + channel] + shift * shift * elements * share;
      elements += more;
    }
    static_cast<float*>(mean.data_ptr())[channel] = float(middle);
    static_cast<float*>(var.data_ptr())[channel] = float(squared / elements);
  }
  return {mean, var};
}

int64_t width() { return LANES; }

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(normlab, library) {
  library.def(
      "epilogue(Tensor y, Tensor? mean, Tensor? var, Tensor? gamma, Tensor? beta, float eps, Tensor? residual, "
      "Tensor? mask, int[] settings) -> Tensor");
  library.def(
      "epilogue_backward(Tensor gradient, Tensor y, int count, Tensor? mean, Tensor? var, Tensor? gamma, Tensor? beta, "
      "float eps, Tensor? residual, Tensor? mask, int[] settings) -> (Tensor, Tensor, Tensor, Tensor)");
  library.def("statistics(Tensor y, int count, int before) -> (Tensor, Tensor)");
  library.def("width() -> int");
}

STABLE_TORCH_LIBRARY_IMPL(normlab, CPU, library) {
  library.impl("epilogue", TORCH_BOX(&epilogue));
  library.impl("epilogue_backward", TORCH_BOX(&epilogue_backward));
  library.impl("statistics", TORCH_BOX(&statistics));
}

STABLE_TORCH_LIBRARY_IMPL(normlab, CompositeExplicitAutograd, library) { library.impl("width", TORCH_BOX(&width)); }

}  // namespace normlab
