#include "comm/shared/lane.h"

#include <unistd.h>

#include <cstring>

#include "base/clock.h"
#include "comm/shared/rank.h"

namespace temper::comm {
namespace {

constexpr double kSecondsBetweenLooks = 0.05;  // at a peer's process
constexpr unsigned kSleepBetweenQuestionsUs = 200;

void spin_once() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

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

Lane::Lane(SharedRank& rank, LaneKind kind, int64_t process, double spin_seconds)
    : rank_(rank), kind_(kind), spin_seconds_(spin_seconds) {
  doing_.process = process;
}

void Lane::publish(State state, int64_t waits_for) {
  doing_.state = state;
  doing_.waits_for = waits_for;
  doing_.since = now_seconds();
  rank_.show(kind_, doing_);
}

void Lane::set_place(const Place& place) {
  doing_.id.step = place.step;
  std::memcpy(doing_.instruction, place.instruction, sizeof place.instruction);
  publish(State::kComputing, -1);
}

void Lane::begin_call(std::string_view group, int64_t call, Identity& id, const Call& what, const Place& place) {
  rank_.throw_if_failed();
  id.layer = what.layer;
  id.step = place.step;
  id.hash_what = text_hash(what.what);
  id.hash_instruction = place.hash_instruction;
  doing_.id = id;
  doing_.call = call;
  doing_.set_group(group);
  doing_.set_what(what.what);
  std::memcpy(doing_.instruction, place.instruction, sizeof place.instruction);
  publish(State::kInCall, -1);
}

void Lane::end_call() { publish(State::kComputing, -1); }

double Lane::wait(Signal& signal, uint32_t target, const std::function<int64_t()>& whom) {
  const auto ready = [&] { return signal.reached(target); };
  if (ready()) return 0;
  const double start = now_seconds();
  if (spin_until(ready, start, spin_seconds_)) return now_seconds() - start;
  return wait_long(
      ready, [&] { sleep_on(signal, target); }, whom, start);
}

double Lane::wait(const std::function<bool()>& ready, int64_t whom) {
  if (ready()) return 0;
  const double start = now_seconds();
  if (spin_until(ready, start, spin_seconds_)) return now_seconds() - start;
  const auto sleep = [] { usleep(kSleepBetweenQuestionsUs); };
  return wait_long(
      ready, sleep, [whom] { return whom; }, start);
}

double Lane::wait_long(const std::function<bool()>& ready, const std::function<void()>& sleep,
                       const std::function<int64_t()>& whom, double start) {
  int64_t awaited = whom();
  publish(State::kWaiting, awaited);
  double last_look = start;
  while (!ready()) {
    sleep();
    rank_.throw_if_failed();
    const double now = now_seconds();
    const bool too_late = now - start > rank_.deadline_seconds();
    if (!too_late && now - last_look < kSecondsBetweenLooks) continue;
    last_look = now;
    if (const int64_t next = whom(); next != awaited) {
      awaited = next;
      doing_.waits_for = awaited;
      rank_.show(kind_, doing_);
    }
    // Asked before the last look: what it did before it went counts.
    const bool lost = rank_.will_not_come(awaited);
    if (ready()) break;
    if (lost || too_late) give_up();
  }
  publish(State::kInCall, -1);
  return now_seconds() - start;
}

// Names who is waited for by this lane, whatever the other one does.
void Lane::give_up() {
  rank_.fail_world([this] {
    std::vector<RankReport> reports = rank_.reports();
    reports[static_cast<size_t>(rank_.rank())].doing = doing_;
    return explain_wait(rank_.rank(), reports);
  });
}

}  // namespace temper::comm
