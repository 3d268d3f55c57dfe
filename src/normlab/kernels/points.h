// Winograd's transforms (Lavin & Gray 2016, section 4) of OUTPUTS neighbours of a row that TAPS taps reach, OUTPUTS + TAPS
// = 7: as a product of polynomials at six points the convolution takes six multiplications instead of OUTPUTS * TAPS,
//
//   y = A^T ((G w) * (B^T x)),  dx = B ((G w) * (A dy)),  dw = G^T ((B^T x) * (A dy)).
//
// At the points 0, 1, -1, 1/2, -2 and infinity rounding is least: 1.5 to 1.8 times that of adding tap by tap; and B^T and
// A have few bits. Numbers at the points lie `step` apart.
#pragma once

#include <array>

#include "lanes.h"

namespace normlab {

constexpr int POINTS = 6;
constexpr std::array<double, POINTS - 1> FINITE{0.0, 1.0, -1.0, 0.5, -2.0};

// G, by point: powers, less the factors that B^T leaves out.
template <int TAPS>
constexpr auto weights_at_points() {
  std::array<std::array<double, TAPS>, POINTS> g{};
  for (int i = 0; i < POINTS - 1; ++i) {
    double power = 1.0;
    for (const double other : FINITE) {
      if (other != FINITE[i]) power /= FINITE[i] - other;
    }
    for (int tap = 0; tap < TAPS; ++tap, power *= FINITE[i]) g[i][tap] = power;
  }
  g[POINTS - 1][TAPS - 1] = 1.0;
  return g;
}

// B^T: row i are the coefficients of the product of (x - other) over all other finite points.
inline void inputs_at_points(const vec* x, vec* at, int64_t step) {
  const vec second = x[2] - x[0], third = x[3] - x[1], fourth = x[4] - x[2], fifth = x[5] - x[3];
  const vec even = x[4] + 1.5f * x[3] - x[2], odd = x[3] + 1.5f * x[2] - x[1];
  at[0 * step] = fourth + 1.5f * third - second;
  at[1 * step] = even + odd;
  at[2 * step] = even - odd;
  at[3 * step] = fourth + 2.0f * third;
  at[4 * step] = fourth - 0.5f * third;
  at[5 * step] = fifth + 1.5f * fourth - third;
}

// B.
inline void points_to_inputs(const vec* at, int64_t step, vec* x) {
  const vec zero = at[0 * step], half = at[3 * step], two = at[4 * step], infinite = at[5 * step];
  const vec even = at[1 * step] + at[2 * step], odd = at[1 * step] - at[2 * step];
  const vec third = 1.5f * zero + 2.0f * half - 0.5f * two - infinite;
  const vec fourth = zero + half + two + 1.5f * infinite;
  x[0] = zero;
  x[1] = -third - odd;
  x[2] = 1.5f * odd - zero - fourth - even;
  x[3] = third + odd + 1.5f * even - infinite;
  x[4] = fourth + even;
  x[5] = infinite;
}

// A^T: row j are the powers j of the points.
template <int OUTPUTS>
inline void points_to_outputs(const vec* at, int64_t step, vec* y) {
  const vec even = at[1 * step] + at[2 * step], odd = at[1 * step] - at[2 * step];
  vec half = at[3 * step], two = at[4 * step];
  y[0] = (at[0 * step] + even) + (half + two);
  UNROLL for (int j = 1; j < OUTPUTS; ++j) {
    half *= 0.5f;
    two *= -2.0f;
    y[j] = (j % 2 ? odd : even) + (half + two);
  }
  y[OUTPUTS - 1] += at[5 * step];
}

// A.
template <int OUTPUTS>
inline void outputs_at_points(const vec* y, vec* at, int64_t step) {
  vec even = y[0], odd = y[1], half = y[OUTPUTS - 1], two = y[OUTPUTS - 1];
  UNROLL for (int j = 2; j < OUTPUTS; ++j) (j % 2 ? odd : even) += y[j];
  UNROLL for (int j = OUTPUTS - 2; j >= 0; --j) {
    half = y[j] + 0.5f * half;
    two = y[j] - 2.0f * two;
  }
  at[0 * step] = y[0];
  at[1 * step] = even + odd;
  at[2 * step] = even - odd;
  at[3 * step] = half;
  at[4 * step] = two;
  at[5 * step] = y[OUTPUTS - 1];
}

}  // namespace normlab
