// Pooling in windows of 2 x 2 that tile the plane, as most do, with the activation before it: a window is read, activated
// and pooled in registers.
#pragma once

#include "lanes.h"

namespace normlab {

enum Pool { NO_POOL, AVERAGE, MAXIMUM };

// Whether v takes the place of the maximum so far: the first of equal ones stays, as with torch, and a NaN wins.
inline ivec surpasses(vec v, vec best) { return (v > best) | (v != v); }

inline vec larger(vec best, vec v) { return surpasses(v, best) ? v : best; }

// Activations that keep the order of what they take.
constexpr bool monotone(int activation) {
  return activation == NONE || activation == RELU || activation == SIGMOID || activation == TANH;
}

// What lies before the pooling: factors * activation(scale * from + shift + added), of a whole plane, `width` wide.
struct Plane {
  const vec* from;
  int64_t width;
  float scale, shift, middle;
  const vec *added, *factors;  // or none

  vec at_activation(int64_t i) const {
    const vec z = from[i] * scale + shift;
    return added ? z + added[i] : z;
  }
};

// Calls f(window, first, second, third, fourth) with the places of each window's inputs.
template <class F>
inline void each_pair(int64_t width, int64_t height_out, int64_t width_out, const F& f) {
  for (int64_t row = 0; row < height_out; ++row) {
    for (int64_t column = 0; column < width_out; ++column) {
      const int64_t at = 2 * row * width + 2 * column;
      f(row * width_out + column, at, at + 1, at + width, at + width + 1);
    }
  }
}

template <int KIND, int ACTIVATION>
void pool_pairs(const Plane& plane, int64_t height_out, int64_t width_out, vec* out) {
  const Plane p = plane;
  const auto active = [=](int64_t i) {
    const vec value = activate<ACTIVATION>(p.at_activation(i));
    return p.factors ? value * p.factors[i] : value;
  };
  each_pair(p.width, height_out, width_out, [=](int64_t window, int64_t a, int64_t b, int64_t c, int64_t d) {
    if constexpr (KIND == AVERAGE) {
      out[window] = (active(a) + active(b) + active(c) + active(d)) * 0.25f;
    } else if (monotone(ACTIVATION) && !p.factors) {
      const vec upper = larger(p.at_activation(a), p.at_activation(b));
      out[window] = activate<ACTIVATION>(larger(upper, larger(p.at_activation(c), p.at_activation(d))));
    } else {
      out[window] = larger(larger(active(a), active(b)), larger(active(c), active(d)));
    }
  });
}

// The gradient at the activation, z, from that of the pooled plane; its sum, and that of its products with what the norm
// got less its middle.
template <int KIND, int ACTIVATION>
void unpool_pairs(const Plane& plane, int64_t height, int64_t height_out, int64_t width_out, const vec* gradient, vec* z,
                  vec& sum, vec& product) {
  const Plane p = plane;
  vec sums{}, products{};
  const auto active = [=](int64_t i) {
    const Activated result = activate_with_slope<ACTIVATION>(p.at_activation(i));
    return p.factors ? Activated{result.value * p.factors[i], result.slope * p.factors[i]} : result;
  };
  each_pair(p.width, height_out, width_out, [&](int64_t window, int64_t a, int64_t b, int64_t c, int64_t d) {
    const vec g = gradient[window];
    if constexpr (KIND == AVERAGE) {
      for (const int64_t i : {a, b, c, d}) {
        const vec value = 0.25f * g * active(i).slope;
        z[i] = value;
        sums += value;
        products += value * (p.from[i] - p.middle);
      }
    } else {
      struct Candidate {
        vec key, slope, from;  // key: what is compared
      };
      const bool ordered = monotone(ACTIVATION) && !p.factors;
      const auto candidate = [=](int64_t i) {
        if (ordered) {
          const vec key = p.at_activation(i);
          return Candidate{key, key, p.from[i]};
        }
        const Activated result = active(i);
        return Candidate{result.value, result.slope, p.from[i]};
      };
      const auto chosen = [](ivec second, const Candidate& x, const Candidate& y) {
        return Candidate{second ? y.key : x.key, second ? y.slope : x.slope, second ? y.from : x.from};
      };
      const Candidate at_a = candidate(a), at_b = candidate(b), at_c = candidate(c), at_d = candidate(d);
      const ivec right_above = surpasses(at_b.key, at_a.key), right_below = surpasses(at_d.key, at_c.key);
      const Candidate above = chosen(right_above, at_a, at_b), below = chosen(right_below, at_c, at_d);
      const ivec is_below = surpasses(below.key, above.key);
      const Candidate best = chosen(is_below, above, below);
      const vec value = g * (ordered ? activate_with_slope<ACTIVATION>(best.key).slope : best.slope);
      const vec to_above = is_below ? vec{} : value, to_below = is_below ? value : vec{};
      const auto none = [&](const Candidate& x) {  // the slope at NaN is NaN, but for a ReLU's, and none of it is too
        constexpr bool STAYS = ACTIVATION == NONE || ACTIVATION == RELU;
        return STAYS ? vec{} : ordered ? floats(x.key != x.key) : 0.0f * x.slope;
      };
      z[a] = right_above ? none(at_a) : to_above;
      z[b] = right_above ? to_above : none(at_b);
      z[c] = right_below ? none(at_c) : to_below;
      z[d] = right_below ? to_below : none(at_d);
      sums += value;
      products += value * (best.from - p.middle);
    }
  });
  for (int64_t row = 0; row < 2 * height_out; ++row) {  // what no window holds
    if (p.width > 2 * width_out) z[(row + 1) * p.width - 1] = vec{};
  }
  std::fill(z + 2 * height_out * p.width, z + height * p.width, vec{});
  sum = sums;
  product = products;
}

}  // namespace normlab
