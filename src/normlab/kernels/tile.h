// The register tile that all products are made of: OUTPUTS x COLUMNS accumulators, each a vector of lanes,
//
//   out[o][c] (+)= sum over r, i, j of w[r, i, j, o] * in[r, i, j, c]
//
// where a column is a pixel of the row (convolutions) or a block of images (linear layers), r an input channel or
// feature, (i, j) a tap of the kernel. One weight, broadcast, feeds COLUMNS multiply-adds; one vector of images
// feeds OUTPUTS.
#pragma once

#include "lanes.h"

namespace normlab {

// Strides of `in` and `out` count vectors, those of `weight` numbers.
struct Product {
  const vec* in;
  int64_t in_r, in_i, in_j, in_column;
  const float* weight;
  int64_t weight_r, weight_i, weight_j, weight_output;
  vec* out;
  int64_t out_output, out_column;
  int64_t r, i, j;
  const float* bias;  // of the tile's outputs, or none
  bool add;           // to what is there
};

constexpr int MAX_OUTPUTS = 8;
constexpr int MAX_COLUMNS = 8;

// sum[a][b] += left(a) * right(b). The side of fewer vectors stays in registers while the other passes by one by one:
// both beside the accumulators are more than some machines have.
template <int A, int B, class Left, class Right>
inline void add_products(vec (&sum)[A][B], const Left& left, const Right& right) {
  if constexpr (A < B) {
    vec kept[A];
    UNROLL for (int a = 0; a < A; ++a) kept[a] = held(left(a));
    UNROLL for (int b = 0; b < B; ++b) {
      const vec passing = held(right(b));
      UNROLL for (int a = 0; a < A; ++a) sum[a][b] += kept[a] * passing;
    }
  } else {
    vec kept[B];
    UNROLL for (int b = 0; b < B; ++b) kept[b] = held(right(b));
    UNROLL for (int a = 0; a < A; ++a) {
      const vec passing = held(left(a));
      UNROLL for (int b = 0; b < B; ++b) sum[a][b] += passing * kept[b];
    }
  }
}

// UNIT: neighbouring columns and neighbouring weights lie side by side.
template <int OUTPUTS, int COLUMNS, bool UNIT>
void multiply(const Product& p) {
  vec sum[OUTPUTS][COLUMNS];
  UNROLL for (int o = 0; o < OUTPUTS; ++o) {
    UNROLL for (int c = 0; c < COLUMNS; ++c) {
      sum[o][c] = p.add ? p.out[o * p.out_output + c * p.out_column] : splat(p.bias ? p.bias[o] : 0.0f);
    }
  }
  const int64_t in_column = UNIT ? 1 : p.in_column, weight_output = UNIT ? 1 : p.weight_output;
  for (int64_t r = 0; r < p.r; ++r) {
    for (int64_t i = 0; i < p.i; ++i) {
      const vec* in = p.in + r * p.in_r + i * p.in_i;
      const float* weight = p.weight + r * p.weight_r + i * p.weight_i;
      for (int64_t j = 0; j < p.j; ++j, in += p.in_j, weight += p.weight_j) {
        add_products(
            sum, [&](int o) { return splat(weight[o * weight_output]); }, [&](int c) { return in[c * in_column]; });
      }
    }
  }
  UNROLL for (int o = 0; o < OUTPUTS; ++o) {
    UNROLL for (int c = 0; c < COLUMNS; ++c) p.out[o * p.out_output + c * p.out_column] = sum[o][c];
  }
}

// The innermost loop should be a long one: where there are more channels than taps in a row, theirs.
inline void lengthen(Product& p) {
  if (p.j >= p.r) return;
  std::swap(p.r, p.j);
  std::swap(p.in_r, p.in_j);
  std::swap(p.weight_r, p.weight_j);
}

using Multiply = void (*)(const Product&);

template <bool UNIT, int OUTPUTS, std::size_t... COLUMN>
constexpr void fill_row(Multiply* row, std::index_sequence<COLUMN...>) {
  ((row[COLUMN] = OUTPUTS * (int(COLUMN) + 1) <= ACCUMULATORS ? &multiply<OUTPUTS, (OUTPUTS * (int(COLUMN) + 1) <= ACCUMULATORS ? int(COLUMN) + 1 : 1), UNIT> : nullptr), ...);
}

template <bool UNIT>
struct Multiplies {
  Multiply of[MAX_OUTPUTS][MAX_COLUMNS];
  constexpr Multiplies() : of{} { fill(std::make_index_sequence<MAX_OUTPUTS>{}); }
  template <std::size_t... OUTPUT>
  constexpr void fill(std::index_sequence<OUTPUT...>) {
    (fill_row<UNIT, int(OUTPUT) + 1>(of[OUTPUT], std::make_index_sequence<MAX_COLUMNS>{}), ...);
  }
};

// How a length is cut: into `parts` of nearly the same size.
struct Cut {
  int64_t length, parts;
  int64_t begin(int64_t part) const { return part * length / parts; }
  int64_t size(int64_t part) const { return begin(part + 1) - begin(part); }
  int64_t least() const { return length / parts; }
  int64_t count(bool larger) const { return larger ? length % parts : parts - length % parts; }
};

struct Tiling {
  Cut outputs, columns;
};

// The tiling with the least cost by a plain model: a multiply-add takes a slot, so does the load of a vector; the
// load of what belongs to an output (a number, or a vector) takes `output_load`. Eight multiply-adds must be in flight.
inline Tiling tiling(int64_t outputs, int64_t columns, double output_load = 0.5, int64_t accumulators = ACCUMULATORS) {
  Tiling best{};
  double least = 1e30;
  for (int64_t o = 1; o <= std::min<int64_t>(MAX_OUTPUTS, outputs); ++o) {
    for (int64_t c = 1; c <= std::min<int64_t>({MAX_COLUMNS, columns, accumulators / o}); ++c) {
      const Cut by_output{outputs, (outputs + o - 1) / o}, by_column{columns, (columns + c - 1) / c};
      double cost = 0;
      for (int64_t wide = 0; wide < 2; ++wide) {  // sizes are the quotient, and as often as the remainder one more
        for (int64_t high = 0; high < 2; ++high) {
          const double height = by_output.least() + high, width = by_column.least() + wide;
          const double loads = width + output_load * height;
          const double slots = std::max({height * width, loads, 8.0}) + 1.0 + 0.01 * loads;
          cost += slots * by_output.count(high) * by_column.count(wide);
        }
      }
      if (cost < least) {
        least = cost;
        best = {by_output, by_column};
      }
    }
  }
  return best;
}

}  // namespace normlab
