#include "chain.h"

#include <cmath>

namespace normlab {
namespace {

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
  Tensor result = unwritten(shape);
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
  Tensor result = unwritten_like(part);
  const Shape whole(x), mine(part);
  parallel(mine.blocks, [&](int64_t block) {
    const vec* const from = vectors(x) + block * whole.block() + first * whole.plane();
    std::memcpy(written(result) + block * mine.block(), from, mine.block() * sizeof(vec));
  });
  return result;
}

const Tensor& value_of(int64_t source, const Tensor& x, const std::vector<Saved>& saved) {
  return source < 0 ? x : saved[source].result;
}

Tensor input_of(const Stage& stage, const Tensor& x, const std::vector<Saved>& saved) {
  std::vector<Tensor> parts;
  for (int64_t source : stage.sources) parts.push_back(value_of(source, x, saved));
  const Tensor whole = parts.size() == 1 ? parts[0] : concatenated(parts);
  return stage.flatten ? flattened(whole) : whole;
}

// As that of this batch: with its own statistics, and the residual from wherever it comes.
Epilogue epilogue_of(const Stage& stage, const MaybeTensor& mean, const MaybeTensor& var,
                     const std::vector<Saved>& saved) {
  Epilogue e = stage.epilogue;
  if (stage.norm != FIXED) {
    e.mean = mean;
    e.var = var;
  }
  if (stage.inner_residual >= 0) e.residual = saved[stage.inner_residual].result;
  return e;
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

Saved through(const Stage& stage, const Tensor& input, int64_t count, const std::vector<Saved>& saved) {
  const bool needs = stage.norm == FIXED || stage.tracking, has = stage.epilogue.mean && stage.epilogue.var;
  STD_TORCH_CHECK(has || (!needs && !stage.epilogue.mean && !stage.epilogue.var), "expected mean and var, or neither");
  const int64_t blocks = input.size(0), channels = stage.weight ? stage.weight->size(0) : input.size(1);
  std::optional<Statistics> statistics;
  if (stage.norm == BATCH) statistics.emplace(blocks, channels, count, stage.epilogue.before);
  Tensor y = input;
  if (stage.head == CONVOLUTION) {
    y = conv2d(input, *stage.weight, stage.bias, stage.geometry, [&](int64_t block, const float* outputs) {
      if (statistics) statistics->add(block, (const vec*)outputs, plane_of(input, stage));
    });
  } else if (stage.head == LINEAR) {
    y = linear(input, *stage.weight, stage.bias);
  }
  const Shape shape(y);
  MaybeTensor mean, var;
  if (statistics) {
    if (stage.head != CONVOLUTION) {
      const vec* const all = vectors(y);
      parallel(blocks, [&](int64_t block) { statistics->add(block, all + block * shape.block(), shape.plane()); });
    }
    std::tie(mean, var) = statistics->merged(shape.plane());
  }
  const Epilogue epilogue = epilogue_of(stage, mean, var, saved);
  if (!epilogue.nothing()) return {epilogue.forward(y), stage.head ? MaybeTensor(y) : std::nullopt, mean, var};
  const bool given = stage.head == NO_HEAD && stage.sources.size() == 1;  // somebody else's memory
  return {given ? torch::stable::clone(y) : y, std::nullopt, mean, var};
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

void add(MaybeTensor& sum, const Tensor& more) {
  if (!sum) {
    sum = more;
    return;
  }
  Tensor result = unwritten_like(*sum);
  const vec *a = vectors(*sum), *b = vectors(more);
  vec* const out = written(result);
  const int64_t blocks = sum->size(0), size = sum->numel() / LANES / blocks;
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
// `flowing` that of the residual from within the chain. y: what the epilogue took.
MaybeTensor back_through(const Stage& stage, const Epilogue& epilogue, Tensor g, const Tensor& input, const Tensor& y,
                         int64_t count, bool onward, MaybeTensor* own, std::vector<MaybeTensor>& flowing) {
  std::optional<EpilogueBackward> behind;
  if (!epilogue.nothing()) {
    behind.emplace(epilogue, g, y, count);
    own[2] = behind->gamma;
    own[3] = behind->beta;
    if (stage.inner_residual >= 0) {
      add(flowing[stage.inner_residual], *behind->residual);
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

}  // namespace

std::vector<Saved> forward(const std::vector<Stage>& stages, const Tensor& x, int64_t count) {
  STD_TORCH_CHECK(x.size(0) == (count + LANES - 1) / LANES && count > 0, "expected the lanes of ", count, " examples");
  std::vector<Saved> saved;
  for (const Stage& stage : stages) saved.push_back(through(stage, input_of(stage, x, saved), count, saved));
  return saved;
}

void keep_all(const std::vector<Stage>& stages, const Tensor& x, int64_t count, const std::vector<Saved>& saved) {
  for (std::size_t i = 0; i < stages.size(); ++i) {
    if (stages[i].norm != BATCH || !stages[i].tracking) continue;
    const Shape y(saved[i].before ? *saved[i].before : input_of(stages[i], x, saved));
    keep(stages[i], *saved[i].mean, *saved[i].var, double(count) * y.plane());
  }
}

MaybeTensor backward(const std::vector<Stage>& stages, const Tensor& gradient, const Tensor& x, int64_t count,
                     std::vector<Saved> saved, bool needs_x, Found& found) {
  const int64_t length = stages.size();
  STD_TORCH_CHECK(int64_t(saved.size()) == length && saved.back().result.numel() == gradient.numel(),
                  "expected what `chain` saved, and the gradient of its result");
  std::vector<MaybeTensor> flowing(length + 1);  // [i]: into the result of stage i; the last into x
  const auto flow_of = [&](int64_t source) -> MaybeTensor& { return flowing[source < 0 ? length : source]; };
  flowing[length - 1] = gradient;
  const std::vector<char> needs = needing(stages, needs_x);
  const auto need_of = [&](int64_t source) { return bool(needs[source < 0 ? length : source]); };
  for (int64_t i = length - 1; i >= 0; saved.pop_back(), --i) {
    const Stage& stage = stages[i];
    MaybeTensor g = std::exchange(flowing[i], std::nullopt);
    if (!needs[i]) continue;
    STD_TORCH_CHECK(g, "expected a use of every result");
    const bool onward = std::any_of(stage.sources.begin(), stage.sources.end(), need_of);
    const Epilogue epilogue = epilogue_of(stage, saved[i].mean, saved[i].var, saved);
    if (stage.head != NO_HEAD || !epilogue.nothing()) {
      const Tensor input = input_of(stage, x, saved), &y = saved[i].before ? *saved[i].before : input;
      g = back_through(stage, epilogue, *g, input, y, count, onward, found.data() + i * GRADIENTS, flowing);
    }
    if (!onward) continue;
    int64_t channel = 0;
    for (int64_t source : stage.sources) {
      const Tensor part = value_of(source, x, saved);
      if (need_of(source)) {
        const bool whole = stage.sources.size() == 1;
        add(flow_of(source), whole ? shaped(*g, part) : slice(*g, channel, part));
      }
      channel += part.size(1);
    }
  }
  return flowing[length];
}

}  // namespace normlab
