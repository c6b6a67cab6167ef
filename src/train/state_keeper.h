// Writes run states while training goes on.
//
//   keeper.begin(state);             // between steps; the tensors are being copied aside from now on
//   step.compute(...);               // forward and backward do not touch weights and moments
//   keeper.wait_until_copied();      // usually there is nothing to wait for
//   step.update();                   // meanwhile the copy is hashed, written, synced and renamed by a thread
//
// A state that cannot be written (a full disk) does no harm: the older ones stay, and take_results() says what
// happened.
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
  double seconds = 0;  // from begin() to the end of the write
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
  void begin(const RunState& state, std::optional<double> heldout_loss);

  // Returns when weights and moments may change.
  void wait_until_copied();

  // Waits for the write, if there is one.
  void wait_until_written();

  // Of the writes that have ended since the last call, in order.
  std::vector<KeepResult> take_results();

  // For how long training stood still in begin() and wait_until_copied(), since the last call.
  double take_pause_seconds();

 private:
  void write(const checkpoint::StateContents& contents);

  checkpoint::StateLog& log_;
  const layers::Ctx& ctx_;
  const StateTensors& tensors_;
  const std::function<void()> sync_logs_;
  const bool verify_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool copied_ = true;
  std::vector<KeepResult> results_;
  double pause_seconds_ = 0;
  std::thread thread_;
};

}  // namespace temper::train
