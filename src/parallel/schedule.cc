#include "parallel/schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "base/check.h"
#include "base/error.h"

namespace temper::parallel {
namespace {

const char* phrase(Action action) {
  switch (action) {
    case Action::kForward:
      return "forward";
    case Action::kLoss:
      return "loss";
    case Action::kBackward:
      return "backward";
    case Action::kBackwardInput:
      return "backward to the inputs";
    case Action::kBackwardWeight:
      return "backward to the weights";
    case Action::kSendForward:
      return "sending the output";
    case Action::kRecvForward:
      return "receiving the input";
    case Action::kSendBackward:
      return "sending the input's gradient";
    case Action::kRecvBackward:
      return "receiving the output's gradient";
    case Action::kReduce:
      return "gradient reduction";
    case Action::kUpdate:
      return "update";
  }
  return "";
}

// A chunk's turn with a micro-batch.
struct Turn {
  int64_t chunk, micro_batch;
  bool operator==(const Turn&) const = default;
};

// Micro-batches go through the chunks in groups of at least num_stages, so that a chunk's first output has come round
// when the group's last micro-batch has left; of about equal size, the larger first.
std::vector<int64_t> group_sizes(const PipelinePlace& place, int64_t num_micro_batches) {
  const int64_t num_groups = std::max<int64_t>(num_micro_batches / place.num_stages, 1);
  std::vector<int64_t> sizes(num_groups, num_micro_batches / num_groups);
  for (int64_t g = 0; g < num_micro_batches % num_groups; ++g) ++sizes[g];
  return sizes;
}

// A group goes through all chunks before the next begins. Backward the chunks come in the opposite order.
std::vector<Turn> turns(const PipelinePlace& place, const std::vector<int64_t>& group_sizes, bool backward) {
  std::vector<Turn> list;
  int64_t begin = 0;
  for (const int64_t size : group_sizes) {
    for (int64_t c = 0; c < place.num_chunks; ++c)
      for (int64_t i = begin; i < begin + size; ++i) list.push_back({backward ? place.num_chunks - 1 - c : c, i});
    begin += size;
  }
  return list;
}

// How many forwards a stage runs before its first backward: so many that the first gradient can have come back.
size_t num_warm_up(Schedule schedule, const PipelinePlace& place, int64_t group_size, size_t num_turns) {
  const int64_t stages_after = place.num_stages - 1 - place.stage;
  const int64_t warm_up =
      schedule == Schedule::kInterleaved ? 2 * stages_after + (place.num_chunks - 1) * group_size : stages_after;
  return std::min(static_cast<size_t>(warm_up), num_turns);
}

}  // namespace

std::string describe(const Instruction& instruction) {
  const char* name = phrase(instruction.action);
  if (instruction.micro_batch < 0) return name;
  const std::string chunk = instruction.chunk > 0 ? fmt::format(", chunk {}", instruction.chunk) : "";
  return fmt::format("{} of micro-batch {}{}", name, instruction.micro_batch, chunk);
}

std::string to_string(Schedule schedule) {
  return schedule == Schedule::kOneFOneB ? "1f1b" : schedule == Schedule::kInterleaved ? "interleaved" : "zero-bubble";
}

Schedule schedule_of(std::string_view name) {
  for (const Schedule schedule : kSchedules)
    if (to_string(schedule) == name) return schedule;
  fail(ErrorCode::kInvalidArgument, "schedule \"{}\" is none of \"1f1b\", \"interleaved\", \"zero-bubble\"", name);
}

void check_pipeline(Schedule schedule, int64_t num_stages, int64_t num_chunks) {
  if (schedule != Schedule::kInterleaved && num_chunks != 1)
    fail(ErrorCode::kInvalidArgument,
         "{} chunks per stage were asked for, but schedule \"{}\" has one; take schedule \"{}\" or 1 chunk", num_chunks,
         to_string(schedule), to_string(Schedule::kInterleaved));
  if (schedule == Schedule::kInterleaved && (num_chunks < 2 || num_stages < 2))
    fail(ErrorCode::kInvalidArgument,
         "schedule \"{}\" needs at least 2 stages of at least 2 chunks, found {} of {}; raise layout.pp and "
         "layout.chunks, or take schedule \"{}\"",
         to_string(schedule), num_stages, num_chunks, to_string(Schedule::kOneFOneB));
}

std::vector<Instruction> with_messages(const PipelinePlace& place, const Instruction& work) {
  const auto also = [&](Action action) { return Instruction{action, work.micro_batch, work.chunk}; };
  const bool is_first = place.is_first_part(work.chunk), is_last = place.is_last_part(work.chunk);
  if (work.action == Action::kBackwardWeight) return {work};
  std::vector<Instruction> list;
  if (work.action == Action::kForward) {
    if (!is_first) list.push_back(also(Action::kRecvForward));
    list.push_back(work);
    list.push_back(also(is_last ? Action::kLoss : Action::kSendForward));
  } else {
    if (!is_last) list.push_back(also(Action::kRecvBackward));
    list.push_back(work);
    if (!is_first) list.push_back(also(Action::kSendBackward));
  }
  return list;
}

std::vector<Instruction> pipeline_step(Schedule schedule, const PipelinePlace& place, int64_t num_micro_batches) {
  CHECK(num_micro_batches > 0, num_micro_batches);
  CHECK(place.stage >= 0 && place.stage < place.num_stages, place.stage, place.num_stages);
  check_pipeline(schedule, place.num_stages, place.num_chunks);
  const std::vector<int64_t> groups = group_sizes(place, num_micro_batches);
  const std::vector<Turn> forwards = turns(place, groups, false), backwards = turns(place, groups, true);
  const size_t warm_up = num_warm_up(schedule, place, groups[0], forwards.size());
  // W comes so many turns after its B that every stage has as many micro-batches alive as the first, for whose B nobody
  // waits: its W can follow at once.
  const bool apart = puts_weights_off(schedule, place.stage);
  const size_t lag = apart ? static_cast<size_t>(place.stage) : 0;

  std::vector<Instruction> list;
  const auto add = [&](Action action, const Turn& turn) {
    for (const Instruction& i : with_messages(place, {action, turn.micro_batch, turn.chunk})) list.push_back(i);
  };
  size_t num_forwards = 0;
  const auto forward_up_to = [&](size_t end, const Turn& next_backward) {
    // Of the last part, B comes directly after F: after a larger group, F would run ahead.
    for (bool has_loss = false; num_forwards < std::min(end, forwards.size()) && !has_loss; ++num_forwards) {
      const Turn& turn = forwards[num_forwards];
      has_loss = place.is_last_part(turn.chunk);
      if (has_loss && turn != next_backward) return;
      add(Action::kForward, turn);
    }
  };
  for (size_t i = 0; i < backwards.size() + lag; ++i) {
    if (i < backwards.size()) forward_up_to(warm_up + i + 1, backwards[i]);
    if (i < backwards.size()) add(apart ? Action::kBackwardInput : Action::kBackward, backwards[i]);
    if (apart && i >= lag) add(Action::kBackwardWeight, backwards[i - lag]);
  }
  list.push_back({Action::kReduce});
  return list;
}

std::vector<Instruction> one_rank_step(int64_t num_micro_batches) {
  return pipeline_step(Schedule::kOneFOneB, {}, num_micro_batches);
}

PipelineLists pipeline_lists(Schedule schedule, int64_t num_stages, int64_t num_chunks, int64_t num_micro_batches) {
  PipelineLists lists{{}, num_chunks};
  for (int64_t s = 0; s < num_stages; ++s)
    lists.stage_lists.push_back(pipeline_step(schedule, {s, num_stages, num_chunks}, num_micro_batches));
  return lists;
}

Slots plan_slots(std::span<const Instruction> instructions) {
  std::map<std::pair<int64_t, int64_t>, size_t> end;  // of the passes, by micro-batch and chunk
  for (size_t i = 0; i < instructions.size(); ++i) end[{instructions[i].micro_batch, instructions[i].chunk}] = i;
  std::map<std::pair<int64_t, int64_t>, int64_t> slot_of;  // of those alive
  std::set<int64_t> free;
  Slots slots;
  for (size_t i = 0; i < instructions.size(); ++i) {
    slots.slot_I.push_back(-1);
    if (instructions[i].micro_batch < 0) continue;
    const std::pair pass{instructions[i].micro_batch, instructions[i].chunk};
    if (!slot_of.contains(pass)) {
      if (free.empty()) free.insert(slots.num_slots++);
      slot_of[pass] = free.extract(free.begin()).value();
    }
    slots.slot_I.back() = slot_of[pass];
    if (end[pass] == i) free.insert(slot_of.extract(pass).mapped());
  }
  return slots;
}

void run(std::span<const Instruction> instructions, Executor& executor, size_t& position) {
  for (position = 0; position < instructions.size(); ++position) executor.execute(instructions[position]);
}

}  // namespace temper::parallel
