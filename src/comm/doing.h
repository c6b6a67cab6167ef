// What a rank is doing, in a form that can stand in shared memory or travel, and the words for it when a wait fails.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "comm/comm.h"

namespace temper::comm {

enum class Op : uint8_t { kNone, kSplit, kBarrier, kAllReduce, kAllGather, kReduceScatter, kAllToAll, kSend, kRecv };
const char* op_name(Op op);

// What all ranks of a group must agree on before data moves. hash_* stand for texts that are too long to compare.
struct Identity {
  Op op = Op::kNone;
  DType dtype = DType::kNone;
  Reduce reduce = Reduce::kSum;
  int64_t layer = -1;
  int64_t num_bytes = 0;  // all_to_all_v: of a row
  int64_t step = -1;
  uint64_t hash_what = 0, hash_instruction = 0;
  bool operator==(const Identity&) const = default;
};

enum class State : uint8_t { kComputing, kInCall, kWaiting, kLeft };

// Plain bytes: texts are cut to their arrays and end in 0.
struct Doing {
  State state = State::kComputing;
  Identity id;             // of the current or last call
  int64_t call = 0;        // its number in its group, from 1
  int64_t waits_for = -1;  // rank of the world
  int64_t process = 0;     // 0: ranks are threads
  double since = 0;        // now_seconds() of its machine when the state began
  char group[16] = {};
  char what[40] = {};
  char instruction[96] = {};

  void set_group(std::string_view text);
  void set_what(std::string_view text);
  void set_instruction(std::string_view text);
};

// How a rank's process looks from outside.
enum class Life : uint8_t { kAlive, kStopped, kGone, kSilent };  // kSilent: does not answer

struct RankReport {
  Doing doing;
  Life life = Life::kAlive;
  double seconds = 0;  // in its state
};

uint64_t text_hash(std::string_view text);
std::string format_ranks(std::span<const int64_t> ranks);  // "rank 1", "ranks 0, 2-7"

// "gradients of layer 4 (all_reduce in dp, call 812, f32, 1.5 MiB)"
std::string describe_call(const Doing& doing);
// "computing: step 7, backward of micro-batch 3, since 61 s"
std::string describe(const RankReport& report);

// Rank `me` gave up waiting. Names the rank that everybody waits for in the end, those who wait for it, and what each
// rank was doing.
std::string explain_wait(int64_t me, std::span<const RankReport> ranks);
std::string explain_gone(int64_t rank, const RankReport& report);
// Ranks of one group came to different calls, with this. members: those of the group.
std::string explain_mismatch(std::span<const int64_t> members, std::span<const Doing> doings);

// Of all_to_all_v: the two ends disagree.
std::string explain_rows(int64_t sender, int64_t sent, int64_t receiver, int64_t expected, const Doing& receiving);
// A message is what its receiver asks for if dtype, bytes, layer and the call's text agree.
bool is_same_message(const Identity& sent, const Identity& expected);
std::string explain_message(int64_t receiver, const Doing& receiving, int64_t sender, const Doing& sent);

}  // namespace temper::comm
