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
constexpr double kSecondsForVerdict = 5;  // its writer may have died in the middle

// For all ranks of a block: threads have those of their process; launchers bind processes each to its own.
int64_t num_cores(bool ranks_are_threads) {
  cpu_set_t set;
  if (ranks_are_threads && sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  return sysconf(_SC_NPROCESSORS_ONLN);
}

// Where every rank has that many threads of its own at work.
double spin_seconds(const Block& block, const Standing& standing, int64_t num_threads) {
  return num_threads * block.num_ranks() <= num_cores(standing.process == 0) ? kSpinSeconds : kSpinSecondsOnSharedCores;
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
      lanes_{Lane(*this, LaneKind::kComputing, standing_.process, spin_seconds(block_, standing_, 1)),
             Lane(*this, LaneKind::kBeside, standing_.process, spin_seconds(block_, standing_, 2))} {
  set_place(-1, "");
}

SharedRank::~SharedRank() {
  Doing last = lane(LaneKind::kComputing).doing();
  last.state = State::kLeft, last.waits_for = -1, last.since = now_seconds();
  show(LaneKind::kComputing, last);
}

void SharedRank::show(LaneKind kind, const Doing& doing) {
  std::lock_guard lock(show_mutex_);
  const Doing &computing = shown_[0], &beside = shown_[1];
  const auto hidden = [&] { return beside.state != State::kWaiting || computing.state == State::kWaiting; };
  const bool was_hidden = hidden();
  shown_[static_cast<size_t>(kind)] = doing;
  if (kind == LaneKind::kBeside && was_hidden && hidden()) return;
  block_.board(standing_.block_rank).write(hidden() ? computing : beside);
}

void SharedRank::set_place(int64_t step, std::string_view instruction) {
  place_.step = step;
  place_.hash_instruction = text_hash(instruction);
  Doing cut;
  cut.set_instruction(instruction);
  std::memcpy(place_.instruction, cut.instruction, sizeof cut.instruction);
  lane(LaneKind::kComputing).set_place(place_);
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
