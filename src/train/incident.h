// What went wrong in a step, found by repeating it: a value that is not finite, or one out of proportion, with the
// instruction, layer, op, tensor, token and sample that it belongs to.
//
// 1. The step is computed again on the same data and weights. Another result: something other than the numbers did it
//    (a transient fault); the same result: it is reproducible.
// 2. What the step starts from is searched for damage (state_check.h).
// 3. The step is computed once more with every operand looked at (value_check.h): the first value that is not finite.
// 4. If all are finite, the step before is looked at in the same way: the first output out of proportion to it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "train/spike_detector.h"
#include "train/state_check.h"
#include "train/step.h"
#include "train/value_check.h"

namespace temper::train {

struct Incident {
  int64_t step = 0;
  Judgement judgement;
  std::string first_nonfinite;            // parameter whose gradient was the first that is not finite; may be empty
  double loss = 0, grad_norm = 0;         // of the step
  double loss_again = 0, norm_again = 0;  // of its repetition
  bool is_transient = false;              // the repetition gave something else
  std::optional<BadValue> bad;            // nullopt: nothing stands out
  std::vector<OpStatistic> statistics;    // of the checking pass, in the order of execution
  std::vector<int64_t> dp_rank_M;         // that each micro-batch of the step was dealt to
};

// What an investigation works on; all must outlive it.
struct Suspect {
  StepParts parts;
  const Book& book;
  const data::LoaderStep& data;      // of the step
  const data::LoaderStep* baseline;  // of the last step that was as usual; nullptr: there is none
  double learning_rate;
};

// Computes the step two or three times; weights, moments and biases stay as they are, gradients do not: compute the
// step again before an update. result: what the anomalous step gave. Many ranks do so together: each looks at what it
// has and computes, and all are told of the first bad value among them. Statistics are those of this rank.
Incident investigate(Suspect suspect, int64_t step, const StepResult& result, const Judgement& judgement);

// A paragraph for people: what was seen, whether it is reproducible, the first bad value.
std::string describe(const Incident& incident);

// Without the statistics.
nlohmann::ordered_json to_json(const Incident& incident);

// An output counts as out of proportion when its largest element or its root mean square is this many times that of
// the baseline. Between ordinary steps of the tiny model of the tests no output of 64 elements or more grows by 4.
inline constexpr double kOutOfProportion = 32;

}  // namespace temper::train
