// One of the two threads of a rank that make calls: the one that computes, and that of its stream for communication
// (comm.h). It begins calls, waits with the rank's deadline, and knows what to say of itself when a wait fails.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include "comm/doing.h"
#include "comm/shared/signal.h"

namespace temper::comm {

class SharedRank;

enum class LaneKind : uint8_t { kComputing, kBeside };

// Where a rank is in its step.
struct Place {
  int64_t step = -1;
  uint64_t hash_instruction = 0;
  char instruction[sizeof(Doing::instruction)] = {};
};

class Lane {
 public:
  Lane(SharedRank& rank, LaneKind kind, int64_t process, double spin_seconds);

  const Doing& doing() const { return doing_; }
  // The rank has come to this place; its computing thread says so.
  void set_place(const Place& place);
  // A call that the rank came to at `place`: id's own is filled in here. Throws kPeer if the world has failed.
  void begin_call(std::string_view group, int64_t call, Identity& id, const Call& what, const Place& place);
  void end_call();

  // Until the signal has reached target. whom: the rank that is waited for, asked only when the wait is long. Returns
  // the seconds waited. Throws kPeer when the world fails, when that rank is gone or has left, or after the deadline.
  double wait(Signal& signal, uint32_t target, const std::function<int64_t()>& whom);
  // The same for what must be asked again and again.
  double wait(const std::function<bool()>& ready, int64_t whom);

 private:
  void publish(State state, int64_t waits_for);
  double wait_long(const std::function<bool()>& ready, const std::function<void()>& sleep,
                   const std::function<int64_t()>& whom, double start);
  [[noreturn]] void give_up();

  SharedRank& rank_;
  const LaneKind kind_;
  const double spin_seconds_;
  Doing doing_;
};

// Who makes a call of a group, and where the rank was when it came to it.
struct Caller {
  Lane* lane = nullptr;
  Place place;
};

}  // namespace temper::comm
