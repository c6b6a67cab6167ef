// A training step as a list of small instructions, and the interpreter that runs it.
//
// In a pipeline the layers are cut into num_stages * num_chunks parts (stages.h), in their order; part p is chunk p /
// num_stages of stage p % num_stages. Every stage runs a list of its own; docs/schedules.md draws them.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace temper::parallel {

enum class Action : uint8_t {
  kForward,         // F: what a chunk has of the layers
  kLoss,            // log-probabilities and per-token gradient weights; between F and B of the last part, nothing else
  kBackward,        // B and W at once
  kBackwardInput,   // B: the gradient of the chunk's input; what W needs is kept
  kBackwardWeight,  // W: parameter gradients are accumulated
  kSendForward,     // the chunk's output to the next part
  kRecvForward,     // the chunk's input, from the part before
  kSendBackward,    // the gradient of the chunk's input, to the part before
  kRecvBackward,    // the gradient of the chunk's output, from the next part
  kReduce,          // gradients are complete: norms, finite check
  kUpdate,          // clipped gradients move the weights
};

struct Instruction {
  Action action;
  int64_t micro_batch = -1;  // -1: concerns the whole step
  int64_t chunk = 0;
  bool operator==(const Instruction&) const = default;
};

std::string describe(const Instruction& instruction);  // "backward of micro-batch 3, chunk 1"; chunk 0 is not said

// The order of a pipeline's step. F, B, W: times of a stage's forward, gradient of inputs, gradient of weights; the
// bubble is the time that a stage waits in a step of many micro-batches.
enum class Schedule : uint8_t {
  kOneFOneB,     // a forward, a backward, a forward, ...: bubble (stages - 1) (F + B + W)
  kInterleaved,  // 1F1B over num_chunks chunks of a stage: bubble (stages - 1) (F + B + W) / num_chunks
  kZeroBubble,   // ZB-H1: W later than B, in what would be bubble: (stages - 1) (F + B - W)
};
inline constexpr std::array kSchedules = {Schedule::kOneFOneB, Schedule::kInterleaved, Schedule::kZeroBubble};
std::string to_string(Schedule schedule);  // as in a run file: "1f1b", "interleaved", "zero-bubble"
Schedule schedule_of(std::string_view name);
// Throws kInvalidArgument where they do not fit each other.
void check_pipeline(Schedule schedule, int64_t num_stages, int64_t num_chunks);

// Whether W of a stage comes later than B, so that what it needs must be kept.
inline bool puts_weights_off(Schedule schedule, int64_t stage) {
  return schedule == Schedule::kZeroBubble && stage > 0;
}

struct PipelinePlace {
  int64_t stage = 0, num_stages = 1, num_chunks = 1;

  bool is_first_part(int64_t chunk) const { return stage == 0 && chunk == 0; }
  bool is_last_part(int64_t chunk) const { return stage == num_stages - 1 && chunk == num_chunks - 1; }
  // Who has the part before and after each of this stage's: the stages form a ring.
  int64_t stage_before() const { return (stage + num_stages - 1) % num_stages; }
  int64_t stage_after() const { return (stage + 1) % num_stages; }
};

// F, B or W with what stands beside it at this place: the receive directly before F or B, the send directly after, and
// L directly after F of the last part. So one buffer of each kind is enough, apart from the slots.
std::vector<Instruction> with_messages(const PipelinePlace& place, const Instruction& work);

// The gradients of a step, at one place of the pipeline: forward and backward of every micro-batch with the messages
// between stages, then reduce. The update is a list of its own: the result is judged before it. What the lists of all
// stages keep to is written in schedule_check.h; above all, every chunk takes the micro-batches in ascending order, in
// F, B and W alike, so that its gradients are one sum whatever the schedule. One stage: F, L, B per micro-batch.
// Throws as check_pipeline.
std::vector<Instruction> pipeline_step(Schedule schedule, const PipelinePlace& place, int64_t num_micro_batches);
// The same without a pipeline. Only one micro-batch is alive at a time, so one set of saved activations serves all.
std::vector<Instruction> one_rank_step(int64_t num_micro_batches);

// The lists of all stages, by stage. Replicas of the pipeline have the same lists.
struct PipelineLists {
  std::vector<std::vector<Instruction>> stage_lists;
  int64_t num_chunks = 1;
};
PipelineLists pipeline_lists(Schedule schedule, int64_t num_stages, int64_t num_chunks, int64_t num_micro_batches);

// Sets of saved activations, each large enough for any chunk. A micro-batch has one for each pass through a chunk, from
// the first instruction of that pass to the last one; then it is free for any other.
struct Slots {
  int64_t num_slots = 0;        // as few as can be: the most passes that are alive at once
  std::vector<int64_t> slot_I;  // of each instruction; -1 where it concerns the whole step
};
Slots plan_slots(std::span<const Instruction> instructions);

// The one who carries instructions out.
class Executor {
 public:
  virtual ~Executor() = default;
  virtual void execute(const Instruction& instruction) = 0;
};

// Runs the instructions in order. position is that of the instruction being run, so that who catches an error can name
// it.
void run(std::span<const Instruction> instructions, Executor& executor, size_t& position);

}  // namespace temper::parallel
