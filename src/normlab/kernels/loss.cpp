// Softmax cross-entropy of logits in lanes (Bridle 1990), and the norm of what it gave: what a training step ends with.
#include "loss.h"

#include <cmath>

namespace normlab {

std::tuple<Tensor, Tensor> cross_entropy(const Tensor& logits, int64_t count, const Tensor& targets) {
  using torch::headeronly::ScalarType;
  const Shape shape(logits);
  STD_TORCH_CHECK(logits.dim() == 3, "expected logits (N, classes)");
  shape.expect_count(count);
  const int64_t classes = shape.channels;
  STD_TORCH_CHECK(targets.is_cpu() && targets.is_contiguous() && targets.dim() == 1 && targets.size(0) == count &&
                      targets.scalar_type() == ScalarType::Long,
                  "expected ", count, " targets as contiguous int64 on the CPU");
  const int64_t* const labels = static_cast<const int64_t*>(targets.data_ptr());
  for (int64_t i = 0; i < count; ++i) {
    STD_TORCH_CHECK(labels[i] >= 0 && labels[i] < classes, "expected targets from 0 to ", classes - 1);
  }
  Tensor gradient = unwritten_like(logits);
  const vec* const all = vectors(logits);
  vec* const out = written(gradient);
  std::vector<double> losses(shape.blocks);
  std::vector<int64_t> right(shape.blocks);
  parallel(shape.blocks, [&](int64_t block) {
    const vec* const z = all + block * classes;
    vec* const g = out + block * classes;
    vec largest = z[0];
    for (int64_t c = 1; c < classes; ++c) largest = z[c] > largest || z[c] != z[c] ? z[c] : largest;
    vec sum{};
    for (int64_t c = 0; c < classes; ++c) sum += g[c] = exponential(z[c] - largest);
    const vec present = examples_of(block, count), share = 1.0f / (sum * float(count));
    for (int64_t c = 0; c < classes; ++c) g[c] = present != 0.0f ? g[c] * share : vec{};
    for (int64_t lane = 0; lane < LANES && block * LANES + lane < count; ++lane) {
      const int64_t label = labels[block * LANES + lane];
      const float own = z[label][lane];
      g[label][lane] -= 1.0f / float(count);
      losses[block] += std::log(double(sum[lane])) + (double(largest[lane]) - double(own));
      int64_t first = 0;
      while (first < label && !(z[first][lane] >= own)) ++first;
      right[block] += first == label && own == largest[lane];
    }
  });
  Tensor outcome = torch::stable::empty({2}, ScalarType::Double);
  double* const numbers_out = static_cast<double*>(outcome.data_ptr());
  numbers_out[0] = numbers_out[1] = 0;
  for (int64_t block = 0; block < shape.blocks; ++block) {
    numbers_out[0] += losses[block];
    numbers_out[1] += double(right[block]);
  }
  numbers_out[0] /= double(count);
  return {outcome, gradient};
}

double total_norm(const std::vector<Tensor>& tensors) {
  constexpr int64_t RUN = 64;  // vectors that are summed in float32
  double sum = 0;
  for (const Tensor& tensor : tensors) {
    const float* const x = numbers(tensor);
    const int64_t count = tensor.numel(), whole = count / LANES;
    const vec* const all = reinterpret_cast<const vec*>(x);
    for (int64_t first = 0; first < whole; first += RUN) {
      vec squares[2] = {};
      const int64_t end = std::min(first + RUN, whole);
      for (int64_t i = first; i < end; ++i) squares[i & 1] += all[i] * all[i];
      sum += lane_sum(squares[0] + squares[1]);
    }
    for (int64_t i = whole * LANES; i < count; ++i) sum += double(x[i]) * x[i];
  }
  return std::sqrt(sum);
}

STABLE_TORCH_LIBRARY_FRAGMENT(normlab, library) {
  library.def("cross_entropy(Tensor logits, int count, Tensor targets) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(normlab, CPU, library) {
  library.impl("cross_entropy", TORCH_BOX(&cross_entropy));
}

}  // namespace normlab
