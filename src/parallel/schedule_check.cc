#include "parallel/schedule_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "base/check.h"
#include "parallel/schedule_progress.h"

namespace temper::parallel {
namespace {

// Runs all lists as far as they go where a send waits until its receiver stands at the receive. Returns who waits.
std::string run_with_rendezvous(Progress& progress) {
  std::vector<int64_t> ready(progress.num_stages());
  for (int64_t s = 0; s < progress.num_stages(); ++s) ready[s] = s;
  while (!ready.empty()) {
    const int64_t stage = ready.back();
    ready.pop_back();
    while (!progress.at_end(stage)) {
      const Instruction& mine = progress.next(stage);
      if (is_send(mine.action) || is_receive(mine.action)) {
        const int64_t other = progress.peer(stage, mine.action);
        if (progress.at_end(other)) break;
        const Instruction& its = progress.next(other);
        const bool meet = is_send(mine.action) ? is_receive(its.action) : is_send(its.action);
        if (!meet || progress.message(other, its) != progress.message(stage, mine)) break;
        progress.advance(other);
        ready.push_back(other);
      }
      progress.advance(stage);
    }
  }
  return progress.who_waits();
}

// One stage's list, read on its own: what is wrong with it, or nothing.
class ListCheck {
 public:
  ListCheck(const PipelinePlace& place, const std::vector<Instruction>& list, int64_t num_micro_batches)
      : place_(place), list_(list), num_micro_batches_(num_micro_batches), chunks_(place.num_chunks) {}

  std::string fault() {
    size_t at = 0;
    while (at + 1 < list_.size()) {
      const Instruction& work = list_[at + is_receive(list_[at].action)];
      if (const std::string why = take(work); !why.empty())
        return fmt::format("stage {}, instruction {} ({}): {}", place_.stage, at, describe(list_[at]), why);
      for (const Instruction& wanted : with_messages(place_, work)) {
        if (at == list_.size() || list_[at] != wanted)
          return fmt::format("stage {}, instruction {} must be {}", place_.stage, at, describe(wanted));
        ++at;
      }
    }
    for (const Chunk& chunk : chunks_)
      if (chunk.num_weight != num_micro_batches_)
        return fmt::format("stage {}: {} of {} micro-batches come to their end in a chunk", place_.stage,
                           chunk.num_weight, num_micro_batches_);
    if (at == list_.size() || list_[at] != Instruction{Action::kReduce})
      return fmt::format("stage {}: the last instruction must be the gradient reduction", place_.stage);
    return "";
  }

 private:
  // Micro-batches that have passed F, B and W, which is also the number of the next.
  struct Chunk {
    int64_t num_forward = 0, num_input = 0, num_weight = 0;
  };

  std::string take(const Instruction& work) {
    if (work.chunk < 0 || work.chunk >= place_.num_chunks) return fmt::format("there are {} chunks", place_.num_chunks);
    Chunk& chunk = chunks_[work.chunk];
    const bool is_backward = work.action == Action::kBackward || work.action == Action::kBackwardInput;
    if (loss_waits_ && !(is_backward && place_.is_last_part(work.chunk)))
      return "the backward of the last part must come directly after its loss";
    loss_waits_ = work.action == Action::kForward && place_.is_last_part(work.chunk);
    switch (work.action) {
      case Action::kForward:
        return pass("forward", work, chunk.num_forward, num_micro_batches_);
      case Action::kBackwardInput:
        return pass("backward to the inputs", work, chunk.num_input, chunk.num_forward);
      case Action::kBackwardWeight:
        return pass("backward to the weights", work, chunk.num_weight, chunk.num_input);
      case Action::kBackward: {
        const std::string why = pass("backward to the inputs", work, chunk.num_input, chunk.num_forward);
        return why.empty() ? pass("backward to the weights", work, chunk.num_weight, chunk.num_input) : why;
      }
      default:
        return "it belongs to no forward or backward";
    }
  }
  // One more micro-batch passes; `before` have passed what must come first.
  static std::string pass(const char* what, const Instruction& work, int64_t& num_passed, int64_t before) {
    if (num_passed >= before) return fmt::format("a {} has no micro-batch to take", what);
    if (work.micro_batch != num_passed) return fmt::format("the next {} is that of micro-batch {}", what, num_passed);
    ++num_passed;
    return "";
  }

  PipelinePlace place_;
  const std::vector<Instruction>& list_;
  int64_t num_micro_batches_;
  std::vector<Chunk> chunks_;
  bool loss_waits_ = false;  // for its backward
};

}  // namespace

Findings check_schedule(const PipelineLists& lists) {
  const auto num_stages = static_cast<int64_t>(lists.stage_lists.size());
  CHECK(num_stages > 0 && lists.num_chunks > 0, num_stages, lists.num_chunks);
  const int64_t num_micro_batches = std::ranges::count_if(
      lists.stage_lists[0], [](const Instruction& i) { return i.action == Action::kForward && i.chunk == 0; });
  for (int64_t s = 0; s < num_stages; ++s) {
    ListCheck check({s, num_stages, lists.num_chunks}, lists.stage_lists[s], num_micro_batches);
    if (const std::string fault = check.fault(); !fault.empty()) return {fault, fault};
  }
  Findings findings;
  Progress progress(lists), with_rendezvous(lists);
  findings.fault = run_all(progress, [](int64_t, const Instruction&, double) { return 0.0; });
  findings.rendezvous_fault = run_with_rendezvous(with_rendezvous);
  return findings;
}

}  // namespace temper::parallel
