// What all kernels share: the vector of lanes, its elementary functions, and the way into torch.
//
// A lane tensor (blocks, *shape, LANES) holds one image per lane (see lanes.py), so that every operation below is
// the scalar one, on LANES images at once. Vectors are the compiler's own extension: one source for AVX-512, AVX2
// and NEON.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif

// Accumulators that fit into the registers beside their operands.
#if defined(__AVX512F__) || defined(__aarch64__)
#define ACCUMULATORS 24
#else
#define ACCUMULATORS 12
#endif

// In front of loops over registers: an array that is indexed by a variable would lie in memory.
#define UNROLL _Pragma("GCC unroll 32")

namespace normlab {

using torch::stable::Tensor;
using std::int64_t;

// Aligned as a float only: torch aligns what it allocates, but a view may begin anywhere.
typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

inline vec splat(float value) { return value - vec{}; }  // not + : that is no copy of -0

// x in a register, where the compiler would read it from memory again at every use, a load for each multiply-add.
inline vec held(vec x) {
#if defined(__AVX512F__)
  asm("" : "+v"(x));
#elif defined(__x86_64__)
  asm("" : "+x"(x));
#elif defined(__aarch64__)
  asm("" : "+w"(x));
#endif
  return x;
}

inline ivec bits(vec x) { return (ivec)x; }
inline vec floats(ivec x) { return (vec)x; }

// x within a limit; NaN stays NaN. Of the comparison the compiler makes two instructions or three, as it may not know
// that the one of x86 gives its second operand, x, where either is NaN.
inline vec at_least(float limit, vec x) {
#if defined(__AVX__)
  asm("vmaxps %0, %1, %0" : "+v"(x) : "v"(splat(limit)));
  return x;
#else
  return x < limit ? splat(limit) : x;
#endif
}

inline vec at_most(float limit, vec x) {
#if defined(__AVX__)
  asm("vminps %0, %1, %0" : "+v"(x) : "v"(splat(limit)));
  return x;
#else
  return x > limit ? splat(limit) : x;
#endif
}

// e^x = 2^n e^f, |f| <= log(2) / 2: 1 + f + f^2 q(f), q minimax for the relative error, 2 ulp in all; NaN stays NaN.
inline vec exponential(vec x) {
  x = at_least(-87.0f, at_most(88.0f, x));
  const vec magic = splat(12582912.0f);  // 1.5 * 2^23: what is added to it is rounded to an integer
  const vec shifted = x * 1.44269504f + magic;
  const vec n = shifted - magic;
  const vec f = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  vec p = splat(1.3814320590e-3f);
  p = p * f + 8.3688510945e-3f;
  p = p * f + 4.1668401086e-2f;
  p = p * f + 1.6666519524e-1f;
  p = p * f + 4.9999993373e-1f;
  p = p * f + 1.0f;
  p = p * f + 1.0f;
  return floats(bits(p) + (bits(shifted) << 23));
}

inline vec sigmoid(vec x) { return 1.0f / (1.0f + exponential(-x)); }

// Odd rational of degree 13/6, as in Eigen: 2 ulp.
inline vec hyperbolic_tangent(vec x) {
  x = at_least(-7.90531110763549805f, at_most(7.90531110763549805f, x));
  const vec s = x * x;
  vec p = splat(-2.76076847742355e-16f);
  p = p * s + 2.00018790482477e-13f;
  p = p * s + -8.60467152213735e-11f;
  p = p * s + 5.12229709037114e-08f;
  p = p * s + 1.48572235717979e-05f;
  p = p * s + 6.37261928875436e-04f;
  p = p * s + 4.89352455891786e-03f;
  vec q = splat(1.19825839466702e-06f);
  q = q * s + 1.18534705686654e-04f;
  q = q * s + 2.26843463243900e-03f;
  q = q * s + 4.89352518554385e-03f;
  return x * p / q;
}

// Odd rational of degree 13/8, as in Eigen: 3 ulp.
inline vec error_function(vec x) {
  x = at_least(-4.0f, at_most(4.0f, x));
  const vec s = x * x;
  vec p = splat(-2.72614225801306e-10f);
  p = p * s + 2.77068142495902e-08f;
  p = p * s + -2.10102402082508e-06f;
  p = p * s + -5.69250639462346e-05f;
  p = p * s + -7.34990630326855e-04f;
  p = p * s + -2.95459980854025e-03f;
  p = p * s + -1.60960333262415e-02f;
  vec q = splat(-1.45660718464996e-05f);
  q = q * s + -2.13374055278905e-04f;
  q = q * s + -1.68282697438203e-03f;
  q = q * s + -7.37332916720468e-03f;
  q = q * s + -1.42647390514189e-02f;
  return x * p / q;
}

enum Activation { NONE, RELU, SIGMOID, TANH, GELU, GELU_TANH, SILU };

// An activation and its derivative at z.
struct Activated {
  vec value, slope;
};

template <int ACTIVATION>
inline vec activate(vec z) {
  if constexpr (ACTIVATION == RELU) return at_least(0.0f, z);
  if constexpr (ACTIVATION == SIGMOID) return sigmoid(z);
  if constexpr (ACTIVATION == TANH) return hyperbolic_tangent(z);
  if constexpr (ACTIVATION == GELU) return z * (0.5f + 0.5f * error_function(z * 0.70710678f));
  if constexpr (ACTIVATION == GELU_TANH) {
    return z * sigmoid(1.59576912f * (z + 0.044715f * z * z * z));
  }
  if constexpr (ACTIVATION == SILU) return z * sigmoid(z);
  return z;
}

template <int ACTIVATION>
inline Activated activate_with_slope(vec z) {
  if constexpr (ACTIVATION == RELU) return {activate<RELU>(z), z <= 0.0f ? vec{} : splat(1.0f)};  // as torch at NaN
  if constexpr (ACTIVATION == SIGMOID) {
    const vec s = sigmoid(z);
    return {s, s * (1.0f - s)};
  }
  if constexpr (ACTIVATION == TANH) {
    const vec t = hyperbolic_tangent(z);
    return {t, 1.0f - t * t};
  }
  if constexpr (ACTIVATION == GELU) {
    const vec below = 0.5f + 0.5f * error_function(z * 0.70710678f);
    return {z * below, below + z * 0.39894228f * exponential(-0.5f * z * z)};
  }
  if constexpr (ACTIVATION == GELU_TANH) {
    const vec s = sigmoid(1.59576912f * (z + 0.044715f * z * z * z));
    const vec inner = 1.59576912f * (1.0f + 0.134145f * z * z);
    return {z * s, s + z * s * (1.0f - s) * inner};
  }
  if constexpr (ACTIVATION == SILU) {
    const vec s = sigmoid(z);
    return {z * s, s * (1.0f + z * (1.0f - s))};
  }
  return {z, splat(1.0f)};
}

// Calls f with the activation as a compile-time constant.
template <class F>
inline void with_activation(int64_t activation, const F& f) {
  switch (activation) {
    case RELU: return f(std::integral_constant<int, RELU>{});
    case SIGMOID: return f(std::integral_constant<int, SIGMOID>{});
    case TANH: return f(std::integral_constant<int, TANH>{});
    case GELU: return f(std::integral_constant<int, GELU>{});
    case GELU_TANH: return f(std::integral_constant<int, GELU_TANH>{});
    case SILU: return f(std::integral_constant<int, SILU>{});
    default: return f(std::integral_constant<int, NONE>{});
  }
}

// All ones in the lanes of the block that hold an example of their own, zero in those that only fill it up.
inline vec examples_of(int64_t block, int64_t count) {
  vec mask{};
  for (int lane = 0; lane < LANES; ++lane) mask[lane] = block * LANES + lane < count ? 1.0f : 0.0f;
  return mask;
}

template <int COUNT>
struct Doubles {
  typedef double type __attribute__((vector_size(8 * COUNT)));
};

// Number i + half onto number i, until one is left: a fixed order.
template <int COUNT, std::size_t... I>
inline double folded(typename Doubles<COUNT>::type x, std::index_sequence<I...>) {
  if constexpr (COUNT == 1) {
    return x[0];
  } else {
    constexpr int HALF = COUNT / 2;
    const typename Doubles<HALF>::type low = __builtin_shufflevector(x, x, int(I)...);
    const typename Doubles<HALF>::type high = __builtin_shufflevector(x, x, int(I + HALF)...);
    return folded<HALF>(low + high, std::make_index_sequence<HALF / 2>{});
  }
}

inline double lane_sum(vec x) {
  return folded<LANES>(__builtin_convertvector(x, Doubles<LANES>::type), std::make_index_sequence<LANES / 2>{});
}

template <int HALF, std::size_t... I>
inline void exchange(vec& a, vec& b, std::index_sequence<I...>) {
  const vec low = __builtin_shufflevector(a, b, ((I & HALF) ? int(I - HALF) + LANES : int(I))...);
  const vec high = __builtin_shufflevector(a, b, ((I & HALF) ? int(I) + LANES : int(I + HALF))...);
  a = low;
  b = high;
}

template <int HALF>
inline void transpose_step(vec* rows) {
  UNROLL for (int i = 0; i < LANES; ++i) {
    if (!(i & HALF)) exchange<HALF>(rows[i], rows[i | HALF], std::make_index_sequence<LANES>{});
  }
}

// A LANES x LANES tile, in place.
inline void transpose(vec* rows) {
  transpose_step<1>(rows);
  transpose_step<2>(rows);
#if LANES >= 8
  transpose_step<4>(rows);
#endif
#if LANES >= 16
  transpose_step<8>(rows);
#endif
}

// Sums over the lanes of LANES vectors at once: lane i of the result is the sum of rows[i]. Overwrites rows.
template <int HALF>
inline void fold_step(vec* rows) {
  UNROLL for (int i = 0; i < HALF; ++i) {
    exchange<HALF>(rows[i], rows[i + HALF], std::make_index_sequence<LANES>{});
    rows[i] += rows[i + HALF];
  }
}

inline vec lane_sums(vec* rows) {
#if LANES >= 16
  fold_step<8>(rows);
#endif
#if LANES >= 8
  fold_step<4>(rows);
#endif
  fold_step<2>(rows);
  fold_step<1>(rows);
  return rows[0];
}

// The sum over the lanes of each of `count` vectors onto what is there.
inline void add_lane_sums(const vec* x, int64_t count, float* out) {
  int64_t first = 0;
  vec rows[LANES];
  for (; first + LANES <= count; first += LANES) {
    UNROLL for (int k = 0; k < LANES; ++k) rows[k] = x[first + k];
    *reinterpret_cast<vec*>(out + first) += lane_sums(rows);
  }
  if (first == count) return;
  UNROLL for (int k = 0; k < LANES; ++k) rows[k] = first + k < count ? x[first + k] : vec{};
  const vec sums = lane_sums(rows);
  for (int64_t k = 0; first + k < count; ++k) out[first + k] += sums[k];
}

// Of `count` vectors; four sums at once, since each addition waits for the one before it.
inline vec total(const vec* x, int64_t count) {
  vec sum[4] = {};
  int64_t i = 0;
  for (; i + 4 <= count; i += 4) {
    UNROLL for (int k = 0; k < 4; ++k) sum[k] += x[i + k];
  }
  for (; i < count; ++i) sum[0] += x[i];
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

// Memory of one thread that outlives the call, so that no step maps pages anew. NUMBER tells scratches apart.
template <int NUMBER>
inline vec* scratch(int64_t vectors) {
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  thread_local std::unique_ptr<void, Free> memory;
  thread_local int64_t held = 0;
  if (vectors > held) {
    memory.reset();
    held = 0;
    memory.reset(std::aligned_alloc(64, (vectors * sizeof(vec) + 63) / 64 * 64));
    if (!memory) throw std::bad_alloc();
    held = vectors;
  }
  return static_cast<vec*>(memory.get());
}

// The shape of a lane tensor: (blocks, channels, height, width, LANES), or (blocks, channels, LANES).
struct Shape {
  int64_t blocks, channels, height, width;

  Shape(int64_t blocks, int64_t channels, int64_t height, int64_t width)
      : blocks(blocks), channels(channels), height(height), width(width) {}
  explicit Shape(const Tensor& x)
      : blocks(x.size(0)),
        channels(x.size(1)),
        height(x.dim() == 5 ? x.size(2) : 1),
        width(x.dim() == 5 ? x.size(3) : 1) {
    STD_TORCH_CHECK(x.dim() == 5 || x.dim() == 3, "expected a lane tensor of 3 or 5 dimensions, got ", x.dim());
    STD_TORCH_CHECK(x.size(x.dim() - 1) == LANES, "expected ", LANES, " lanes, got ", x.size(x.dim() - 1));
    STD_TORCH_CHECK(x.numel() > 0, "expected one number at least");
  }
  void expect(int64_t blocks_, int64_t channels_, int64_t height_, int64_t width_) const {
    STD_TORCH_CHECK(blocks == blocks_ && channels == channels_ && height == height_ && width == width_,
                    "expected lanes of (", blocks_, ", ", channels_, ", ", height_, ", ", width_, "), got (", blocks, ", ",
                    channels, ", ", height, ", ", width, ")");
  }
  void expect_count(int64_t count) const {
    STD_TORCH_CHECK(count > 0 && (count + LANES - 1) / LANES == blocks, "expected the count of ", blocks,
                    " blocks of lanes, got ", count);
  }
  int64_t plane() const { return height * width; }
  int64_t block() const { return channels * height * width; }
};

inline void check(const Tensor& x) {
  STD_TORCH_CHECK(x.is_cpu() && x.scalar_type() == torch::headeronly::ScalarType::Float && x.is_contiguous(),
                  "expected a contiguous float32 tensor on the CPU");
}

inline const vec* vectors(const Tensor& x) {
  check(x);
  return static_cast<const vec*>(x.data_ptr());
}
inline vec* written(Tensor& x) { return static_cast<vec*>(x.data_ptr()); }

inline const float* numbers(const Tensor& x) {
  check(x);
  return static_cast<const float*>(x.data_ptr());
}

// One number a channel, or none.
inline const float* numbers(const std::optional<Tensor>& x, int64_t channels) {
  STD_TORCH_CHECK(!x || x->numel() == channels, "expected ", channels, " numbers, got ", x->numel());
  return x ? numbers(*x) : nullptr;
}
// Lanes of the same shape, or none.
inline const vec* vectors(const std::optional<Tensor>& x, const Shape& shape) {
  if (!x) return nullptr;
  Shape(*x).expect(shape.blocks, shape.channels, shape.height, shape.width);
  return vectors(*x);
}

// Numbers of a shape, not yet written. torch::stable::empty looks its operator up by name at every call.
inline Tensor unwritten(torch::headeronly::IntHeaderOnlyArrayRef shape) {
  const int64_t dim = shape.size();
  std::vector<int64_t> strides(dim);
  for (int64_t i = dim - 1, stride = 1; i >= 0; stride *= shape[i--]) strides[i] = stride;
  AtenTensorHandle handle;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(dim, shape.data(), strides.data(), aoti_torch_dtype_float32(),
                                                         aoti_torch_device_type_cpu(), 0, &handle));
  return Tensor(handle);
}
inline Tensor unwritten(std::initializer_list<int64_t> shape) { return unwritten({shape.begin(), shape.size()}); }
inline Tensor unwritten_like(const Tensor& x) { return unwritten(x.sizes()); }

template <class F>
inline void parallel(int64_t count, const F& f) {
  torch::stable::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) f(i);
  });
}

}  // namespace normlab
