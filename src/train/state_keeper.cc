#include "train/state_keeper.h"

#include <sys/resource.h>

#include <chrono>

#include "base/check.h"
#include "base/clock.h"
#include "checkpoint/state_ranks.h"
#include "parallel/texts.h"

namespace temper::train {
namespace {

// On Linux a thread has a priority of its own: the writer takes what computing leaves.
void lower_priority() { setpriority(PRIO_PROCESS, 0, 19); }

// What goes wrong in body; empty: nothing.
std::string problem_of(const std::function<void()>& body) {
  try {
    body();
    return "";
  } catch (const std::exception& error) {
    return error.what();
  }
}

}  // namespace

StateKeeper::StateKeeper(checkpoint::StateLog& log, const layers::Ctx& ctx, const StateTensors& tensors,
                         std::function<void()> sync_logs, bool verify)
    : log_(log),
      ctx_(ctx),
      tensors_(tensors),
      sync_logs_(std::move(sync_logs)),
      verify_(verify),
      ranks_(comm::group_size(ctx.groups.world) > 1 ? ctx.groups.world : nullptr) {}

StateKeeper::~StateKeeper() {
  if (thread_.joinable()) thread_.join();
}

void StateKeeper::begin(const RunState& state, std::optional<double> heldout_loss) {
  const double now = now_seconds();
  wait_until_written();
  begun_ = now;
  contents_ = {state.step, state.to_json(), tensors_.contents(), heldout_loss};
  phase_ = Phase::kWriting;
  if (!ranks_) {
    start([this] {
      copy_aside();
      sync_logs_();
      log_.write(contents_);
      if (verify_) log_.open(contents_.step);
      log_.retain();
    });
  } else {
    std::string problem;
    if (ranks_->rank() == 0) problem = problem_of([this] { log_.prepare(contents_.step); });
    problem = parallel::first_problem(ranks_, problem);
    if (!problem.empty()) {
      done_at_ = now_seconds();
      end(problem);
    } else {
      start([this] {
        copy_aside();
        sync_logs_();
        part_ = log_.write_part(contents_, ranks_->rank());
      });
    }
  }
  pause_seconds_ += now_seconds() - now;
}

// Runs the work on a thread.
void StateKeeper::start(std::function<void()> work) {
  copied_ = done_ = false;
  thread_ = std::thread([this, work = std::move(work)] {
    std::string problem = problem_of(work);
    const std::lock_guard lock(mutex_);
    copied_ = done_ = true;
    problem_ = std::move(problem);
    done_at_ = now_seconds();
    changed_.notify_all();
  });
}

void StateKeeper::copy_aside() {
  if (!tensors_.staging()) return;
  tensors_.stage(ctx_);
  const std::lock_guard lock(mutex_);
  copied_ = true;
  changed_.notify_all();
  lower_priority();
}

void StateKeeper::publish(const std::vector<checkpoint::StatePart>& parts) {
  log_.publish(contents_, parts);
  if (verify_) log_.open(contents_.step);
  log_.retain();
}

bool StateKeeper::is_anybody_busy() {
  int32_t is_busy = 0;
  {
    const std::lock_guard lock(mutex_);
    is_busy = !done_;
  }
  if (ranks_) ranks_->all_reduce(nullptr, View(&is_busy, DType::kI32, {1}), comm::Reduce::kMax, {"run state"});
  return is_busy != 0;
}

// Carries a write on as far as all ranks are.
void StateKeeper::advance() {
  if (phase_ == Phase::kIdle || is_anybody_busy()) return;
  if (thread_.joinable()) thread_.join();
  std::string problem = parallel::first_problem(ranks_, std::exchange(problem_, ""));
  const bool is_first = comm::group_rank(ranks_) == 0;
  if (!problem.empty() && ranks_ && is_first) log_.discard();
  if (!problem.empty() || !ranks_ || phase_ == Phase::kPublishing) return end(std::move(problem));
  phase_ = Phase::kPublishing;
  const auto parts = checkpoint::gather_parts(ranks_, part_);
  if (is_first) start([this, parts] { publish(parts); });
}

void StateKeeper::end(std::string problem) {
  phase_ = Phase::kIdle;
  results_.push_back({contents_.step, std::move(problem), done_at_ - begun_});
}

void StateKeeper::wait_until_copied() {
  const double start = now_seconds();
  std::unique_lock lock(mutex_);
  if (copied_) return;
  changed_.wait(lock, [&] { return copied_; });
  pause_seconds_ += now_seconds() - start;
}

void StateKeeper::wait_until_written() {
  // No rank waits longer than this for its own thread before it meets the others, who may wait for it.
  constexpr auto kPatience = std::chrono::milliseconds(100);
  while (phase_ != Phase::kIdle) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, kPatience, [&] { return done_; });
    }
    advance();
  }
}

std::vector<KeepResult> StateKeeper::take_results() {
  advance();
  return std::exchange(results_, {});
}

double StateKeeper::take_pause_seconds() { return std::exchange(pause_seconds_, 0); }

}  // namespace temper::train
