// The ops: a chain of stages is one forward and one backward, or one for a whole training step. What is called between
// the stages of a small network costs as much as the stages.
#include "chain.h"
#include "loss.h"

namespace normlab {
namespace {

constexpr int64_t SAVED = 4;

// As an op gives it. Results may not share their memory, not even none.
Tensor or_none(const MaybeTensor& x) { return x ? *x : unwritten({0}); }
MaybeTensor maybe(const Tensor& x) { return x.numel() ? MaybeTensor(x) : std::nullopt; }

// Saved for each stage: what it gave, what its norm got, and the statistics of the batch; empty where there is none.
std::vector<Tensor> chain(const Tensor& x, int64_t count, std::vector<Tensor> tensors, Numbers program,
                          std::vector<double> factors) {
  std::vector<Tensor> result;
  for (const Saved& each : forward(stages_of(program, tensors, factors), x, count)) {
    result.insert(result.end(), {each.result, or_none(each.before), or_none(each.mean), or_none(each.var)});
  }
  return result;
}

std::vector<Saved> saved_of(const std::vector<Tensor>& tensors, const std::vector<Stage>& stages) {
  STD_TORCH_CHECK(tensors.size() == stages.size() * SAVED, "expected what `chain` saved");
  std::vector<Saved> saved;
  for (std::size_t i = 0; i < tensors.size(); i += SAVED) {
    saved.push_back({tensors[i], maybe(tensors[i + 1]), maybe(tensors[i + 2]), maybe(tensors[i + 3])});
  }
  return saved;
}

// Moves the running statistics among `tensors` by what `chain` saved of a batch.
void track(const Tensor& x, int64_t count, std::vector<Tensor> tensors, std::vector<Tensor> saved, Numbers program,
           std::vector<double> factors) {
  const std::vector<Stage> stages = stages_of(program, tensors, factors);
  keep_all(stages, x, count, saved_of(saved, stages));
}

// The gradient of x, then those of weight, bias, gamma, beta and the residual from outside for each stage; empty where
// there is none.
std::vector<Tensor> chain_backward(const Tensor& gradient, const Tensor& x, int64_t count, std::vector<Tensor> tensors,
                                   std::vector<Tensor> saved, Numbers program, std::vector<double> factors,
                                   bool needs_x) {
  const std::vector<Stage> stages = stages_of(program, tensors, factors);
  Found found(stages.size() * GRADIENTS);
  MaybeTensor of_x = backward(stages, gradient, x, count, saved_of(saved, stages), needs_x, found);
  // An op may not give back what it was given.
  if (of_x && of_x->data_ptr() == gradient.data_ptr()) of_x = torch::stable::clone(*of_x);
  std::vector<Tensor> result{or_none(of_x)};
  for (const MaybeTensor& each : found) result.push_back(or_none(each));
  return result;
}

// A training step on the mean cross-entropy: its loss, the number of right answers and the norm of all gradients,
// float64 (3,), then the gradients. The running statistics move. wanted: the number of each tensor that wants a
// gradient, counted through the weight, bias, gamma, beta and residual of all stages; owner: which of the gradients
// it goes into, for a tensor may serve in several places.
std::vector<Tensor> training_step(const Tensor& x, int64_t count, const Tensor& targets, std::vector<Tensor> tensors,
                                  Numbers program, std::vector<double> factors, Numbers wanted, Numbers owner) {
  const std::vector<Stage> stages = stages_of(program, tensors, factors);
  STD_TORCH_CHECK(wanted.size() == owner.size(), "expected an owner for each gradient");
  std::vector<Saved> saved = forward(stages, x, count);
  const auto [judged, gradient] = cross_entropy(saved.back().result, count, targets);
  keep_all(stages, x, count, saved);
  Found found(stages.size() * GRADIENTS);
  backward(stages, gradient, x, count, std::move(saved), false, found);
  std::vector<Tensor> result;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    STD_TORCH_CHECK(wanted[i] >= 0 && wanted[i] < int64_t(found.size()) && found[wanted[i]] && owner[i] >= 0 &&
                    owner[i] <= int64_t(result.size()), "expected tensors that have gradients, and owners in order");
    const Tensor& mine = *found[wanted[i]];
    if (owner[i] == int64_t(result.size())) {
      result.push_back(mine);
      continue;
    }
    Tensor& sum = result[owner[i]];
    STD_TORCH_CHECK(sum.numel() == mine.numel(), "expected gradients of the same shape for the same owner");
    const float* const more = numbers(mine);
    float* const to = static_cast<float*>(sum.data_ptr());
    for (int64_t k = 0; k < mine.numel(); ++k) to[k] += more[k];
  }
  Tensor outcome = torch::stable::empty({3}, torch::headeronly::ScalarType::Double);
  double* const out = static_cast<double*>(outcome.data_ptr());
  std::copy_n(static_cast<const double*>(judged.data_ptr()), 2, out);
  out[2] = total_norm(result);
  result.insert(result.begin(), outcome);
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
  library.def(
      "training_step(Tensor x, int count, Tensor targets, Tensor(a!)[] tensors, int[] program, float[] factors, "
      "int[] wanted, int[] owner) -> Tensor[]");
  library.def("width() -> int");
}

STABLE_TORCH_LIBRARY_IMPL(normlab, CPU, library) {
  library.impl("chain", TORCH_BOX(&chain));
  library.impl("track", TORCH_BOX(&track));
  library.impl("chain_backward", TORCH_BOX(&chain_backward));
  library.impl("training_step", TORCH_BOX(&training_step));
}

STABLE_TORCH_LIBRARY_IMPL(normlab, CompositeExplicitAutograd, library) { library.impl("width", TORCH_BOX(&width)); }

}  // namespace normlab
