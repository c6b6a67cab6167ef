#include "comm/shared/rank.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/clock.h"
#include "base/error.h"

namespace temper::comm {
namespace {

// A rank that waits spins, then sleeps. Waking up costs more than the usual wait, but where ranks share cores a
// spinning one keeps the one it waits for from its core. (sched_yield in between was worse: it gives the core away for
// milliseconds to whatever else runs on the machine.)
constexpr double kSpinSeconds = 200e-6, kSpinSecondsOnSharedCores = 2e-6;
constexpr double kSecondsBetweenLooks = 0.05;  // at a peer's process
constexpr double kSecondsForVerdict = 5;       // its writer may have died in the middle

constexpr unsigned kSleepBetweenQuestionsUs = 200;

// For all ranks of a block: threads have those of their process; launchers bind processes each to its own.
int64_t num_cores(bool ranks_are_threads) {
  cpu_set_t set;
  if (ranks_are_threads && sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  return sysconf(_SC_NPROCESSORS_ONLN);
}

void spin_once() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

Standing alone_in_world(int64_t rank, int64_t world_size) {
  Standing standing;
  standing.block_rank = rank;
  standing.life_of = [](int64_t) { return Life::kAlive; };
  standing.world_size = world_size;
  for (int64_t r = 0; r < world_size; ++r) standing.world_ranks.push_back(r);
  return standing;
}

SharedRank::SharedRank(Block block, Standing standing)
    : block_(std::move(block)),
      standing_(std::move(standing)),
      heap_(block_, standing_.block_rank),
      spin_seconds_(block_.num_ranks() <= num_cores(standing_.process == 0) ? kSpinSeconds
                                                                            : kSpinSecondsOnSharedCores) {
  doing_.process = standing_.process;
  publish(State::kComputing, -1);
}

SharedRank::~SharedRank() { publish(State::kLeft, -1); }

void SharedRank::publish(State state, int64_t waits_for) {
  doing_.state = state;
  doing_.waits_for = waits_for;
  doing_.since = now_seconds();
  block_.board(standing_.block_rank).write(doing_);
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

namespace {

// Returns whether it came to be ready in this time.
template <class Ready>
bool spin_until(const Ready& ready, double start, double seconds) {
  for (double now = start; now - start < seconds; now = now_seconds()) {
    for (int i = 0; i < 16; ++i) {
      if (ready()) return true;
      spin_once();
    }
  }
  return ready();
}

}  // namespace

double SharedRank::wait(Signal& signal, uint32_t target, const std::function<int64_t()>& whom) {
  const auto ready = [&] { return signal.reached(target); };
  if (ready()) return 0;
  const double start = now_seconds();
  if (spin_until(ready, start, spin_seconds_)) return now_seconds() - start;
  return wait_long(
      ready, [&] { sleep_on(signal, target); }, whom, start);
}

double SharedRank::wait(const std::function<bool()>& ready, int64_t whom) {
  if (ready()) return 0;
  const double start = now_seconds();
  if (spin_until(ready, start, spin_seconds_)) return now_seconds() - start;
  const auto sleep = [] { usleep(kSleepBetweenQuestionsUs); };
  return wait_long(
      ready, sleep, [whom] { return whom; }, start);
}

double SharedRank::wait_long(const std::function<bool()>& ready, const std::function<void()>& sleep,
                             const std::function<int64_t()>& whom, double start) {
  int64_t awaited = whom();
  publish(State::kWaiting, awaited);
  double last_look = start;
  while (!ready()) {
    sleep();
    throw_if_failed();
    const double now = now_seconds();
    const bool too_late = now - start > deadline_seconds_;
    if (!too_late && now - last_look < kSecondsBetweenLooks) continue;
    last_look = now;
    if (const int64_t next = whom(); next != awaited) {
      awaited = next;
      doing_.waits_for = awaited;
      block_.board(standing_.block_rank).write(doing_);
    }
    // Asked before the last look: what it did before it went counts.
    const bool lost = will_not_come(awaited);
    if (ready()) break;
    if (lost || too_late) fail_world([&] { return explain_wait(rank(), reports()); });
  }
  publish(State::kInCall, -1);
  return now_seconds() - start;
}

bool SharedRank::will_not_come(int64_t whom) const {
  const auto& ranks = standing_.world_ranks;
  const auto found = std::find(ranks.begin(), ranks.end(), whom);
  if (found == ranks.end()) return false;  // elsewhere: only the deadline tells
  const int64_t there = found - ranks.begin();
  return standing_.life_of(there) == Life::kGone || block_.board(there).read().state == State::kLeft;
}

void SharedRank::throw_if_failed() const {
  if (!failed()) return;
  Verdict& verdict = block_.verdict();
  const double start = now_seconds();
  while (verdict.ready.load(std::memory_order_acquire) == 0 && now_seconds() - start < kSecondsForVerdict) usleep(1000);
  if (verdict.ready.load(std::memory_order_acquire) == 0)
    throw Error(ErrorCode::kPeer, explain_wait(rank(), reports()));
  throw Error(ErrorCode::kPeer, std::string(verdict.text, strnlen(verdict.text, Verdict::kMaxBytes)));
}

void SharedRank::publish_verdict(std::string_view text) noexcept {
  Verdict& verdict = block_.verdict();
  const size_t n = std::min(text.size(), Verdict::kMaxBytes - 1);
  std::memcpy(verdict.text, text.data(), n);
  verdict.text[n] = 0;
  verdict.ready.store(1, std::memory_order_release);
}

void SharedRank::take_verdict(std::string_view text) noexcept {
  if (block_.verdict().claimed.exchange(1, std::memory_order_acq_rel) == 0) publish_verdict(text);
}

void SharedRank::post_verdict(std::string_view text) noexcept {
  if (block_.verdict().claimed.exchange(1, std::memory_order_acq_rel) != 0) return;
  publish_verdict(text);
  if (standing_.tell_elsewhere) standing_.tell_elsewhere(text);
}

void SharedRank::fail_world(const std::function<std::string()>& text) {
  // Claimed before the text is made: one rank looks around, the others repeat what it found.
  if (block_.verdict().claimed.exchange(1, std::memory_order_acq_rel) == 0) {
    const std::string verdict = text();
    publish_verdict(verdict);
    if (standing_.tell_elsewhere) standing_.tell_elsewhere(verdict);
  }
  throw_if_failed();
  throw Error(ErrorCode::kPeer, text());
}

std::vector<RankReport> SharedRank::block_reports() const {
  std::vector<RankReport> reports(static_cast<size_t>(block_.num_ranks()));
  const double now = now_seconds();
  for (int64_t r = 0; r < block_.num_ranks(); ++r) {
    RankReport& report = reports[static_cast<size_t>(r)];
    report.doing = block_.board(r).read();
    report.life = report.doing.state == State::kLeft ? Life::kAlive : standing_.life_of(r);
    report.seconds = std::max(0.0, now - report.doing.since);
  }
  return reports;
}

std::vector<RankReport> SharedRank::reports() const {
  std::vector<RankReport> reports(static_cast<size_t>(standing_.world_size));
  if (standing_.ask_elsewhere) standing_.ask_elsewhere(reports);
  const std::vector<RankReport> here = block_reports();
  for (size_t r = 0; r < here.size(); ++r) reports[static_cast<size_t>(standing_.world_ranks[r])] = here[r];
  return reports;
}

}  // namespace temper::comm
