// A chain of stages as one op forward and one backward: what is called between the stages of a small network costs
// as much as the stages.
#include <cmath>
#include <iterator>

#include "stage.h"

namespace normlab {
namespace {

enum Head { NO_HEAD, CONVOLUTION, LINEAR };
enum Norm { NO_NORM, BATCH, FIXED };
enum Part { BOTH, MEAN, VARIANCE };
enum Tracking { UNTRACKED, FINITE_ONLY, ALWAYS };

// As `program.py` writes them: NUMBERS whole numbers, the count of the sources and these, TENSORS tensors and FACTORS
// factors for each stage.
constexpr int64_t NUMBERS = 21, TENSORS = 10, FACTORS = 2, SAVED = 4, GRADIENTS = 5;

struct Stage {
  int64_t head, tracking, inner_residual, flatten, needs_gradient;
  Norm norm;
  Numbers geometry;
  Numbers sources;  // stages whose results are its input, side by side; -1 is the input of the chain
  MaybeTensor weight, bias, tracked, nonfinite;
  Epilogue epilogue;  // mean and var: those that are kept, or fixed
  double share;

  // n: its numbers, index: its place among the stages.
  Stage(const int64_t* n, const std::vector<Tensor>& tensors, const std::vector<double>& factors, int64_t index) {
    head = n[0];
    geometry = {n[1], n[2], n[3], n[4]};
    norm = Norm(n[7]);
    Epilogue& e = epilogue;
    e.before = n[5];
    e.activation = n[6];
    e.batch = norm == BATCH;
    e.centers = Part(n[8]) != VARIANCE;
    e.scales = Part(n[8]) != MEAN;
    e.pool = n[9];
    for (int axis = 0; axis < 2; ++axis) {
      e.size[axis] = n[10 + axis];
      e.stride[axis] = n[12 + axis];
      e.padding[axis] = n[14 + axis];
    }
    e.count_padding = n[16];
    tracking = n[17];
    inner_residual = n[18];
    flatten = n[19];
    needs_gradient = n[20];
    sources.assign(n + NUMBERS + 1, n + NUMBERS + 1 + n[NUMBERS]);
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
  const int64_t count = factors.size() / FACTORS, length = program.size();
  STD_TORCH_CHECK(count > 0 && int64_t(tensors.size()) == count * TENSORS, "expected tensors and factors of as many "
                  "stages, one at least");
  std::vector<Stage> stages;
  int64_t at = 0;
  for (int64_t i = 0; i < count; ++i) {
    const bool has_count = at + NUMBERS < length;
    STD_TORCH_CHECK(has_count && program[at + NUMBERS] > 0 && program[at + NUMBERS] < length - at - NUMBERS,
                    "expected the numbers of ", count, " stages, with a source each");
    stages.emplace_back(program.data() + at, tensors, factors, i);
    at += NUMBERS + 1 + program[at + NUMBERS];
    const Stage& stage = stages.back();
    for (int64_t source : stage.sources) STD_TORCH_CHECK(source >= -1 && source < i, "expected sources before the stage");
    STD_TORCH_CHECK(stage.inner_residual < i, "expected a residual from a stage before");
    STD_TORCH_CHECK(!stage.flatten || stage.sources.size() == 1, "expected one source to flatten");
    STD_TORCH_CHECK((stage.head == NO_HEAD) != bool(stage.weight), "expected a weight with a head");
  }
  STD_TORCH_CHECK(at == length, "expected the numbers of ", count, " stages");
  return stages;
}

// Results may not share their memory, not even none.
Tensor none() { return empty({0}); }

Tensor flattened(const Tensor& x) {
  return x.dim() == 5 ? torch::stable::view(x, Numbers{x.size(0), x.size(1) * x.size(2) * x.size(3), LANES}) : x;
}

// Channels side by side.
Tensor concatenated(const std::vector<Tensor>& parts) {
  const Shape first(parts[0]);
  int64_t channels = 0;
  for (const Tensor& part : parts) {
    const int64_t mine = Shape(part).channels;
    Shape(part).expect(first.blocks, mine, first.height, first.width);
    channels += mine;
  }
  Numbers shape(parts[0].sizes().begin(), parts[0].sizes().end());
  shape[1] = channels;
  Tensor result = torch::stable::empty({shape.data(), shape.size()}, torch::headeronly::ScalarType::Float);
  parallel(first.blocks, [&](int64_t block) {
    vec* to = written(result) + block * channels * first.plane();
    for (const Tensor& part : parts) {
      const int64_t size = part.size(1) * first.plane();
      std::memcpy(to, vectors(part) + block * size, size * sizeof(vec));
      to += size;
    }
  });
  return result;
}

// Those channels of x from `first` on that `part` has.
Tensor slice(const Tensor& x, int64_t first, const Tensor& part) {
  Tensor result = torch::stable::empty_like(part);
  const Shape whole(x), mine(part);
  parallel(mine.blocks, [&](int64_t block) {
    const vec* const from = vectors(x) + block * whole.block() + first * whole.plane();
    std::memcpy(written(result) + block * mine.block(), from, mine.block() * sizeof(vec));
  });
  return result;
}

Tensor value_of(int64_t source, const Tensor& x, const std::vector<Tensor>& saved) {
  return source < 0 ? x : saved[source * SAVED];
}

Tensor input_of(const Stage& stage, const Tensor& x, const std::vector<Tensor>& saved) {
  std::vector<Tensor> parts;
  for (int64_t source : stage.sources) parts.push_back(value_of(source, x, saved));
  const Tensor whole = parts.size() == 1 ? parts[0] : concatenated(parts);
  return stage.flatten ? flattened(whole) : whole;
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
  STD_TORCH_CHECK(x.size(0) == (count + LANES - 1) / LANES && count > 0, "expected the lanes of ", count, " examples");
  for (const Stage& stage : stages) {
    const bool needs = stage.norm == FIXED || stage.tracking, has = stage.epilogue.mean && stage.epilogue.var;
    STD_TORCH_CHECK(has || (!needs && !stage.epilogue.mean && !stage.epilogue.var), "expected mean and var, or neither");
    const Tensor value = input_of(stage, x, saved);
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
    const bool given = stage.head == NO_HEAD && stage.sources.size() == 1;  // somebody else's memory
    saved.push_back(!alone ? epilogue.forward(y) : given ? torch::stable::clone(y) : y);
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
    const Shape y(stages[i].head ? saved[i * SAVED + 1] : input_of(stages[i], x, saved));
    keep(stages[i], saved[i * SAVED + 2], saved[i * SAVED + 3], double(count) * y.plane());
  }
}

void add(Tensor& sum, const Tensor& more) {
  if (!sum.numel()) {
    sum = more;
    return;
  }
  Tensor result = torch::stable::empty_like(sum);
  const vec *a = vectors(sum), *b = vectors(more);
  vec* const out = written(result);
  const int64_t blocks = sum.size(0), size = sum.numel() / LANES / blocks;
  parallel(blocks, [&](int64_t block) {
    for (int64_t i = block * size; i < (block + 1) * size; ++i) out[i] = a[i] + b[i];
  });
  sum = result;
}

// Whether anything in or before each stage needs a gradient; one number more, the last, for the chain's input.
std::vector<char> needing(const std::vector<Stage>& stages, bool needs_x) {
  std::vector<char> needs(stages.size() + 1);
  needs.back() = needs_x;
  const auto of = [&](int64_t source) { return needs[source < 0 ? stages.size() : source]; };
  for (std::size_t i = 0; i < stages.size(); ++i) {
    const Stage& stage = stages[i];
    needs[i] = stage.needs_gradient || (stage.inner_residual >= 0 && of(stage.inner_residual)) ||
               std::any_of(stage.sources.begin(), stage.sources.end(), of);
  }
  return needs;
}

// The gradient of a stage's input, where it is wanted, from that of its result. `own` gets those of its tensors,
// `flowing` that of the residual from within the chain. y: what the epilogue took, if there is a head.
Tensor through(const Stage& stage, const Epilogue& epilogue, Tensor g, const Tensor& input, const Tensor& behind_head,
               int64_t count, bool onward, Tensor* own, std::vector<Tensor>& flowing) {
  std::optional<EpilogueBackward> behind;
  if (!epilogue.nothing()) {
    behind.emplace(epilogue, g, stage.head == NO_HEAD ? input : behind_head, count);
    own[2] = behind->gamma;
    own[3] = behind->beta;
    if (stage.inner_residual >= 0) {
      add(flowing[stage.inner_residual], behind->residual);
    } else {
      own[4] = behind->residual;
    }
    if (stage.head != CONVOLUTION) g = behind->input();
  }
  if (stage.head == NO_HEAD) return g;
  const Gradient of_block = [&](int64_t block, float* room) -> const float* {
    if (!behind) return numbers(g) + block * Shape(g).block() * LANES;
    behind->finish(block, (vec*)room);
    return room;
  };
  const Gradients found =
      stage.head == CONVOLUTION
          ? conv2d_backward(of_block, input, *stage.weight, stage.geometry, onward, stage.needs_gradient)
          : linear_backward(g, input, *stage.weight, onward, stage.needs_gradient);
  own[0] = found.weight;
  own[1] = found.bias;
  return found.input;
}

// g in the shape of like: images again, where they were flattened.
Tensor shaped(const Tensor& g, const Tensor& like) {
  if (g.dim() == like.dim()) return g;
  return torch::stable::view(g, Numbers(like.sizes().begin(), like.sizes().end()));
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
  std::vector<Tensor> result, flowing;  // flowing[i]: into the result of stage i; the last into x
  std::generate_n(std::back_inserter(result), 1 + length * GRADIENTS, none);
  std::generate_n(std::back_inserter(flowing), length + 1, none);
  const auto flow_of = [&](int64_t source) -> Tensor& { return flowing[source < 0 ? length : source]; };
  flowing[length - 1] = gradient;
  const std::vector<char> needs = needing(stages, needs_x);
  for (int64_t i = length - 1; i >= 0; --i) {
    const Stage& stage = stages[i];
    Tensor g = std::exchange(flowing[i], none());
    if (!needs[i]) continue;
    STD_TORCH_CHECK(g.numel() > 0, "expected a use of every result");
    const auto need_of = [&](int64_t source) { return bool(needs[source < 0 ? length : source]); };
    const bool onward = std::any_of(stage.sources.begin(), stage.sources.end(), need_of);
    const Epilogue epilogue = stage.with(saved[i * SAVED + 2], saved[i * SAVED + 3], saved);
    if (stage.head != NO_HEAD || !epilogue.nothing()) {
      g = through(stage, epilogue, g, input_of(stage, x, saved), saved[i * SAVED + 1], count, onward,
                  result.data() + 1 + i * GRADIENTS, flowing);
    }
    if (!onward) continue;
    int64_t channel = 0;
    for (int64_t source : stage.sources) {
      const Tensor part = value_of(source, x, saved);
      if (need_of(source)) {
        const bool whole = stage.sources.size() == 1;
        add(flow_of(source), whole ? shaped(g, part) : slice(g, channel, part));
      }
      channel += part.size(1);
    }
  }
  if (needs_x) {  // an op may not give back what it was given
    const bool passed = flowing[length].data_ptr() == gradient.data_ptr();
    result[0] = passed ? torch::stable::clone(flowing[length]) : flowing[length];
  }
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
