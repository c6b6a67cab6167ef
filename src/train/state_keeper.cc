#include "train/state_keeper.h"

#include <sys/resource.h>

#include "base/check.h"
#include "base/clock.h"

namespace temper::train {
namespace {

// On Linux a thread has a priority of its own: the writer takes what computing leaves.
void lower_priority() { setpriority(PRIO_PROCESS, 0, 19); }

}  // namespace

StateKeeper::StateKeeper(checkpoint::StateLog& log, const layers::Ctx& ctx, const StateTensors& tensors,
                         std::function<void()> sync_logs, bool verify)
    : log_(log), ctx_(ctx), tensors_(tensors), sync_logs_(std::move(sync_logs)), verify_(verify) {}

StateKeeper::~StateKeeper() {
  if (thread_.joinable()) thread_.join();
}

void StateKeeper::begin(const RunState& state, std::optional<double> heldout_loss) {
  const double start = now_seconds();
  wait_until_written();
  copied_ = false;
  checkpoint::StateContents contents{state.step, state.to_json(), tensors_.contents(), heldout_loss};
  thread_ = std::thread([this, start, contents = std::move(contents)] {
    KeepResult result{contents.step, "", 0};
    try {
      write(contents);
    } catch (const std::exception& error) {
      result.error = error.what();
    }
    result.seconds = now_seconds() - start;
    const std::lock_guard lock(mutex_);
    copied_ = true;
    results_.push_back(std::move(result));
    changed_.notify_all();
  });
  pause_seconds_ += now_seconds() - start;
}

void StateKeeper::write(const checkpoint::StateContents& contents) {
  if (tensors_.staging()) {
    tensors_.stage(ctx_);
    const std::lock_guard lock(mutex_);
    copied_ = true;
    changed_.notify_all();
    lower_priority();
  }
  sync_logs_();
  log_.write(contents);
  if (verify_) log_.open(contents.step);
  log_.retain();
}

void StateKeeper::wait_until_copied() {
  const double start = now_seconds();
  std::unique_lock lock(mutex_);
  if (copied_) return;
  changed_.wait(lock, [&] { return copied_; });
  pause_seconds_ += now_seconds() - start;
}

void StateKeeper::wait_until_written() {
  if (thread_.joinable()) thread_.join();
}

std::vector<KeepResult> StateKeeper::take_results() {
  const std::lock_guard lock(mutex_);
  return std::exchange(results_, {});
}

double StateKeeper::take_pause_seconds() { return std::exchange(pause_seconds_, 0); }

}  // namespace temper::train
