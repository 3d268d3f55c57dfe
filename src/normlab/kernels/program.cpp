#include "program.h"

namespace normlab {
namespace {

enum Part { BOTH, MEAN, VARIANCE };

// NUMBERS whole numbers, the count of the sources and these, TENSORS tensors and FACTORS factors for each stage.
constexpr int64_t NUMBERS = 21, TENSORS = 10, FACTORS = 2;

// n: its numbers, index: its place among the stages.
Stage stage_of(const int64_t* n, const std::vector<Tensor>& tensors, const std::vector<double>& factors, int64_t index) {
  Stage stage;
  Epilogue& e = stage.epilogue;
  stage.head = n[0];
  stage.geometry = {n[1], n[2], n[3], n[4]};
  stage.norm = Norm(n[7]);
  e.before = n[5];
  e.activation = n[6];
  e.batch = stage.norm == BATCH;
  e.centers = Part(n[8]) != VARIANCE;
  e.scales = Part(n[8]) != MEAN;
  e.pool = n[9];
  for (int axis = 0; axis < 2; ++axis) {
    e.size[axis] = n[10 + axis];
    e.stride[axis] = n[12 + axis];
    e.padding[axis] = n[14 + axis];
  }
  e.count_padding = n[16];
  stage.tracking = n[17];
  stage.inner_residual = n[18];
  stage.flatten = n[19];
  stage.needs_gradient = n[20];
  stage.sources.assign(n + NUMBERS + 1, n + NUMBERS + 1 + n[NUMBERS]);
  MaybeTensor* const all[TENSORS] = {&stage.weight, &stage.bias, &e.gamma, &e.beta, &e.mean, &e.var, &stage.tracked,
                                     &stage.nonfinite, &e.residual, &e.mask};
  for (int64_t i = 0; i < TENSORS; ++i) {
    const Tensor& given = tensors[index * TENSORS + i];
    if (given.numel() > 0) *all[i] = given;
  }
  e.eps = factors[index * FACTORS];
  stage.share = factors[index * FACTORS + 1];
  return stage;
}

}  // namespace

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
    stages.push_back(stage_of(program.data() + at, tensors, factors, i));
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

}  // namespace normlab
