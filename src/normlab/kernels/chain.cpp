// A chain of stages as one op forward and one backward: what is called between the stages of a small network costs
// as much as the stages.
#include <cmath>
#include <iterator>

#include "stage.h"

namespace normlab {
namespace {

enum Head { NO_HEAD, CONVOLUTION, LINEAR };
enum Norm { NO_NORM, BATCH, FIXED };
enum Tracking { UNTRACKED, FINITE_ONLY, ALWAYS };

// As `chain.py` writes them: NUMBERS whole numbers, TENSORS tensors and FACTORS factors for each stage.
constexpr int64_t NUMBERS = 20, TENSORS = 10, FACTORS = 2, SAVED = 4, GRADIENTS = 5;

struct Stage {
  int64_t head, tracking, inner_residual, flatten, needs_gradient;
  Norm norm;
  Numbers geometry;
  MaybeTensor weight, bias, tracked, nonfinite;
  Epilogue epilogue;  // mean and var: those that are kept, or fixed
  double share;

  Stage(const Numbers& program, const std::vector<Tensor>& tensors, const std::vector<double>& factors, int64_t index) {
    const int64_t* n = program.data() + index * NUMBERS;
    head = n[0];
    geometry = {n[1], n[2], n[3], n[4]};
    norm = Norm(n[7]);
    Epilogue& e = epilogue;
    e.before = n[5];
    e.activation = n[6];
    e.batch = norm == BATCH;
    e.pool = n[8];
    for (int axis = 0; axis < 2; ++axis) {
      e.size[axis] = n[9 + axis];
      e.stride[axis] = n[11 + axis];
      e.padding[axis] = n[13 + axis];
    }
    e.count_padding = n[15];
    tracking = n[16];
    inner_residual = n[17];
    flatten = n[18];
    needs_gradient = n[19];
    MaybeTensor* const all[TENSORS] = {&weight, &bias,     &e.gamma, &e.beta,     &e.mean,
                                       &e.var,  &tracked, &nonfinite, &e.residual, &e.mask};
    for (int64_t i = 0; i < TENSORS; ++i) {
      const Tensor& given = tensors[index * TENSORS + i];
      if (given.numel() > 0) *all[i] = given;
    }
    e.eps = factors[index * FACTORS];
    share = factors[index * FACTORS + 1];
  }
  // As the epilogue of this batch: with its own statistics, and the residual from wherever it comes.
  Epilogue with(const Tensor& mean, const Tensor& var, const std::vector<Tensor>& saved) const {
    Epilogue e = epilogue;
    if (norm == NO_NORM) e.mean = e.var = std::nullopt;
    if (norm == BATCH) {
      e.mean = mean;
      e.var = var;
    }
    if (inner_residual >= 0) e.residual = saved[inner_residual * SAVED];
    return e;
  }
};

std::vector<Stage> stages_of(const Numbers& program, const std::vector<Tensor>& tensors,
                             const std::vector<double>& factors) {
  const int64_t count = factors.size() / FACTORS;
  STD_TORCH_CHECK(count > 0 && int64_t(program.size()) == count * NUMBERS && int64_t(tensors.size()) == count * TENSORS,
                  "expected numbers, tensors and factors of as many stages, one at least");
  std::vector<Stage> stages;
  for (int64_t i = 0; i < count; ++i) stages.emplace_back(program, tensors, factors, i);
  return stages;
}

// Results may not share their memory, not even none.
Tensor none() { return empty({0}); }

Tensor flattened(const Tensor& x) {
  return x.dim() == 5 ? torch::stable::view(x, Numbers{x.size(0), x.size(1) * x.size(2) * x.size(3), LANES}) : x;
}

// Pixels of a channel behind the stage's convolution.
int64_t plane_of(const Tensor& x, const Stage& stage) {
  int64_t pixels = 1;
  for (int axis = 0; axis < 2; ++axis) {
    const int64_t padded = x.size(2 + axis) + 2 * stage.geometry[2 + axis];
    pixels *= (padded - stage.weight->size(2 + axis)) / stage.geometry[axis] + 1;
  }
  return pixels;
}

// Saved for each stage: what it gave, what its norm got, and the statistics of the batch; empty where there is none.
std::vector<Tensor> chain(const Tensor& x, int64_t count, std::vector<Tensor> tensors, Numbers program,
                          std::vector<double> factors) {
  const std::vector<Stage> stages = stages_of(program, tensors, factors);
  std::vector<Tensor> saved;
  Tensor value = x;
  STD_TORCH_CHECK(x.size(0) == (count + LANES - 1) / LANES && count > 0, "expected the lanes of ", count, " examples");
  for (const Stage& stage : stages) {
    STD_TORCH_CHECK(stage.inner_residual < int64_t(saved.size()) / SAVED, "expected a residual from a stage before");
    STD_TORCH_CHECK((stage.head == NO_HEAD) != bool(stage.weight), "expected a weight with a head");
    const bool needs = stage.norm == FIXED || stage.tracking, has = stage.epilogue.mean && stage.epilogue.var;
    STD_TORCH_CHECK(has || (!needs && !stage.epilogue.mean && !stage.epilogue.var), "expected mean and var, or neither");
    if (stage.flatten) value = flattened(value);
    const int64_t blocks = value.size(0), channels = stage.weight ? stage.weight->size(0) : value.size(1);
    std::optional<Statistics> statistics;
    if (stage.norm == BATCH) statistics.emplace(blocks, channels, count, stage.epilogue.before);
    Tensor y = value;
    if (stage.head == CONVOLUTION) {
      y = conv2d(value, *stage.weight, stage.bias, stage.geometry, [&](int64_t block, const float* outputs) {
        if (statistics) statistics->add(block, (const vec*)outputs, plane_of(value, stage));
      });
    } else if (stage.head == LINEAR) {
      y = linear(value, *stage.weight, stage.bias);
    }
    const Shape shape(y);
    Tensor mean = none(), var = none();
    if (statistics) {
      if (stage.head != CONVOLUTION) {
        const vec* const all = vectors(y);
        parallel(blocks, [&](int64_t block) { statistics->add(block, all + block * shape.block(), shape.plane()); });
      }
      std::tie(mean, var) = statistics->merged(shape.plane());
    }
    const Epilogue epilogue = stage.with(mean, var, saved);
    const bool alone = epilogue.nothing();
    value = alone ? (stage.head == NO_HEAD ? torch::stable::clone(y) : y) : epilogue.forward(y);
    saved.push_back(value);
    saved.push_back(stage.head == NO_HEAD || alone ? none() : y);
    saved.push_back(mean);
    saved.push_back(var);
  }
  return saved;
}

// What the norm keeps of a batch of `elements` values in each channel; see BatchNorm2d.
void keep(const Stage& stage, const Tensor& mean, const Tensor& var, double elements) {
  const int64_t channels = mean.numel();
  const float *m = numbers(mean), *v = numbers(var);
  const double unbias = elements / (elements - 1);
  double total = 0;
  for (int64_t i = 0; i < channels; ++i) total += float(v[i] * unbias);
  if (stage.tracking == FINITE_ONLY && !std::isfinite(total)) {
    if (stage.nonfinite) ++*static_cast<int64_t*>(stage.nonfinite->data_ptr());
    return;
  }
  double share = stage.share;
  if (stage.tracked) {
    const int64_t batches = ++*static_cast<int64_t*>(stage.tracked->data_ptr());
    if (share < 0) share = 1.0 / batches;  // the cumulative mean
  }
  check(*stage.epilogue.mean);
  check(*stage.epilogue.var);
  float* const running_mean = static_cast<float*>(stage.epilogue.mean->data_ptr());
  float* const running_var = static_cast<float*>(stage.epilogue.var->data_ptr());
  for (int64_t i = 0; i < channels; ++i) {
    running_mean[i] += float(share) * (m[i] - running_mean[i]);
    running_var[i] += float(share) * (float(v[i] * unbias) - running_var[i]);
  }
}

// Moves the running statistics among `tensors` by what `chain` saved of a batch.
void track(const Tensor& x, int64_t count, std::vector<Tensor> tensors, std::vector<Tensor> saved, Numbers program,
           std::vector<double> factors) {
  const std::vector<Stage> stages = stages_of(program, tensors, factors);
  STD_TORCH_CHECK(saved.size() == stages.size() * SAVED, "expected what `chain` saved");
  for (int64_t i = 0; i < int64_t(stages.size()); ++i) {
    if (stages[i].norm != BATCH || !stages[i].tracking) continue;
    const Tensor before = i ? saved[(i - 1) * SAVED] : x;
    const Shape y(stages[i].head ? saved[i * SAVED + 1] : stages[i].flatten ? flattened(before) : before);
    keep(stages[i], saved[i * SAVED + 2], saved[i * SAVED + 3], double(count) * y.plane());
  }
}

void add(Tensor& sum, const Tensor& more) {
  if (!sum.numel()) {
    sum = more;
    return;
  }
  Tensor result = torch::stable::empty_like(sum);
  const float *a = numbers(sum), *b = numbers(more);
  float* const out = static_cast<float*>(result.data_ptr());
  const int64_t count = sum.numel();
  for (int64_t i = 0; i < count; ++i) out[i] = a[i] + b[i];
  sum = result;
}

// The gradient of x, then those of weight, bias, gamma, beta and the residual from outside for each stage; empty where
// there is none.
std::vector<Tensor> chain_backward(const Tensor& gradient, const Tensor& x, int64_t count, std::vector<Tensor> tensors,
                                   std::vector<Tensor> saved, Numbers program, std::vector<double> factors,
                                   bool needs_x) {
  const std::vector<Stage> stages = stages_of(program, tensors, factors);
  const int64_t length = stages.size();
  STD_TORCH_CHECK(int64_t(saved.size()) == length * SAVED && saved[(length - 1) * SAVED].numel() == gradient.numel(),
                  "expected what `chain` saved, and the gradient of its result");
  std::vector<Tensor> result, flowing;  // flowing[i]: into stage i
  std::generate_n(std::back_inserter(result), 1 + length * GRADIENTS, none);
  std::generate_n(std::back_inserter(flowing), length + 1, none);
  flowing[length] = gradient;
  int64_t first = 0;
  while (!needs_x && first < length && !stages[first].needs_gradient) ++first;
  for (int64_t i = length - 1; i >= first; --i) {
    const Stage& stage = stages[i];
    const Tensor before = i ? saved[(i - 1) * SAVED] : x;
    const Tensor input = stage.flatten ? flattened(before) : before;
    const Tensor& y = stage.head == NO_HEAD ? input : saved[i * SAVED + 1];
    Tensor g = std::exchange(flowing[i + 1], none());
    Tensor* const own = result.data() + 1 + i * GRADIENTS;
    const bool onward = i > first || needs_x;
    const Epilogue epilogue = stage.with(saved[i * SAVED + 2], saved[i * SAVED + 3], saved);
    std::optional<EpilogueBackward> behind;
    if (!epilogue.nothing()) {
      behind.emplace(epilogue, g, y, count);
      own[2] = behind->gamma;
      own[3] = behind->beta;
      if (stage.inner_residual >= 0) {
        add(flowing[stage.inner_residual + 1], behind->residual);
      } else {
        own[4] = behind->residual;
      }
      if (stage.head != CONVOLUTION) g = behind->input();
    }
    if (stage.head == CONVOLUTION) {
      const Gradient of_block = [&](int64_t block, float* room) -> const float* {
        if (!behind) return numbers(g) + block * Shape(g).block() * LANES;
        behind->finish(block, (vec*)room);
        return room;
      };
      Gradients found = conv2d_backward(of_block, input, *stage.weight, stage.geometry, onward, stage.needs_gradient);
      own[0] = found.weight;
      own[1] = found.bias;
      g = found.input;
    } else if (stage.head == LINEAR) {
      Gradients found = linear_backward(g, input, *stage.weight, onward, stage.needs_gradient);
      own[0] = found.weight;
      own[1] = found.bias;
      g = found.input;
    }
    if (!onward) break;
    if (stage.flatten && before.dim() == 5) {
      g = torch::stable::view(g, Numbers{before.size(0), before.size(1), before.size(2), before.size(3), LANES});
    }
    add(flowing[i], g);
  }
  if (needs_x) result[0] = length == 1 && stages[0].head == NO_HEAD ? torch::stable::clone(flowing[0]) : flowing[0];
  return result;
}

int64_t width() { return LANES; }

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(normlab, library) {
  library.def("chain(Tensor x, int count, Tensor[] tensors, int[] program, float[] factors) -> Tensor[]");
  library.def("track(Tensor x, int count, Tensor(a!)[] tensors, Tensor[] saved, int[] program, float[] factors) -> ()");
  library.def(
      "chain_backward(Tensor gradient, Tensor x, int count, Tensor[] tensors, Tensor[] saved, int[] program, "
      "float[] factors, bool needs_x) -> Tensor[]");
  library.def("width() -> int");
}

STABLE_TORCH_LIBRARY_IMPL(normlab, CPU, library) {
  library.impl("chain", TORCH_BOX(&chain));
  library.impl("track", TORCH_BOX(&track));
  library.impl("chain_backward", TORCH_BOX(&chain_backward));
}

STABLE_TORCH_LIBRARY_IMPL(normlab, CompositeExplicitAutograd, library) { library.impl("width", TORCH_BOX(&width)); }

}  // namespace normlab
