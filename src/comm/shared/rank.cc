#include "comm/shared/rank.h"

#include <sched.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/clock.h"
#include "base/error.h"

namespace temper::comm {
namespace {

// A rank that waits spins while the others are probably about to come, then offers its core to whoever wants it, then
// sleeps: machines may have fewer cores than ranks.
constexpr double kSpinSeconds = 4e-6, kYieldSeconds = 60e-6;
constexpr double kSecondsBetweenLooks = 0.05;  // at a peer's process
constexpr double kSecondsForVerdict = 0.2;     // its writer may have died in the middle

void spin_once() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

SharedRank::SharedRank(Block block, int64_t rank, int64_t process, LifeOf life_of)
    : block_(std::move(block)), rank_(rank), life_of_(std::move(life_of)), heap_(block_, rank) {
  doing_.process = process;
  publish(State::kComputing, -1);
}

SharedRank::~SharedRank() { publish(State::kLeft, -1); }

void SharedRank::publish(State state, int64_t waits_for) {
  doing_.state = state;
  doing_.waits_for = waits_for;
  doing_.since = now_seconds();
  block_.board(rank_).write(doing_);
}

void SharedRank::set_place(int64_t step, std::string_view instruction) {
  step_ = step;
  hash_instruction_ = text_hash(instruction);
  doing_.id.step = step;
  doing_.set_instruction(instruction);
  publish(State::kComputing, -1);
}

void SharedRank::begin_call(std::string_view group, int64_t call, Identity& id, const Call& what) {
  throw_if_failed();
  id.layer = what.layer;
  id.step = step_;
  id.hash_what = text_hash(what.what);
  id.hash_instruction = hash_instruction_;
  doing_.id = id;
  doing_.call = call;
  doing_.set_group(group);
  doing_.set_what(what.what);
  publish(State::kInCall, -1);
}

void SharedRank::end_call() { publish(State::kComputing, -1); }

double SharedRank::wait(Signal& signal, uint32_t target, int64_t whom) {
  if (signal.reached(target)) return 0;
  const double start = now_seconds();
  double now = start;
  while (now - start < kSpinSeconds) {
    for (int i = 0; i < 16; ++i) {
      if (signal.reached(target)) return now_seconds() - start;
      spin_once();
    }
    now = now_seconds();
  }
  while (now - start < kYieldSeconds) {
    if (signal.reached(target)) return now - start;
    sched_yield();
    now = now_seconds();
  }
  return wait_long(signal, target, whom, start);
}

double SharedRank::wait_long(Signal& signal, uint32_t target, int64_t whom, double start) {
  publish(State::kWaiting, whom);
  double last_look = start;
  while (!signal.reached(target)) {
    sleep_on(signal, target);
    throw_if_failed();
    const double now = now_seconds();
    const bool too_late = now - start > deadline_seconds_;
    if (!too_late && now - last_look < kSecondsBetweenLooks) continue;
    last_look = now;
    // Asked before the signal: what it raised before it went counts.
    const bool lost = will_not_come(whom);
    if (signal.reached(target)) break;
    if (lost || too_late) fail_world(explain_wait(rank_, reports()));
  }
  publish(State::kInCall, -1);
  return now_seconds() - start;
}

bool SharedRank::will_not_come(int64_t whom) const {
  return life_of_(whom) == Life::kGone || block_.board(whom).read().state == State::kLeft;
}

void SharedRank::throw_if_failed() const {
  Verdict& verdict = block_.verdict();
  if (verdict.claimed.load(std::memory_order_acquire) == 0) return;
  const double start = now_seconds();
  while (verdict.ready.load(std::memory_order_acquire) == 0 && now_seconds() - start < kSecondsForVerdict)
    sched_yield();
  if (verdict.ready.load(std::memory_order_acquire) == 0) throw Error(ErrorCode::kPeer, explain_wait(rank_, reports()));
  throw Error(ErrorCode::kPeer, std::string(verdict.text, strnlen(verdict.text, Verdict::kMaxBytes)));
}

void SharedRank::post_verdict(std::string_view text) noexcept {
  Verdict& verdict = block_.verdict();
  if (verdict.claimed.exchange(1, std::memory_order_acq_rel) != 0) return;
  const size_t n = std::min(text.size(), Verdict::kMaxBytes - 1);
  std::memcpy(verdict.text, text.data(), n);
  verdict.text[n] = 0;
  verdict.ready.store(1, std::memory_order_release);
}

void SharedRank::fail_world(std::string_view text) {
  post_verdict(text);
  throw_if_failed();
  throw Error(ErrorCode::kPeer, std::string(text));
}

std::vector<RankReport> SharedRank::reports() const {
  std::vector<RankReport> reports(static_cast<size_t>(block_.num_ranks()));
  const double now = now_seconds();
  for (int64_t r = 0; r < block_.num_ranks(); ++r) {
    RankReport& report = reports[static_cast<size_t>(r)];
    report.doing = block_.board(r).read();
    report.life = report.doing.state == State::kLeft ? Life::kAlive : life_of_(r);
    report.seconds = std::max(0.0, now - report.doing.since);
  }
  return reports;
}

}  // namespace temper::comm
