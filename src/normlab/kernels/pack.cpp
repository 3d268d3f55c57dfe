// pack and unpack: between examples one after the other and examples side by side in the lanes.
#include "lanes.h"

namespace normlab {
namespace {

typedef uint8_t bytes __attribute__((vector_size(LANES), aligned(1), may_alias));
typedef int16_t shorts __attribute__((vector_size(2 * LANES)));

// LANES numbers that lie side by side. Bytes grow twofold at a time: at once, compilers convert one by one.
inline vec floats_at(const float* x) { return *reinterpret_cast<const vec*>(x); }

inline vec floats_at(const uint8_t* x) {
  const shorts wider = __builtin_convertvector(*reinterpret_cast<const bytes*>(x), shorts);
  return __builtin_convertvector(__builtin_convertvector(wider, ivec), vec);
}

template <class T>
void pack_block(const T* x, const int64_t* index, int64_t count, int64_t features, double scale, float shift,
                int64_t block, vec* out) {
  const float high = float(scale), low = float(scale - high);
  const auto scaled = [&](auto value) {  // bytes as if in float64: with scale 1 / 255 what b / 255 gives
    if constexpr (sizeof(T) == 1) return value * high + (value * low + shift);
    return value * high + shift;
  };
  const T* row[LANES];
  for (int64_t lane = 0; lane < LANES; ++lane) {
    const int64_t example = std::min(block * LANES + lane, count - 1);
    row[lane] = x + (index ? index[example] : example) * features;
  }
  int64_t f = 0;
  for (; f + LANES <= features; f += LANES) {
    vec tile[LANES];
    UNROLL for (int lane = 0; lane < LANES; ++lane) tile[lane] = floats_at(row[lane] + f);
    transpose(tile);
    UNROLL for (int i = 0; i < LANES; ++i) out[f + i] = scaled(tile[i]);
  }
  for (; f < features; ++f) {
    for (int lane = 0; lane < LANES; ++lane) out[f][lane] = scaled(float(row[lane][f]));
  }
}

Tensor pack(const Tensor& x, const std::optional<Tensor>& index, double scale, double shift) {
  using torch::headeronly::ScalarType;
  STD_TORCH_CHECK(x.is_cpu() && x.is_contiguous() && x.dim() >= 2, "expected contiguous examples (N, ...) on the CPU");
  const int64_t count = index ? index->size(0) : x.size(0), examples = x.size(0);
  STD_TORCH_CHECK(count > 0, "expected one example at least");
  const int64_t* rows = nullptr;
  if (index) {
    STD_TORCH_CHECK(index->is_contiguous() && index->scalar_type() == ScalarType::Long && index->dim() == 1,
                    "expected int64 indices (N,)");
    rows = static_cast<const int64_t*>(index->data_ptr());
    for (int64_t i = 0; i < count; ++i) {
      STD_TORCH_CHECK(rows[i] >= 0 && rows[i] < examples, "expected indices from 0 to ", examples - 1);
    }
  }
  const int64_t features = x.numel() / std::max<int64_t>(examples, 1);
  std::vector<int64_t> shape(x.sizes().begin(), x.sizes().end());
  shape[0] = (count + LANES - 1) / LANES;
  shape.push_back(LANES);
  Tensor out = unwritten(shape);
  vec* to = written(out);
  const bool bytes = x.scalar_type() == ScalarType::Byte;
  STD_TORCH_CHECK(bytes || x.scalar_type() == ScalarType::Float, "expected uint8 or float32");
  parallel(shape[0], [&](int64_t block) {
    vec* const block_out = to + block * features;
    if (bytes) {
      pack_block(static_cast<const uint8_t*>(x.data_ptr()), rows, count, features, scale, shift, block, block_out);
    } else {
      pack_block(static_cast<const float*>(x.data_ptr()), rows, count, features, scale, shift, block, block_out);
    }
  });
  return out;
}

Tensor unpack(const Tensor& data, int64_t count) {
  const vec* from = vectors(data);
  std::vector<int64_t> shape(data.sizes().begin(), data.sizes().end());
  STD_TORCH_CHECK(shape.size() >= 2 && shape.back() == LANES && count > 0 && (count + LANES - 1) / LANES == shape[0],
                  "expected the lanes of ", count, " examples");
  shape.pop_back();
  const int64_t blocks = shape[0], features = data.numel() / (blocks * LANES);
  shape[0] = count;
  Tensor out = unwritten(shape);
  float* to = static_cast<float*>(out.data_ptr());
  parallel(blocks, [&](int64_t block) {
    const int64_t first = block * LANES, present = std::min<int64_t>(LANES, count - first);
    int64_t f = 0;
    for (; f + LANES <= features; f += LANES) {
      vec tile[LANES];
      for (int i = 0; i < LANES; ++i) tile[i] = from[block * features + f + i];
      transpose(tile);
      for (int64_t lane = 0; lane < present; ++lane) {
        *reinterpret_cast<vec*>(to + (first + lane) * features + f) = tile[lane];
      }
    }
    for (; f < features; ++f) {
      for (int64_t lane = 0; lane < present; ++lane) to[(first + lane) * features + f] = from[block * features + f][lane];
    }
  });
  return out;
}

// The gradient of unpack: zero in the lanes that only fill the last block up.
Tensor unpack_backward(const Tensor& gradient) {
  const float* from = numbers(gradient);
  STD_TORCH_CHECK(gradient.dim() >= 2 && gradient.size(0) > 0, "expected one example at least");
  std::vector<int64_t> shape(gradient.sizes().begin(), gradient.sizes().end());
  const int64_t count = shape[0], features = gradient.numel() / count;
  shape[0] = (count + LANES - 1) / LANES;
  shape.push_back(LANES);
  Tensor out = unwritten(shape);
  vec* to = written(out);
  parallel(shape[0], [&](int64_t block) {
    pack_block(from, nullptr, count, features, 1.0, 0.0f, block, to + block * features);
    if ((block + 1) * LANES > count) {
      const vec present = examples_of(block, count);
      for (int64_t f = 0; f < features; ++f) {
        vec& value = to[block * features + f];
        value = present != 0.0f ? value : vec{};
      }
    }
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(normlab, library) {
  library.def("pack(Tensor x, Tensor? index, float scale, float shift) -> Tensor");
  library.def("unpack(Tensor data, int count) -> Tensor");
  library.def("unpack_backward(Tensor gradient) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(normlab, CPU, library) {
  library.impl("pack", TORCH_BOX(&pack));
  library.impl("unpack", TORCH_BOX(&unpack));
  library.impl("unpack_backward", TORCH_BOX(&unpack_backward));
}

}  // namespace normlab
