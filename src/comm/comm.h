// Ranks and what they do together: the collective half of the seam. Eleven functions that every engine offers (one
// rank, threads of one process, processes of many machines, later the vendors' libraries), so that nobody above knows
// which runs.
//
// Contract of all collectives: every rank of the group calls the same one, in the same order, with the same Call, dtype
// and, but for all_to_all_v, the same size. They are enqueued on the stream (of the CPU: done on return). Views are
// contiguous device memory, or, where the stream is null, memory of the host; then the call is done on return. A sum is
// formed in one fixed order, the balanced binary tree over the ranks of the group,
//   ((x0 + x1) + (x2 + x3)) + ((x4 + x5) + ...), missing ranks left out,
// whatever the engine and the size of the message; bf16 is added in f32 and rounded once. All ranks get equal bits.
//
// A collective has an identity (step, instruction, layer, what, bytes; as it was when it was enqueued) and a deadline,
// from its start. Ranks that come with different
// ones, and a rank that is dead or stuck, are named on every other rank by an Error (kPeer) that says what each rank
// was doing; the group cannot be used any more after it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "backend/device.h"
#include "tensor/view.h"

namespace temper::comm {

enum class Reduce : uint8_t { kSum, kMax };

// What a collective is for.
struct Call {
  const char* what;    // "gradients", "dispatch"; a constant of the program
  int64_t layer = -1;  // of the model; -1: none
};

// Since the world began; of calls that are done, and while none is under way.
struct Traffic {
  int64_t num_calls = 0, num_bytes = 0;  // bytes of this rank's views
  double wait_seconds = 0;               // until the last rank came, of whichever thread made the call
};

class Comm {
 public:
  virtual ~Comm() = default;

  virtual int64_t rank() const = 0;
  virtual int64_t size() const = 0;
  // The ranks that give the same color, in the order of their key (equal keys: of their rank here). Collective. name
  // stands in messages: "dp".
  virtual std::unique_ptr<Comm> split(int64_t color, int64_t key, std::string_view name) = 0;

  virtual void barrier(backend::Stream* stream, Call call) = 0;
  // x <- the sum (or maximum) of all ranks' x. f32, f64, bf16, i32, i64.
  virtual void all_reduce(backend::Stream* stream, View x, Reduce reduce, Call call) = 0;
  // all [size() * n] <- every rank's mine [n], by rank. mine may be its own place in all. Any dtype.
  virtual void all_gather(backend::Stream* stream, View all, View mine, Call call) = 0;
  // mine [n] <- the sum over ranks of piece rank() of their all [size() * n]. mine may be its own place in all; the
  // other pieces of all are undefined after it. dtypes of all_reduce.
  virtual void reduce_scatter(backend::Stream* stream, View mine, View all, Call call) = 0;
  // Rows of dim 0: the first send_rows[0] rows of `from` go to rank 0, the next send_rows[1] to rank 1, ...; `to` gets
  // recv_rows[r] rows of each rank r, by rank. Any dtype; numbers of rows may be 0 and must agree between the two ends.
  virtual void all_to_all_v(backend::Stream* stream, View to, std::span<const int64_t> recv_rows, View from,
                            std::span<const int64_t> send_rows, Call call) = 0;
  // Point to point, in order between two ranks. send does not wait for the receiver: x is copied aside, and may be
  // changed on return. recv waits.
  virtual void send(backend::Stream* stream, View x, int64_t to, Call call) = 0;
  virtual void recv(backend::Stream* stream, View x, int64_t from, Call call) = 0;

  // This rank fails: whoever waits for it, now or later, gets an Error (kPeer) with its number and why.
  virtual void abort(std::string_view why) noexcept = 0;

  // What the rank does from now on, in all its groups, for those who may wait for it in vain. instruction: "backward of
  // micro-batch 3".
  virtual void set_place(int64_t step, std::string_view instruction) = 0;
  // How long a collective may wait for other ranks; all groups of the rank.
  virtual void set_deadline(double seconds) = 0;
  virtual Traffic traffic() const = 0;  // of this group
};

// Of a group that may be null: this rank alone.
inline int64_t group_size(const Comm* group) { return group ? group->size() : 1; }
inline int64_t group_rank(const Comm* group) { return group ? group->rank() : 0; }

}  // namespace temper::comm
