// Writes run states while training goes on.
//
//   keeper.begin(state);             // between steps; the tensors are being copied aside from now on
//   step.compute(...);               // forward and backward do not touch weights and moments
//   keeper.wait_until_copied();      // usually there is nothing to wait for
//   step.update();                   // meanwhile the copy is hashed, written, synced and renamed by a thread
//
// A state that cannot be written (a full disk) does no harm: the older ones stay, and take_results() says what
// happened.
//
// Many ranks (ctx.groups.world) each have a keeper, and write their parts at the same time. The threads never talk to
// other ranks: that is done by the calls that are collective, which carry a write on when every rank is ready for it,
// and wait for nobody but in wait_until_written(). First the first rank prepares the directory; all write; the first
// rank publishes, or, where a rank could not write its part, nothing is published and every rank is told why.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "checkpoint/state_log.h"
#include "train/run_state.h"
#include "train/state_tensors.h"

namespace temper::train {

struct KeepResult {
  int64_t step = 0;
  std::string error;   // empty: the state is on the disk
  double seconds = 0;  // from begin() to the end of what this rank wrote
};

class StateKeeper {
 public:
  // All must outlive the keeper. sync_logs: called by the writing thread before a state is written that names lengths
  // of logs; throws where it fails. verify: every state is read back and compared once it is written.
  StateKeeper(checkpoint::StateLog& log, const layers::Ctx& ctx, const StateTensors& tensors,
              std::function<void()> sync_logs, bool verify);
  StateKeeper(const StateKeeper&) = delete;
  StateKeeper& operator=(const StateKeeper&) = delete;
  ~StateKeeper();  // waits for the write

  // Starts to save the run as it is now, after the end of the write before. heldout_loss: of this step, for keep_best.
  // What the state says beside its tensors is what the first rank gives. Collective.
  void begin(const RunState& state, std::optional<double> heldout_loss);

  // Returns when weights and moments may change.
  void wait_until_copied();

  // Waits for the write, if there is one. Collective.
  void wait_until_written();

  // Of the writes that have ended since the last call, in order; the same on all ranks. Collective.
  std::vector<KeepResult> take_results();

  // For how long training stood still in begin() and wait_until_copied(), since the last call.
  double take_pause_seconds();

 private:
  enum class Phase : uint8_t { kIdle, kWriting, kPublishing };

  void start(std::function<void()> work);
  void copy_aside();
  void publish(const std::vector<checkpoint::StatePart>& parts);
  bool is_anybody_busy();
  void advance();
  void end(std::string problem);

  checkpoint::StateLog& log_;
  const layers::Ctx& ctx_;
  const StateTensors& tensors_;
  const std::function<void()> sync_logs_;
  const bool verify_;
  comm::Comm* const ranks_;  // null: this one alone

  // Of the training thread, and of the writing one while it runs.
  Phase phase_ = Phase::kIdle;
  checkpoint::StateContents contents_;
  checkpoint::StatePart part_;
  double begun_ = 0;
  std::vector<KeepResult> results_;
  double pause_seconds_ = 0;

  std::mutex mutex_;
  std::condition_variable changed_;
  bool copied_ = true, done_ = true;  // of the writing thread's work
  std::string problem_;               // of it
  double done_at_ = 0;
  std::thread thread_;
};

}  // namespace temper::train
